"""What training lowers: each objective with its keys, what it asks of the adversary, and its making."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.adversary import AttackConfig, ThreatConfig, goal_of
from textadv.config.lowered import LoweredConfig
from textadv.config.mixing import MixingConfig
from textadv.config.objective_rules import (
    ascending_problems,
    distributional_problems,
    divergence_problems,
    freelb_problems,
    predictor_problems,
)
from textadv.config.types import Count, Formerly, NotNegative, Positive, Section, Share, checked

if TYPE_CHECKING:
    from torch import nn

    from textadv.attacks import Attack, GradientAttack, ThreatModel
    from textadv.attacks.edits import TextEdits
    from textadv.data import Rows
    from textadv.objectives import Objective

FREE_STEP = 1.0

BatchNorm = Annotated[
    Literal["separate", "joint"],
    Formerly("joint"),
    Field(
        description="Models with batch norm: clean and attacked rows pass it one by one, as in the released code, or "
        "as one batch."
    ),
]
LinfStep = Annotated[
    Literal["sign", "largest_entry"],
    Field(
        description="With threat.norm linf: step along the sign of the gradient, the steepest, or along the gradient "
        "over its largest entry, as released."
    ),
]
SPECIAL_TOKENS = Field(False, description="Move special tokens too, as released, which no attack that measures may.")
Momentum = Annotated[float, Field(ge=0, lt=1)]

WeightPerturbation = Annotated[
    float,
    Field(
        ge=0,
        description="AWP (arXiv:2004.05884): size of a worst-case change of every weight matrix, relative to its norm, "
        "at which the gradient is taken; 0: none.",
    ),
]


class CleanConfig(LoweredConfig):
    """Plain fine-tuning: attack and mixing are ignored."""

    beside_clean = True

    name: Literal["clean"] = Field("clean", description="Cross-entropy of clean rows.")

    def make(
        self,
        attack: AttackConfig,
        threat: ThreatModel,
        seed: int,
        mixing: MixingConfig | None = None,
        edits: TextEdits | None = None,
    ) -> Objective | None:
        """None."""
        return None


class AdversarialConfig(LoweredConfig):
    """Adversarial training (arXiv:1706.06083)."""

    name: Literal["adversarial"] = Field("adversarial", description="Cross-entropy of attacked rows.")
    weight_perturbation: WeightPerturbation = 0.0

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import Adversarial

        return Adversarial(adversary)


class DivergenceConfig(LoweredConfig):
    """Of objectives that add to the clean loss a divergence from the clean prediction, which their adversary raises."""

    contains_clean = True

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        return [*divergence_problems(self.name, attack), *super().problems(attack, threat, mixing)]


class TradesConfig(DivergenceConfig):
    """TRADES (arXiv:1901.08573)."""

    default_goal = "kl"

    name: Literal["trades"] = Field("trades", description="Clean cross-entropy + beta x KL between clean and attacked.")
    beta: NotNegative = Field(6.0, description="Weight of the divergence.")
    batch_norm: BatchNorm = "separate"
    weight_perturbation: WeightPerturbation = 0.0

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import trades

        return trades(adversary, self.beta, self.batch_norm)


class MartConfig(LoweredConfig):
    """MART (Wang et al., ICLR 2020)."""

    beside_clean = True

    name: Literal["mart"] = Field(
        "mart", description="Boosted cross-entropy of attacked rows + weight x KL x (1 - clean confidence)."
    )
    weight: NotNegative = Field(5.0, description="Weight of the divergence.")
    batch_norm: BatchNorm = "separate"
    weight_perturbation: WeightPerturbation = 0.0

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import Mart

        return Mart(adversary, self.weight, batch_norm=self.batch_norm)


class AlumConfig(DivergenceConfig):
    """ALUM (arXiv:2004.08994)."""

    default_goal = "symmetric_kl"

    name: Literal["alum"] = Field("alum", description="Clean cross-entropy + weight x symmetric KL.")
    weight: NotNegative = Field(1.0, description="Weight of the divergence.")
    weight_perturbation: WeightPerturbation = 0.0

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import alum

        return alum(adversary, self.weight)


class SmartConfig(DivergenceConfig):
    """SMART (arXiv:1911.03437)."""

    default_goal = "symmetric_kl"

    name: Literal["smart"] = Field("smart", description="Clean cross-entropy + weight x symmetric KL.")
    weight: NotNegative = Field(1.0, description="Weight of the divergence.")
    constant_targets: Annotated[bool, Formerly(False)] = Field(
        True, description="Hold each direction's target constant, as released, or not, as the paper's formula reads."
    )
    bregman: NotNegative = Field(
        0.0, description="Weight of the divergence from a teacher, a running mean of the weights; 0: none, as released."
    )
    momentum: Momentum = Field(0.999, description="Share of the teacher that an optimizer step leaves.")
    early_momentum: Momentum = Field(0.99, description="The same in the first tenth of the run.")
    weight_perturbation: WeightPerturbation = 0.0

    @model_validator(mode="after")
    def _rules(self) -> SmartConfig:
        lines = []
        if self.bregman == 0 and (self.momentum, self.early_momentum) != (0.999, 0.99):
            lines.append(
                f"objective.momentum and early_momentum ({self.momentum} and {self.early_momentum}) are the teacher's, "
                "and objective.bregman: 0 has none. Remove them, or set objective.bregman: 1."
            )
        return checked(self, lines)

    def _maker(self) -> Callable[[Attack], Objective]:
        """One teacher for all groups of rows."""
        from textadv.objectives import Proximal, smart

        teacher = None if self.bregman == 0 else Proximal(self.bregman, self.momentum, self.early_momentum)
        return partial(smart, weight=self.weight, constant_targets=self.constant_targets, proximal=teacher)


class R3fConfig(LoweredConfig):
    """R3F (arXiv:2008.03156), the control without an adversary."""

    contains_clean = True

    name: Literal["r3f"] = Field("r3f", description="Clean cross-entropy + weight x symmetric KL under noise.")
    weight: NotNegative = Field(1.0, description="Weight of the divergence.")
    constant_input: Annotated[bool, Formerly(False)] = Field(
        True, description="Train nothing below the noise through the noised branch, as released."
    )
    weight_perturbation: WeightPerturbation = 0.0

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        lines = []
        if attack.name != "noise":
            lines.append(f"objective.name: r3f needs attack.name: noise, got {attack.name}. Set attack.name: noise.")
        return lines + super().problems(attack, threat, mixing)

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import r3f

        return r3f(adversary, self.weight, self.constant_input)


class FreelbConfig(LoweredConfig):
    """FreeLB (arXiv:1909.11764)."""

    name: Literal["freelb"] = Field("freelb", description="Mean loss over all steps of the attack.")
    clean_term: bool = Field(False, description="Add the loss of the unperturbed rows as one more term.")
    hold_dropout: bool = Field(True, description="Use the same dropout masks for all steps of a batch, as released.")
    start: Share = Field(0.5, description="Size of the initial noise as a share of the radius, 0 to 1.")
    special_tokens: bool = SPECIAL_TOKENS
    linf_step: LinfStep = "sign"

    @property
    def holds_clean(self) -> bool:
        return self.clean_term

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        lines = super().problems(attack, threat, mixing) + ascending_problems(self.name, attack, mixing)
        return lines + freelb_problems(self, attack, threat.space, threat.norm)

    def _of(self, adversary: Attack) -> Objective:
        from textadv.attacks.wrappers.edited import OnEdited
        from textadv.objectives import FreeLB

        ascent, edits = (adversary.attack, adversary.edits) if isinstance(adversary, OnEdited) else (adversary, None)
        return FreeLB(
            _ascending(ascent),
            self.start,
            self.clean_term,
            self.hold_dropout,
            special_tokens=self.special_tokens,
            largest_entry=self.linf_step == "largest_entry",
            edits=edits,
        )


class FreeConfig(LoweredConfig):
    """Adversarial training for free (arXiv:1904.12843)."""

    name: Literal["free"] = Field(
        "free", description="Cross-entropy of attacked rows, one step of the attack per optimizer step."
    )
    replays: Count = Field(
        4, description="Optimizer steps for which a batch stays; an epoch then passes over 1 / replays of the rows."
    )
    carry: bool = Field(True, description="Images: begin each batch from the perturbation of the batch before.")

    @property
    def batch_stays(self) -> int:
        return self.replays

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        lines = super().problems(attack, threat, mixing) + ascending_problems(self.name, attack, mixing)
        if attack.name == "pgd" and attack.steps != 1:
            lines.append(
                f"attack.steps must be 1 with objective.name: free, which takes one step in each of objective.replays, "
                f"got {attack.steps}."
            )
        return lines

    def adversary(self, attack: AttackConfig, threat: ThreatModel, seed: int) -> Attack:
        """A step is as long as the radius where the configuration names no length."""
        if attack.step_size is None and attack.relative_step_size is None:
            attack = attack.model_copy(update={"relative_step_size": FREE_STEP})
        return super().adversary(attack, threat, seed)

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import Free

        return Free(_ascending(adversary), self.replays, self.carry)


class RegularisedConfig(LoweredConfig):
    """Adversarial regularisation (arXiv:1412.6572)."""

    contains_clean = True

    name: Literal["regularised"] = Field("regularised", description="Clean + multiplier x adversarial cross-entropy.")
    multiplier: NotNegative = Field(0.2, description="Weight of the adversarial loss.")
    weight_perturbation: WeightPerturbation = 0.0

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import Regularised

        return Regularised(adversary, self.multiplier)


class DistributionalConfig(LoweredConfig):
    """Distributionally robust training (arXiv:1710.10571): a price on the perturbation in place of a ball."""

    name: Literal["distributional"] = Field(
        "distributional", description="Cross-entropy of attacked rows - penalty x squared length of the perturbation."
    )
    penalty: Positive = Field(
        1.0, description="Price, in nats, of a perturbation as long as threat.radius, which is its unit, not a bound."
    )
    weight_perturbation: WeightPerturbation = 0.0

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        return [*super().problems(attack, threat, mixing), *distributional_problems(attack, threat)]

    def adversary(self, attack: AttackConfig, threat: ThreatModel, seed: int) -> Attack:
        """The penalised ascent."""
        from textadv.attacks import PenalisedAscent

        def priced(one: AttackConfig) -> Attack:
            share, aim = one.relative_step_size or 1.0, goal_of(one.goal or self._goal(one))
            return PenalisedAscent(threat, self.penalty, one.steps, share, aim, one.random_start, seed)

        return attack.staged(priced)

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import Distributional

        return Distributional(adversary, self.penalty)


class PredictorConfig(LoweredConfig):
    """Consistency through a predictor with stopped gradients, as in SimSiam (arXiv:2011.10566)."""

    contains_clean = True

    name: Literal["predictor"] = Field(
        "predictor", description="Mean of clean and adversarial cross-entropy + weight x (1 - cosine)."
    )
    weight: NotNegative = Field(1.0, description="Weight of the consistency.")
    hidden: Count = Field(64, description="Width of the predictor's hidden layer; it is trained and not exported.")
    weight_perturbation: WeightPerturbation = 0.0

    def problems(self, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig) -> list[str]:
        return [*super().problems(attack, threat, mixing), *predictor_problems(mixing)]

    def trained_with(self, model: nn.Module, rows: Rows, seed: int) -> AbstractContextManager[object]:
        from textadv.objectives import with_predictor

        return with_predictor(model, rows.batch([0]), self.hidden, seed)

    def _of(self, adversary: Attack) -> Objective:
        from textadv.objectives import PredictorConsistency

        return PredictorConsistency(adversary, self.weight)


def _ascending(adversary: Attack) -> GradientAttack:
    from textadv.attacks import GradientAttack

    assert isinstance(adversary, GradientAttack)
    return adversary


ObjectiveConfig = Annotated[
    CleanConfig
    | AdversarialConfig
    | TradesConfig
    | MartConfig
    | AlumConfig
    | SmartConfig
    | R3fConfig
    | FreelbConfig
    | FreeConfig
    | RegularisedConfig
    | DistributionalConfig
    | PredictorConfig,
    Field(discriminator="name"),
]


def teaches(objective: Section) -> bool:
    """Whether a second copy of what is trained is kept, as a teacher."""
    return isinstance(objective, SmartConfig) and objective.bregman > 0
