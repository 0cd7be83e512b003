"""The section of a configuration that says what training lowers, and what each objective asks of the adversary."""

from __future__ import annotations

from typing import Annotated, Literal, Protocol

from pydantic import Field, model_validator

from textadv.config.adversary import AttackConfig, MixingConfig, ThreatConfig, lowest_level
from textadv.config.types import Count, Formerly, NotNegative, Positive, Section, Share, checked

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


class CleanConfig(Section):
    """Plain fine-tuning: attack and mixing are ignored."""

    name: Literal["clean"] = Field("clean", description="Cross-entropy of clean rows.")


class AdversarialConfig(Section):
    """Adversarial training (arXiv:1706.06083)."""

    name: Literal["adversarial"] = Field("adversarial", description="Cross-entropy of attacked rows.")
    weight_perturbation: WeightPerturbation = 0.0


class TradesConfig(Section):
    """TRADES (arXiv:1901.08573)."""

    name: Literal["trades"] = Field("trades", description="Clean cross-entropy + beta x KL between clean and attacked.")
    beta: NotNegative = Field(6.0, description="Weight of the divergence.")
    batch_norm: BatchNorm = "separate"
    weight_perturbation: WeightPerturbation = 0.0


class MartConfig(Section):
    """MART (Wang et al., ICLR 2020)."""

    name: Literal["mart"] = Field(
        "mart", description="Boosted cross-entropy of attacked rows + weight x KL x (1 - clean confidence)."
    )
    weight: NotNegative = Field(5.0, description="Weight of the divergence.")
    batch_norm: BatchNorm = "separate"
    weight_perturbation: WeightPerturbation = 0.0


class AlumConfig(Section):
    """ALUM (arXiv:2004.08994)."""

    name: Literal["alum"] = Field("alum", description="Clean cross-entropy + weight x symmetric KL.")
    weight: NotNegative = Field(1.0, description="Weight of the divergence.")
    weight_perturbation: WeightPerturbation = 0.0


class SmartConfig(Section):
    """SMART (arXiv:1911.03437)."""

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


class R3fConfig(Section):
    """R3F (arXiv:2008.03156), the control without an adversary."""

    name: Literal["r3f"] = Field("r3f", description="Clean cross-entropy + weight x symmetric KL under noise.")
    weight: NotNegative = Field(1.0, description="Weight of the divergence.")
    constant_input: Annotated[bool, Formerly(False)] = Field(
        True, description="Train nothing below the noise through the noised branch, as released."
    )
    weight_perturbation: WeightPerturbation = 0.0


class FreelbConfig(Section):
    """FreeLB (arXiv:1909.11764)."""

    name: Literal["freelb"] = Field("freelb", description="Mean loss over all steps of the attack.")
    clean_term: bool = Field(False, description="Add the loss of the unperturbed rows as one more term.")
    hold_dropout: bool = Field(True, description="Use the same dropout masks for all steps of a batch, as released.")
    start: Share = Field(0.5, description="Size of the initial noise as a share of the radius, 0 to 1.")
    special_tokens: bool = SPECIAL_TOKENS
    linf_step: LinfStep = "sign"


class FreeConfig(Section):
    """Adversarial training for free (arXiv:1904.12843)."""

    name: Literal["free"] = Field(
        "free", description="Cross-entropy of attacked rows, one step of the attack per optimizer step."
    )
    replays: Count = Field(
        4, description="Optimizer steps for which a batch stays; an epoch then passes over 1 / replays of the rows."
    )
    carry: bool = Field(True, description="Images: begin each batch from the perturbation of the batch before.")


class RegularisedConfig(Section):
    """Adversarial regularisation (arXiv:1412.6572)."""

    name: Literal["regularised"] = Field("regularised", description="Clean + multiplier x adversarial cross-entropy.")
    multiplier: NotNegative = Field(0.2, description="Weight of the adversarial loss.")
    weight_perturbation: WeightPerturbation = 0.0


