"""The parts that the objective of a chat model is made of, each with its paper and its knobs."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.objective import LinfStep
from textadv.config.types import Count, Formerly, Natural, NotNegative, Positive, Section, Share, checked

SLOPE = 1e-3
AwayForm = Literal["cross_entropy", "log_1_minus_p"]
Mean = Annotated[
    Literal["row", "token"],
    Field(
        description="What counts the same: every row (row), or every token of the optimizer step's rows, as in the "
        "released code (token)."
    ),
]


def _unused_slope(part: CatConfig | LatConfig) -> list[str]:
    """A line where a slope was set that nothing would use."""
    if part.slope == SLOPE or part.floor > 0 or part.away_form == "cross_entropy":
        return []
    return [
        f"objective.parts: {part.name}.slope: {part.slope} is the gradient that is left beyond floor, which is 0, and "
        "beyond the cutoff of cross_entropy, which away_form is not. Remove it."
    ]


class CatConfig(Section):
    """CAT (arXiv:2405.15589): away from the harmful target and toward the safe answer, on one perturbation."""

    name: Literal["cat"] = Field("cat", description="Away + toward.")
    away: NotNegative = Field(0.5, description="Weight of the loss that drives away from the target; 0: none.")
    toward: NotNegative = Field(0.5, description="Weight of the loss of the safe answer; 0: none.")
    cutoff: Positive = Field(5.0, description="Nats per token of the target beyond which away hardly counts.")
    floor: NotNegative = Field(0.5, description="Nats per token of the safe answer below which toward hardly counts.")
    slope: Share = Field(SLOPE, description="Share of the gradient that is left beyond cutoff and floor.")
    away_form: AwayForm = Field(
        "cross_entropy", description="Minus the target's loss, or -log(1 - p) of its tokens below cutoff nats."
    )
    mean: Mean = "row"

    @model_validator(mode="after")
    def _rules(self) -> CatConfig:
        return checked(self, _unused_slope(self))


class CapoConfig(Section):
    """CAPO (arXiv:2405.15589): the safe answer preferred to the harmful one on the perturbed prompt."""

    name: Literal["capo"] = Field("capo", description="Preference on perturbed prompts.")
    form: Literal["ipo", "dpo"] = Field("ipo", description="Form of the preference loss.")
    beta: Positive = Field(0.25, description="Strength of the pull to the reference model.")
    weight: NotNegative = Field(1.0, description="Weight of the loss.")
    cutoff: Positive | None = Field(
        None, description="Nats above which a token of the target counts as 0, 5 in the released code; null: none."
    )
    floor: Positive | None = Field(
        None, description="Nats below which a token of the safe answer counts as 0, 0.5 released; null: none."
    )


class LatConfig(Section):
    """Targeted latent adversarial training (arXiv:2407.15549): away and toward, perturbed at several places."""

    name: Literal["lat"] = Field("lat", description="Away + toward in hidden states.")
    away: NotNegative = Field(0.5, description="Weight of the loss that drives away from the target; 0: none.")
    toward: NotNegative = Field(0.5, description="Weight of the loss of the safe answer; 0: none.")
    cutoff: Positive = Field(
        5.0, description="Nats of a token of the target (cross_entropy: per token) beyond which away counts no more."
    )
    floor: NotNegative = Field(0.0, description="Nats per token of the safe answer below which toward hardly counts.")
    slope: Share = Field(
        SLOPE, description="Share of the gradient that is left beyond floor, and with cross_entropy beyond cutoff."
    )
    away_form: Annotated[AwayForm, Formerly("cross_entropy")] = Field(
        "log_1_minus_p", description="-log(1 - p) of the target's tokens, or minus the target's loss as in CAT."
    )
    adversary_away: NotNegative = Field(
        0.0,
        description="Weight of -log(1 - p) of the safe answer in what the adversary lowers beside the target's loss; "
        "0: none.",
    )
    mean: Mean = "row"

    @model_validator(mode="after")
    def _rules(self) -> LatConfig:
        return checked(self, _unused_slope(self))


class RefusalDirectionConfig(Section):
    """ReFAT (arXiv:2409.20089): the safe answer while the refusal direction is ablated; no search at all."""

    name: Literal["refusal_direction"] = Field("refusal_direction", description="Toward, under ablation.")
    weight: NotNegative = Field(1.0, description="Weight of the loss of the safe answer.")
    every: Count = Field(4, description="Optimizer steps between two computations of the direction.")
    prompts: Count = Field(32, description="Harmful and harmless training prompts that the direction is taken from.")
    first_layer: Share = Field(0.25, description="Ablated from this share of the depth on, to the last block.")


class PrefillRecoveryConfig(Section):
    """Safety recovery (arXiv:2406.05946): the refusal after the first tokens of the harmful target."""

    name: Literal["prefill_recovery"] = Field("prefill_recovery", description="Refusal after a harmful beginning.")
    weight: NotNegative = Field(0.5, description="Weight of the loss.")
    shortest: Natural = Field(1, description="Fewest tokens of the target that stand before the refusal.")
    longest: Natural = Field(40, description="Most tokens of the target that stand before the refusal.")
    perturbed: bool = Field(False, description="On the perturbed prompt instead of the plain one.")


class KlConfig(Section):
    """KL to the base model on utility and borderline rows."""

    name: Literal["kl"] = Field("kl", description="Divergence from the base, the model with the adapter off.")
    direction: Literal["base_to_model", "model_to_base"] = Field(
        "base_to_model", description="KL(base || model), or KL(model || base) as in LAT's released code."
    )
    weight: NotNegative = Field(0.1, description="Weight of the divergence.")
    scale_free: bool = Field(False, description="Divide each row's divergence by its own value.")


class OverRefusalConfig(Section):
    """CAT's mirror image on borderline rows, no paper: away from a refusal and toward the helpful answer.

    Both are taken at a perturbation that elicits the refusal, which is one of the adversarial stream's safe answers.
    """

    name: Literal["over_refusal"] = Field("over_refusal", description="Borderline rows, attacked to be refused.")
    away: NotNegative = Field(0.5, description="Weight of the loss that drives away from the refusal; 0: none.")
    toward: NotNegative = Field(0.5, description="Weight of the loss of the helpful answer; 0: none.")
    cutoff: Positive = Field(5.0, description="Nats per token of the refusal beyond which away hardly counts.")
    slope: Share = Field(1e-3, description="Share of the gradient that is left beyond cutoff.")


class ReroutingConfig(Section):
    """Circuit breakers (arXiv:2406.04313): reroute harmful hidden states, retain useful ones; no attack."""

    name: Literal["rerouting"] = Field("rerouting", description="Reroute on harmful rows, retain on useful ones.")
    alpha: Positive = Field(5.0, description="Weight; rerouting falls to half of it, retaining rises from 0 to half.")
    layers: list[Natural] | None = Field(
        None, description="Blocks whose output is rerouted; null: those at 1/3 and 2/3 of the depth."
    )
    retain: Annotated[Literal["all_states", "blocks"], Formerly("blocks")] = Field(
        "all_states",
        description="What is retained: the embeddings, the blocks' outputs and the last one's after the final norm, as "
        "released, or the outputs of all blocks.",
    )
    mean: Mean = "row"


class AdversarialPartConfig(Section):
    """The loss of the safe answer where an attack on it (not on the target) raises it most (arXiv:1706.06083)."""

    name: Literal["adversarial"] = Field("adversarial", description="Loss of the attacked safe answer; untargeted.")


class TradesPartConfig(Section):
    """TRADES (arXiv:1901.08573) on the safe answer's tokens."""

    name: Literal["trades"] = Field("trades", description="Loss of the safe answer + beta x KL under attack.")
    beta: NotNegative = Field(1.0, description="Weight of the divergence.")


