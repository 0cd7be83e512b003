"""The gradient attack by its names in the literature: PGD, FGSM, R-FGSM."""

from __future__ import annotations

from textadv.attacks.gradient import GradientAttack, Starts
from textadv.attacks.parts.ascent import FixedStep, StepSize
from textadv.attacks.parts.goals import Goal, Untargeted
from textadv.attacks.parts.record import Select
from textadv.attacks.parts.threat import ThreatModel
from textadv.values.plurals import some


def pgd(
    threat: ThreatModel,
    *,
    steps: int = 10,
    step_size: float | None = None,
    relative_step_size: float | None = None,
    goal: Goal | None = None,
    random_start: bool = True,
    restarts: int = 1,
    early_stop: bool = False,
    select: Select = "last",
    seed: int = 0,
    starts: Starts = "ball",
) -> GradientAttack:
    """Projected gradient descent (arXiv:1706.06083); the step is 2.5 x radius / steps unless one is given.

    starts: see `GradientAttack`; the attacks of a configuration that measure have `spread`.

    Deviations: those of `GradientAttack`. The default step is one that reaches any point of the ball, where the paper
    has a fixed one for each data set.
    """
    if step_size is None and relative_step_size is None:
        relative_step_size = 2.5 / max(steps, 1)
    return GradientAttack(
        threat,
        FixedStep(StepSize(step_size, relative_step_size)),
        steps,
        goal or Untargeted(),
        random_start,
        restarts,
        early_stop,
        select,
        seed,
        starts=starts,
    )


def fgsm(threat: ThreatModel, *, goal: Goal | None = None) -> GradientAttack:
    """One step of the whole radius from the clean row (arXiv:1412.6572), in any norm.

    Deviations: the paper has Linf balls alone; pixels are clipped to their box, as the first code of it does on demand.
    """
    return GradientAttack(
        threat, FixedStep(StepSize(relative=1.0)), steps=1, goal=goal or Untargeted(), random_start=False
    )


def r_fgsm(
    threat: ThreatModel, *, relative_step_size: float = 1.25, goal: Goal | None = None, seed: int = 0
) -> GradientAttack:
    """One step of 1.25 radii from a uniform random start, projected (arXiv:2001.03994, algorithm 3).

    Deviations: the gradient is taken in evaluation mode, where the authors' training code takes it in training mode.
    """
    return GradientAttack(
        threat, FixedStep(StepSize(relative=relative_step_size)), steps=1, goal=goal or Untargeted(), seed=seed
    )


def reach_warning(attack: GradientAttack) -> str | None:
    """A sentence where `steps * step_size` cannot reach the radius from the clean row, else None."""
    radius = attack.threat.ball.radius
    if attack.ascent.step_size.relative is None and (not isinstance(radius, float | int) or radius == 0):
        return None
    reach = attack.ascent.step_size.reach(attack.steps, radius if isinstance(radius, float | int) else 1.0)
    if reach >= 1:
        return None
    return (
        f"attack: {some(attack.steps, 'step reaches', 'steps reach')} only {reach:.2g} of the radius from the clean "
        "row: raise attack.steps or "
        "attack.step_size, or state the smaller radius that is really explored."
    )
