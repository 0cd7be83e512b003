"""AutoAttack: a fixed sequence of strong attacks whose worst case is one number (arXiv:2003.01690)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from torch import Tensor, nn

from textadv.attacks.apgd import Apgd, apgd_ce, apgd_dlr, apgd_targeted
from textadv.attacks.minimal.fab import fab_targeted
from textadv.attacks.parts.attacked import Attack, Attacked
from textadv.attacks.parts.calling import entered, on_arrays, searched
from textadv.attacks.parts.goals import Untargeted, target_count
from textadv.attacks.parts.members import parts
from textadv.attacks.parts.threat import ThreatModel, require_threat
from textadv.attacks.parts.within import Within
from textadv.attacks.square import Square
from textadv.attacks.wrappers.ensemble import WorstOf
from textadv.attacks.wrappers.randomised import Eot
from textadv.values.batch import Batch
from textadv.values.decisions import require_one_each
from textadv.values.kinds import wrong_kind
from textadv.values.losses import margin
from textadv.values.plurals import some
from textadv.values.randomness import derived_seed

Version = Literal["standard", "rand", "fast"]
VERSIONS: tuple[Version, ...] = ("standard", "rand", "fast")
# Restarts of APGD-CE in L1 balls, as in the authors' code (arXiv:2103.01208).
L1_RESTARTS = 5


class Stage(NamedTuple):
    """One attack of the sequence under its usual name; budget: how hard it tries, in words."""

    name: str
    attack: Attack
    budget: str


@dataclass(frozen=True)
class AutoAttack:
    """Every stage in turn on the rows that none before has broken, each from the clean row (arXiv:2003.01690).

    standard: APGD on the cross-entropy, APGD towards each of the min(9, classes - 1) strongest other classes, FAB
        towards the same, Square. rand, for models whose output is random: APGD on the cross-entropy and on the
        difference of logits ratio, every point the mean of `samples` passes. fast: the first two of standard, which
        leave what all four leave where gradients are not masked; a probe without gradients belongs beside it.

    classes: of the model. steps: of each APGD and FAB search. queries: of Square. samples: only for rand.
    seed: every stage draws from a seed of its own, made from this one.

    In L1 balls APGD on the cross-entropy has 5 restarts, as in the authors' code.

    Deviations: targeted APGD of 2 and 3 classes raises the target's logit minus the label's, APGD on the ratio of 2
    classes the margin, where the paper's losses do not exist. FAB does not know balls per token and Square no L1 ball:
    there they are left out, and `str` says so. In L1 balls targeted APGD tries as many targets as elsewhere, where the
    authors try 5, and looks back at other steps (see `Sparse`). The searches of rand do not stop where one mean is
    wrong.

    Raises ValueError where it is called with chats.
    """

    threat: ThreatModel
    classes: int
    version: Version = "standard"
    steps: int = 100
    queries: int = 5000
    samples: int = 20
    seed: int = 0

    def __post_init__(self) -> None:
        require_threat(self.threat)
        if self.version not in VERSIONS:
            raise ValueError(f"attack.version must be one of {', '.join(VERSIONS)}, got {self.version}.")
        for name, count in (("steps", self.steps), ("queries", self.queries), ("samples", self.samples)):
            if count < 1:
                raise ValueError(f"attack.{name} must be at least 1, got {count}.")
        if isinstance(self.classes, bool) or not isinstance(self.classes, int):
            raise wrong_kind("classes", self.classes, "how many classes the model has", "Example: classes=10.")
        target_count(self.classes)

    def __str__(self) -> str:
        stages = "; ".join(f"{stage.name} ({stage.budget})" for stage in self.stages)
        left_out = "".join(f"; left out: {line}" for line in self.left_out)
        return f"AutoAttack {self.version}: {stages}{left_out}"

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The attacks in order, each with a seed of its own."""
        seeds = (derived_seed(self.seed, place) for place in range(4))
        return tuple(self._random(seeds) if self.version == "rand" else self._exact(seeds))

    @property
    def left_out(self) -> tuple[str, ...]:
        """Which stages of the version this threat model does not allow, and why; one line each."""
        lines = []
        if self.version == "standard" and self.threat.ball.per == "token":
            lines.append("FAB-T, which measures a whole row and not single tokens")
        if self.version == "standard" and self.threat.ball.geometry.name == "L1":
            lines.append("Square, which has no form for L1 balls")
        return tuple(lines)

    @property
    def meaning(self) -> str:
        """What the rows that it leaves stand for, in a sentence."""
        stages = ", ".join(stage.name for stage in self.stages)
        told = f"rows that stay right after each of {stages}: an upper bound of the accuracy under any attack"
        if self.version == "fast":
            return f"{told}; where gradients are masked, attacks without gradients may break more"
        return told

    @on_arrays
    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        y: object = None,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        """The rows of `batch` perturbed; always measured, since choosing needs it. See `Attack` for the arguments."""
        model, batch, back = entered(self, model, batch, y, measure)
        require_one_each(
            "AutoAttack",
            batch,
            "AutoAttack measures classifiers, and a chat model has no classes, got chats. Use apgd_ce or pgd.",
        )
        here = replace(self, threat=self.threat.resolved(model, batch))
        attacks = tuple(stage.attack for stage in here.stages)
        return back(searched(WorstOf(attacks), model, batch.clean(), step=step, radius_scale=radius_scale))

    def _exact(self, seeds: Iterator[int]) -> Iterator[Stage]:
        threat, steps, classes = self.threat, self.steps, self.classes
        targets = f"{some(target_count(classes), 'target')} of {some(steps, 'step')}"
        restarts = L1_RESTARTS if threat.ball.geometry.name == "L1" else 1
        budget = some(steps, "step") if restarts == 1 else f"{restarts} restarts of {some(steps, 'step')}"
        yield Stage("APGD-CE", apgd_ce(threat, steps=steps, restarts=restarts, seed=next(seeds)), budget)
        yield Stage("APGD-T", apgd_targeted(threat, classes, steps=steps, seed=next(seeds)), targets)
        if self.version == "fast":
            return
        fab_seed, square_seed = next(seeds), next(seeds)
        if threat.ball.per != "token":
            fab = fab_targeted(threat, classes, steps=steps, seed=fab_seed)
            yield Stage("FAB-T", Within(fab, threat), targets)
        if threat.ball.geometry.name != "L1":
            square = Square(threat, self.queries, seed=square_seed)
            yield Stage("Square", square, f"{self.queries} queries")

    def _random(self, seeds: Iterator[int]) -> Iterator[Stage]:
        threat, steps = self.threat, self.steps
        budget = f"{some(steps, 'step')}, each the mean of {some(self.samples, 'pass', 'passes')}"
        # A single lucky mean does not break a row, so that no search stops there.
        ratio: tuple[str, Apgd] = ("APGD-DLR", apgd_dlr(threat, steps=steps, early_stop=False, seed=next(seeds)))
        if self.classes < 3:
            ratio = ("APGD-margin", replace(ratio[1], goal=Untargeted(margin)))
        first = Eot(apgd_ce(threat, steps=steps, early_stop=False, seed=next(seeds)), self.samples, seed=next(seeds))
        yield Stage("APGD-CE", first, budget)
        yield Stage(ratio[0], Eot(ratio[1], self.samples, seed=next(seeds)), budget)


def require_same_classes(attacks: Iterable[object], classes: int) -> None:
    """Raises ValueError where an AutoAttack in these attacks is made for a model of other classes: it tries too few."""
    for part in (part for attack in attacks for part in parts(attack)):
        if isinstance(part, AutoAttack) and target_count(part.classes) != target_count(classes):
            raise ValueError(
                f"AutoAttack is built for {part.classes} classes, and the model returns {classes} logits: it would try "
                f"{target_count(part.classes)} targets in place of {target_count(classes)}. Give classes={classes}."
            )


def autoattack(
    threat: ThreatModel,
    classes: int,
    *,
    version: Version = "standard",
    steps: int = 100,
    queries: int = 5000,
    samples: int = 20,
    seed: int = 0,
) -> AutoAttack:
    """AutoAttack with the budgets of the paper (arXiv:2003.01690); see `AutoAttack` for versions and arguments.

    Deviations: those of `AutoAttack`.
    """
    return AutoAttack(threat, classes, version, steps, queries, samples, seed)