class DistributionalConfig(Section):
    """Distributionally robust training (arXiv:1710.10571): a price on the perturbation in place of a ball."""

    name: Literal["distributional"] = Field(
        "distributional", description="Cross-entropy of attacked rows - penalty x squared length of the perturbation."
    )
    penalty: Positive = Field(
        1.0, description="Price, in nats, of a perturbation as long as threat.radius, which is its unit, not a bound."
    )
    weight_perturbation: WeightPerturbation = 0.0


class PredictorConfig(Section):
    """Consistency through a predictor with stopped gradients, as in SimSiam (arXiv:2011.10566)."""

    name: Literal["predictor"] = Field(
        "predictor", description="Mean of clean and adversarial cross-entropy + weight x (1 - cosine)."
    )
    weight: NotNegative = Field(1.0, description="Weight of the consistency.")
    hidden: Count = Field(64, description="Width of the predictor's hidden layer; it is trained and not exported.")
    weight_perturbation: WeightPerturbation = 0.0


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

HOLDING_CLEAN = ("trades", "alum", "smart", "r3f", "regularised", "predictor")


def passes_clean(objective: ObjectiveConfig) -> bool:
    """Whether rows that are attacked pass the model in training unperturbed as well."""
    clean_term = isinstance(objective, FreelbConfig) and objective.clean_term
    return clean_term or objective.name in (*HOLDING_CLEAN, "clean", "mart")


def weight_perturbation_of(objective: ObjectiveConfig) -> float:
    """AWP's gamma; 0 for objectives that cannot have one."""
    return 0.0 if isinstance(objective, CleanConfig | FreelbConfig | FreeConfig) else objective.weight_perturbation


def replays_of(objective: ObjectiveConfig) -> int:
    """Optimizer steps for which a batch stays."""
    return objective.replays if isinstance(objective, FreeConfig) else 1


def objective_problems(
    objective: ObjectiveConfig, attack: AttackConfig, threat: ThreatConfig, mixing: MixingConfig
) -> list[str]:
    """What the objective does not allow in attack, threat and mixing, one line each."""
    name, lines = objective.name, []
    if name == "r3f" and attack.name != "noise":
        lines.append(f"objective.name: r3f needs attack.name: noise, got {attack.name}. Set attack.name: noise.")
    if name in ("trades", "alum", "smart") and attack.goal is None and not attack.random_start:
        lines.append(
            f"objective.name: {name} raises a divergence, which has a zero gradient at the clean input, where this "
            f"attack starts. Set attack.name: pgd with attack.random_start: true, or attack.goal: cross_entropy."
        )
    has_clean_term = isinstance(objective, FreelbConfig) and objective.clean_term
    if mixing.policy == "pair" and (name in HOLDING_CLEAN or has_clean_term):
        what = "objective.clean_term: true" if has_clean_term else f"objective.name: {name}"
        lines.append(
            f"mixing.policy: pair counts the clean loss of attacked rows twice, because {what} already contains it. "
            f"Set mixing.policy: replace."
        )
    lines += _ascending_problems(name, attack, mixing) if name in ("freelb", "free") else []
    lines += (
        freelb_problems(objective, attack, threat.space, threat.norm) if isinstance(objective, FreelbConfig) else []
    )
    if name == "free" and attack.name == "pgd" and attack.steps != 1:
        lines.append(
            f"attack.steps must be 1 with objective.name: free, which takes one step in each of objective.replays, got "
            f"{attack.steps}."
        )
    lines += _distributional_problems(attack, threat) if name == "distributional" else []
    return lines + (_predictor_problems(mixing) if name == "predictor" else [])


class FreelbSteps(Protocol):
    """The keys of FreeLB that depend on the threat, in a classifier's objective and in a chat model's part."""

    @property
    def special_tokens(self) -> bool: ...

    @property
    def linf_step(self) -> str: ...


def freelb_problems(objective: FreelbSteps, attack: AttackConfig, space: str, norm: str) -> list[str]:
    """What FreeLB's options do not allow in attack and threat, one line each."""
    lines = []
    if objective.special_tokens and space == "pixels":
        lines.append("objective.special_tokens: true has no meaning for threat.space: pixels. Remove it.")
    if objective.linf_step != "sign" and not (norm == "linf" and attack.ascent == "fixed"):
        lines.append(
            f"objective.linf_step: {objective.linf_step} needs threat.norm: linf and attack.ascent: fixed, got {norm} "
            f"and {attack.ascent}. Remove it."
        )
    return lines