class FreelbPartConfig(Section):
    """FreeLB (arXiv:1909.11764) on the safe answer."""

    name: Literal["freelb"] = Field("freelb", description="Mean loss over all steps of an attack on the safe answer.")
    start: Share = Field(0.5, description="Size of the initial noise as a share of the radius, 0 to 1.")
    hold_dropout: bool = Field(True, description="Use the same dropout masks for all steps of a batch, as released.")
    special_tokens: bool = Field(
        False, description="Move every token of the prompt, as released, not only the user's own."
    )
    linf_step: LinfStep = "sign"


class SupervisedPartConfig(Section):
    """The safe answer on the plain prompt: refusal training without an adversary."""

    name: Literal["supervised"] = Field("supervised", description="Loss of the safe answer, no attack.")
    weight: NotNegative = Field(1.0, description="Weight of the loss.")


PartConfig = Annotated[
    CatConfig
    | CapoConfig
    | LatConfig
    | RefusalDirectionConfig
    | PrefillRecoveryConfig
    | KlConfig
    | OverRefusalConfig
    | ReroutingConfig
    | AdversarialPartConfig
    | TradesPartConfig
    | FreelbPartConfig
    | SupervisedPartConfig,
    Field(discriminator="name"),
]

ALONE = ("adversarial", "trades", "freelb", "refusal_direction")


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
        every = (part.every for part in self.parts if isinstance(part, RefusalDirectionConfig))
        return math.lcm(self.defence_steps, *every)

    @model_validator(mode="after")
    def _rules(self) -> ChatObjectiveConfig:
        lines = []
        names = [part.name for part in self.parts]
        for name in dict.fromkeys(names):
            if names.count(name) > 1:
                lines.append(f"objective.parts holds {name} {names.count(name)} times. Keep one and raise its weight.")
        alone = [name for name in names if name in ALONE]
        searching = [name for name in names if name in ("cat", "capo", "lat")]
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
        if set(names) <= {"kl", "over_refusal"}:
            lines.append("objective.parts trains nothing on adversarial rows. Add for example {name: cat}.")
        if self.defence_steps > 1 and not searching:
            lines.append(
                f"objective.defence_steps: {self.defence_steps} holds the attack of cat, capo or lat, and "
                "objective.parts has none of them. Set objective.defence_steps: 1."
            )
        return checked(self, lines)
