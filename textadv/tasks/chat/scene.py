"""What every part of a chat model's objective has beside its keys, and what the parts are made for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, ClassVar

from textadv.config.adversary import AttackConfig
from textadv.config.types import ConfigError, Section

if TYPE_CHECKING:
    from torch import nn

    from textadv.attacks import Attack, ThreatModel
    from textadv.data import ChatRows
    from textadv.objectives import Objective
    from textadv.objectives.alignment import Part


@dataclass(frozen=True)
class Scene:
    """What the parts of an objective are made for.

    layers: blocks of the model. shared: what a part has in common on rows of several roles, by its name.
    """

    attack: AttackConfig
    threat: ThreatModel
    seed: int
    layers: int
    shared: dict[str, Any] = field(default_factory=dict, compare=False)

    def eliciting(self, away: float = 0.0) -> Attack:
        """The training attack that makes the harmful target likely. away: weight of making the safe answer unlikely."""
        return eliciting_attack(self.attack, self.threat, self.seed, away)

    def untargeted(self, default_goal: str = "cross_entropy") -> Attack:
        """The training attack on the safe answer itself."""
        return self.attack.make(self.threat, self.seed, default_goal=default_goal)


def eliciting_attack(attack: AttackConfig, threat: ThreatModel, seed: int, away: float = 0.0) -> Attack:
    """See `Scene.eliciting`. Raises ConfigError where the attack raises something else."""
    from textadv.attacks import Contrast, Elicit, GradientAttack

    if attack.name == "virtual_adversarial":
        raise ConfigError(
            ["attack.name: virtual_adversarial raises a divergence, and cat, capo and lat elicit the target. Set pgd."]
        )
    if attack.goal is not None:
        raise ConfigError(
            [f"attack.goal: {attack.goal} is not for cat, capo and lat, which elicit the target. Remove it."]
        )

    def make(one: AttackConfig) -> Attack:
        found = replace(one.make(threat, seed), goal=Elicit())  # type: ignore[type-var]
        return Contrast(found, away) if away > 0 and isinstance(found, GradientAttack) else found

    return attack.staged(make)


class PartSection(Section):
    """What every part has beside its keys."""

    searching: ClassVar[bool] = False
    """Whether it trains on the perturbation of a search that elicits the target, which such parts share."""
    alone: ClassVar[bool] = False
    """Whether it has an attack of its own, beside which no other fits."""
    on_adversarial: ClassVar[bool] = True
    """Whether it trains on adversarial rows."""
    compares: ClassVar[bool] = False
    """Whether it compares with the model without its adapter."""

    name: str

    @property
    def own_away(self) -> float:
        """The weight of the away term that its adversary has."""
        return 0.0

    @property
    def held_steps(self) -> int:
        """Optimizer steps for which what was found is used."""
        return 1

    def doubts(self, model: nn.Module) -> list[str]:
        """Sentences on what it does with this model that a reader must know.

        Raises ConfigError where the model has not what it trains.
        """
        return []

    def perturbing(self, scene: Scene, adversarial: ChatRows, utility: ChatRows) -> Attack | None:
        """What perturbs the adversarial rows for all parts; None where this part asks for nothing.

        adversarial, utility: training rows. Raises ConfigError where the attack or the model has no such thing.
        """
        return None

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        """What it trains on adversarial rows, perturbed by `attack`.

        Raises ConfigError where it does not fit the model or the attack.
        """
        return []

    def on_every_row(self) -> list[Part]:
        """What it trains on the rows of every role, before all else: a term of the weights, the same at each row."""
        return []

    def on_useful(self, scene: Scene) -> list[Part]:
        """What it trains on utility and on borderline rows."""
        return []

    def on_borderline(self, scene: Scene, useful: list[Part], adversarial: ChatRows) -> Objective | None:
        """What borderline rows are trained on in place of `useful` alone, if anything."""
        return None


def meant(objective: Objective, mean: str, answer: str | None, whole: bool = False) -> Objective:
    """The objective with the mean that a part names: over rows, or over the tokens of this answer."""
    from textadv.objectives.token_means import OverTokens

    return OverTokens(objective, answer, whole) if mean == "token" else objective