def _ascending_problems(name: str, attack: AttackConfig, mixing: MixingConfig) -> list[str]:
    """What FreeLB and free training, which train on every step of the attack, do not allow in the attack."""
    if attack.name != "pgd":
        return [f"objective.name: {name} needs attack.name: pgd, got {attack.name}. Set attack.name: pgd."]
    lines = _plain_search_problems(name, attack)
    if attack.goal not in (None, "cross_entropy"):
        lines.append(
            f"attack.goal must be cross_entropy with objective.name: {name}, whose ascent uses the gradient of the "
            f"training loss, got {attack.goal}. Remove it."
        )
    if not attack.random_start:
        lines.append(
            f"attack.random_start must be true with objective.name: {name}, got false."
            + (" To start at the clean input set objective.start: 0." if name == "freelb" else "")
        )
    if attack.steps_schedule is not None:
        lines.append(f"attack.steps_schedule does not go with objective.name: {name}. Set attack.steps instead.")
    if mixing.adaptive_radius is not None:
        lines.append(f"mixing.adaptive_radius does not go with objective.name: {name}. Remove it.")
    return lines


def _plain_search_problems(name: str, attack: AttackConfig) -> list[str]:
    """What an objective whose search is one run to the last point does not allow."""
    lines = []
    if attack.restarts != 1:
        lines.append(f"attack.restarts must be 1 with objective.name: {name}, got {attack.restarts}.")
    if attack.early_stop:
        lines.append(f"attack.early_stop must be false with objective.name: {name}, got true.")
    if attack.select != "last":
        lines.append(f"attack.select must be last with objective.name: {name}, got {attack.select}.")
    if attack.starts != "ball":
        lines.append(f"attack.starts must be ball with objective.name: {name}, got {attack.starts}.")
    return lines


def _distributional_problems(attack: AttackConfig, threat: ThreatConfig) -> list[str]:
    """What the penalised ascent, which has no ball, does not use."""
    if attack.name != "pgd":
        return [f"objective.name: distributional needs attack.name: pgd, got {attack.name}. Set attack.name: pgd."]
    lines = _plain_search_problems("distributional", attack)
    if threat.norm != "l2":
        lines.append(f"objective.name: distributional prices the L2 norm, got threat.norm: {threat.norm}. Set l2.")
    if attack.step_size is not None or (attack.relative_step_size or 1.0) > 1:
        lines.append(
            "objective.name: distributional takes steps that are shares of the way to the penalty's optimum: remove "
            f"attack.step_size (got {attack.step_size}) and keep attack.relative_step_size at most 1 (got "
            f"{attack.relative_step_size}); null means 1."
        )
    if attack.ascent != "fixed":
        lines.append(f"attack.ascent must be fixed with objective.name: distributional, got {attack.ascent}.")
    return lines


def _predictor_problems(mixing: MixingConfig) -> list[str]:
    """Every optimizer step must reach the predictor: processes wait for the gradient of each parameter."""
    lowest = lowest_level(mixing.ratio_schedule, mixing.ratio)
    if mixing.warmup_steps == 0 and lowest > 0:
        return []
    return [
        f"objective.name: predictor needs attacked rows in every optimizer step, got mixing.warmup_steps: "
        f"{mixing.warmup_steps} and a lowest ratio of {lowest}. Set mixing.warmup_steps: 0 and raise the ratio."
    ]


def weight_perturbation_problems(objective: ObjectiveConfig, precision: str | None) -> list[str]:
    """What AWP does not allow in training.precision, one line each."""
    gamma = weight_perturbation_of(objective)
    if gamma == 0 or precision != "fp16":
        return []
    return [
        f"objective.weight_perturbation: {gamma} takes gradients that training.precision: fp16 cannot scale. Set "
        "training.precision: bf16 or no."
    ]
