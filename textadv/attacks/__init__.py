"""Attacks: functions from a model and a batch to the batch with a perturbation."""

from textadv.attacks.apgd import Apgd, apgd_ce, apgd_dlr, apgd_targeted
from textadv.attacks.autoattack import AutoAttack, Stage, autoattack, require_same_classes
from textadv.attacks.contrast import Contrast
from textadv.attacks.direction import RefusalDirection
from textadv.attacks.gradient import GradientAttack
from textadv.attacks.minimal.bisection import MinimumRadius
from textadv.attacks.minimal.carlini_wagner import CarliniWagner, CarliniWagnerL0, CarliniWagnerLinf, changed_units
from textadv.attacks.minimal.ddn import Ddn
from textadv.attacks.minimal.deepfool import DeepFool
from textadv.attacks.minimal.fab import Fab, fab_targeted
from textadv.attacks.minimal.pdgd import Pdgd
from textadv.attacks.parts.accepting import require_attack
from textadv.attacks.parts.ascent import Adam, Ascent, FixedStep, Momentum, StepSize
from textadv.attacks.parts.attacked import Attack, Attacked, BrokenAt, Cost, Outcome
from textadv.attacks.parts.balls import L1, L2, Ball, Linf
from textadv.attacks.parts.chat_goals import Avoid, Begin
from textadv.attacks.parts.goals import (
    Diverge,
    Elicit,
    Goal,
    Targeted,
    TargetedDlr,
    TargetedMargin,
    Untargeted,
    ranked_target,
    target_count,
)
from textadv.attacks.parts.threat import ThreatModel, radius_unit, require_threat
from textadv.attacks.parts.within import Within
from textadv.attacks.penalty import PenalisedAscent
from textadv.attacks.pgd import fgsm, pgd, r_fgsm, reach_warning
from textadv.attacks.square import Square
from textadv.attacks.virtual import Noise, VirtualAdversarial
from textadv.attacks.wrappers.curriculum import AdaptiveRadius, Stages
from textadv.attacks.wrappers.ensemble import repeat, then, worst_of
from textadv.attacks.wrappers.foreign import Foreign, foreign, require_any_radius
from textadv.attacks.wrappers.held import Held
from textadv.attacks.wrappers.randomised import Eot
from textadv.attacks.wrappers.transfer import Transfer

__all__ = [
    "L1",
    "L2",
    "Adam",
    "AdaptiveRadius",
    "Apgd",
    "Ascent",
    "Attack",
    "Attacked",
    "AutoAttack",
    "Avoid",
    "Ball",
    "Begin",
    "BrokenAt",
    "CarliniWagner",
    "CarliniWagnerL0",
    "CarliniWagnerLinf",
    "Contrast",
    "Cost",
    "Ddn",
    "DeepFool",
    "Diverge",
    "Elicit",
    "Eot",
    "Fab",
    "FixedStep",
    "Foreign",
    "Goal",
    "GradientAttack",
    "Held",
    "Linf",
    "MinimumRadius",
    "Momentum",
    "Noise",
    "Outcome",
    "Pdgd",
    "PenalisedAscent",
    "RefusalDirection",
    "Square",
    "Stage",
    "Stages",
    "StepSize",
    "Targeted",
    "TargetedDlr",
    "TargetedMargin",
    "ThreatModel",
    "Transfer",
    "Untargeted",
    "VirtualAdversarial",
    "Within",
    "apgd_ce",
    "apgd_dlr",
    "apgd_targeted",
    "autoattack",
    "changed_units",
    "fab_targeted",
    "fgsm",
    "foreign",
    "pgd",
    "r_fgsm",
    "radius_unit",
    "ranked_target",
    "reach_warning",
    "repeat",
    "require_any_radius",
    "require_attack",
    "require_same_classes",
    "require_threat",
    "target_count",
    "then",
    "worst_of",
]
