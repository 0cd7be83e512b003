"""What every objective of a classifier has beside its keys: its rules, its adversary, its making."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar

from textadv.config.adversary import AttackConfig, ThreatConfig, goal_of
from textadv.config.mixing import MixingConfig
from textadv.config.types import Section

if TYPE_CHECKING:
    from torch import nn

    from textadv.attacks import Attack, ThreatModel
    from textadv.attacks.edits import TextEdits
    from textadv.data import Rows
    from textadv.objectives import Objective


class LoweredConfig(Section):
    """What every objective has beside its keys."""

    default_goal: ClassVar[str] = "cross_entropy"
    """What the adversary of training raises where the configuration names no goal."""

    contains_clean: ClassVar[bool] = False
    """Whether the loss of an attacked row contains that of the clean one."""
    beside_clean: ClassVar[bool] = False
    """Whether rows that are attacked pass the model unperturbed without that."""

    name: str

    @property
    def holds_clean(self) -> bool:
        """Whether the loss of an attacked row contains that of the clean one, as configured."""
        return self.contains_clean

    @property
    def passes_clean(self) -> bool:
        """Whether rows that are attacked pass the model in training unperturbed as well."""
        return self.holds_clean or self.beside_clean

    @property
    def batch_stays(self) -> int:
        """Optimizer steps for which a batch stays."""
        return 1

    @property
    def gamma(self) -> float:
        """AWP's; 0 for objectives that cannot have one."""
        return float(getattr(self, "weight_perturbation", 0.0))

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        """What the objective does not allow in attack, threat and mixing, one line each."""
        if mixing.policy != "pair" or not self.holds_clean:
            return []
        what = "objective.clean_term: true" if self.name == "freelb" else f"objective.name: {self.name}"
        return [
            f"mixing.policy: pair counts the clean loss of attacked rows twice, because {what} already contains it. "
            f"Set mixing.policy: replace."
        ]

    def precision_problems(self, precision: str | None) -> list[str]:
        """What AWP does not allow in training.precision, one line each."""
        if self.gamma == 0 or precision != "fp16":
            return []
        return [
            f"objective.weight_perturbation: {self.gamma} takes gradients that training.precision: fp16 cannot scale. "
            "Set training.precision: bf16 or no."
        ]

    def adversary(self, attack: AttackConfig, threat: ThreatModel, seed: int) -> Attack:
        """The attack of training, with the objective's own goal and step where the configuration names none."""
        return attack.make(threat, seed, default_goal=self._goal(attack))

    def make(
        self,
        attack: AttackConfig,
        threat: ThreatModel,
        seed: int,
        mixing: MixingConfig | None = None,
        edits: TextEdits | None = None,
    ) -> Objective | None:
        """What training minimises on attacked rows; None for plain fine-tuning.

        mixing: says whether each row has a radius of its own. edits: of the texts, before they are perturbed.
        """
        from textadv.attacks.wrappers.edited import OnEdited
        from textadv.objectives import WeightPerturbation

        adversary: Attack
        if not attack.perturbs:
            assert edits is not None
            adversary = edits
        else:
            adversary = self.adversary(attack, threat, seed)
            if mixing is not None and mixing.adaptive_radius is not None:
                adversary = mixing.adaptive_radius.make(adversary, threat)
            if edits is not None:
                adversary = OnEdited(edits, adversary, goal_of(attack.goal or self._goal(attack)))
        of_attack = self._maker()
        return WeightPerturbation(adversary, of_attack, self.gamma) if self.gamma > 0 else of_attack(adversary)

    def trained_with(self, model: nn.Module, rows: Rows, seed: int) -> AbstractContextManager[object]:
        """The block in which a model is trained: what the objective needs beside the model is there inside.

        rows: those that it is trained on. Raises ValueError where the objective does not fit the model.
        """
        return nullcontext()

    def _goal(self, attack: AttackConfig) -> str:
        return "kl" if attack.name == "virtual_adversarial" else self.default_goal

    def _maker(self) -> Callable[[Attack], Objective]:
        """What makes the objective of an attack, which AWP does anew for each group of rows."""
        return self._of

    def _of(self, adversary: Attack) -> Objective:
        raise NotImplementedError
