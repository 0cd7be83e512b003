"""The objective of a chat model: parts that are added up, and what they are trained on."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, model_validator

from textadv.config.adversary import AttackConfig
from textadv.config.types import ConfigError, Count, NotNegative, Section, checked
from textadv.tasks.chat.parts import CatConfig, PartConfig, PrefillRecoveryConfig
from textadv.tasks.chat.scene import Scene

if TYPE_CHECKING:
    from textadv.attacks import Attack, ThreatModel
    from textadv.data import ChatRows
    from textadv.objectives import Objectives
    from textadv.objectives.alignment import Part


class ChatObjectiveConfig(Section):
    """What training lowers: parts that are added up; those that share an attack share its perturbation."""

    parts: Annotated[list[PartConfig], Field(min_length=1)] = Field(
        [CatConfig(), PrefillRecoveryConfig()], description="What is trained on adversarial rows (kl: on the others)."
    )
    utility: NotNegative = Field(1.0, description="Weight of the loss of utility and borderline answers.")
    defence_steps: Count = Field(1, description="Optimizer steps that use one perturbation; several for LAT.")

    @property
    def held_steps(self) -> int:
        """Optimizer steps after which nothing found earlier is used: a run can be resumed at multiples of it."""
        return math.lcm(self.defence_steps, *(part.held_steps for part in self.parts))

    @property
    def own_away(self) -> float:
        """The weight of the away term that the adversary of a part has of its own."""
        return max(part.own_away for part in self.parts)

    @model_validator(mode="after")
    def _rules(self) -> ChatObjectiveConfig:
        lines = []
        names = [part.name for part in self.parts]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                lines.append(f"objective.parts holds {name} {names.count(name)} times. Keep one and raise its weight.")
        alone = [part.name for part in self.parts if part.alone]
        searching = [part.name for part in self.parts if part.searching]
        if alone and len(alone) + len(searching) > 1:
            lines.append(
                f"objective.parts: {alone[0]} has an attack of its own and cannot share one with "
                f"{', '.join(name for name in [*alone[1:], *searching])}. Train with one of them."
            )
        if self.defence_steps > 1 and "over_refusal" in names:
            lines.append(
                f"objective.defence_steps: {self.defence_steps} holds the attack on adversarial rows, and over_refusal "
                "attacks borderline rows. Set objective.defence_steps: 1, or leave over_refusal out."
            )
        if not any(part.on_adversarial for part in self.parts):
            lines.append("objective.parts trains nothing on adversarial rows. Add for example {name: cat}.")
        if self.defence_steps > 1 and not searching:
            lines.append(
                f"objective.defence_steps: {self.defence_steps} holds the attack of cat, capo or lat, and "
                "objective.parts has none of them. Set objective.defence_steps: 1."
            )
        return checked(self, lines)

    def make(
        self,
        attack: AttackConfig,
        threat: ThreatModel,
        seed: int,
        layers: int,
        adversarial: ChatRows,
        utility: ChatRows,
    ) -> Objectives:
        """What is minimised on the rows of each role.

        layers: blocks of the model. adversarial, utility: training rows, from which the refusal direction is taken.
        Raises ConfigError where a part does not fit the model or the attack.
        """
        from textadv.attacks import Held
        from textadv.objectives.alignment import Supervised, Together
        from textadv.values.batch import Role

        scene = Scene(attack, threat, seed, layers)
        perturbing = self._perturbing(scene, adversarial, utility)
        first = [one for part in self.parts for one in part.on_every_row()]
        parts = [*first, *(one for part in self.parts for one in part.on_harmful(scene, perturbing))]
        if perturbing is not None and self.defence_steps > 1:
            perturbing = Held(perturbing, self.defence_steps)
        useful, close = self._useful(scene), self._useful(scene)
        if not useful:
            raise ConfigError(
                [
                    "objective.utility: 0 leaves nothing to train on utility rows. Raise it, or add {name: kl} to the "
                    "parts."
                ]
            )
        useful, close = [*first, *useful], [*first, *close]
        borderline = (part.on_borderline(scene, close, adversarial) for part in self.parts)
        return {
            Role.ADVERSARIAL: Together(tuple(parts), perturbing),
            Role.UTILITY: Together(tuple(useful)),
            Role.BORDERLINE: next((goal for goal in borderline if goal is not None), Together(tuple(close))),
            Role.CLEAN: Supervised(1.0, "refusal"),
        }

    def _perturbing(self, scene: Scene, adversarial: ChatRows, utility: ChatRows) -> Attack | None:
        if any(part.searching for part in self.parts):
            return scene.eliciting(self.own_away)
        attacks = (part.perturbing(scene, adversarial, utility) for part in self.parts)
        return next((found for found in attacks if found is not None), None)

    def _useful(self, scene: Scene) -> list[Part]:
        """What is trained on utility rows, and made anew on borderline ones."""
        from textadv.objectives.alignment import Part, Supervised

        answers = [Part(Supervised(self.utility))] if self.utility > 0 else []
        return answers + [one for part in self.parts for one in part.on_useful(scene)]
