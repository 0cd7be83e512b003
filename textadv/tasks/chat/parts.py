"""The parts that the objective of a chat model is made of, each with its paper and its knobs, and its making."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.objective import LinfStep
from textadv.config.types import (
    ConfigError,
    Count,
    Formerly,
    Natural,
    NotNegative,
    Positive,
    Share,
    checked,
)
from textadv.tasks.chat.scene import PartSection, Scene, meant
from textadv.tasks.chat.spectrum import SpectrumConfig
from textadv.tasks.chat.triplet import TripletConfig

if TYPE_CHECKING:
    from textadv.attacks import Attack
    from textadv.data import ChatRows
    from textadv.objectives import Objective
    from textadv.objectives.alignment import Part

SLOPE = 1e-3
AwayForm = Literal["cross_entropy", "log_1_minus_p"]
Mean = Annotated[
    Literal["row", "token"],
    Field(
        description="What counts the same: every row (row), or every token of the optimizer step's rows, as in the "
        "released code (token)."
    ),
]


class AwayTowardConfig(PartSection):
    """Away from the harmful target and toward the safe answer, on one perturbation."""

    searching = True

    name: str
    away: NotNegative = Field(0.5, description="Weight of the loss that drives away from the target; 0: none.")
    toward: NotNegative = Field(0.5, description="Weight of the loss of the safe answer; 0: none.")
    cutoff: Positive
    floor: NotNegative
    slope: Share
    away_form: AwayForm

    @model_validator(mode="after")
    def _rules(self) -> AwayTowardConfig:
        if self.slope == SLOPE or self.floor > 0 or self.away_form == "cross_entropy":
            return self
        return checked(
            self,
            [
                f"objective.parts: {self.name}.slope: {self.slope} is the gradient that is left beyond floor, which is "
                "0, and beyond the cutoff of cross_entropy, which away_form is not. Remove it."
            ],
        )

    def _parts(self, mean: str) -> list[Part]:
        from textadv.objectives.alignment import HARMFUL, SAFE, Away, Part, Toward

        away = meant(Away(self.away, self.cutoff, self.slope, form=self.away_form), mean, HARMFUL)
        toward = meant(Toward(self.toward, self.floor, self.slope), mean, SAFE)
        return [Part(one, True) for one, weight in ((away, self.away), (toward, self.toward)) if weight > 0]


class CatConfig(AwayTowardConfig):
    """CAT (arXiv:2405.15589): away from the harmful target and toward the safe answer, on one perturbation."""

    name: Literal["cat"] = Field("cat", description="Away + toward.")
    cutoff: Positive = Field(5.0, description="Nats per token of the target beyond which away hardly counts.")
    floor: NotNegative = Field(0.5, description="Nats per token of the safe answer below which toward hardly counts.")
    slope: Share = Field(SLOPE, description="Share of the gradient that is left beyond cutoff and floor.")
    away_form: AwayForm = Field(
        "cross_entropy", description="Minus the target's loss, or -log(1 - p) of its tokens below cutoff nats."
    )
    mean: Mean = "row"

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        return self._parts(self.mean)


class CapoConfig(PartSection):
    """CAPO (arXiv:2405.15589): the safe answer preferred to the harmful one on the perturbed prompt."""

    searching = True
    compares = True

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

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives.alignment import Part, Preference

        cutoff, floor = math.inf if self.cutoff is None else self.cutoff, self.floor or 0.0
        return [Part(Preference(self.form, self.beta, self.weight, cutoff, floor), True)]


class LatConfig(AwayTowardConfig):
    """Targeted latent adversarial training (arXiv:2407.15549): away and toward, perturbed at several places."""

    name: Literal["lat"] = Field("lat", description="Away + toward in hidden states.")
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

    @property
    def own_away(self) -> float:
        return self.adversary_away

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        return self._parts(self.mean)


class RefusalDirectionConfig(PartSection):
    """ReFAT (arXiv:2409.20089): the safe answer while the refusal direction is ablated; no search at all."""

    alone = True

    name: Literal["refusal_direction"] = Field("refusal_direction", description="Toward, under ablation.")
    weight: NotNegative = Field(1.0, description="Weight of the loss of the safe answer.")
    every: Count = Field(4, description="Optimizer steps between two computations of the direction.")
    prompts: Count = Field(32, description="Harmful and harmless training prompts that the direction is taken from.")
    first_layer: Share = Field(0.25, description="Ablated from this share of the depth on, to the last block.")

    @property
    def held_steps(self) -> int:
        return self.every

    def perturbing(self, scene: Scene, adversarial: ChatRows, utility: ChatRows) -> Attack | None:
        """The ablation of the refusal direction, which these rows show."""
        from textadv.attacks import RefusalDirection

        ablated = tuple(range(int(self.first_layer * scene.layers), scene.layers))
        if not ablated:
            raise ConfigError(
                [f"objective.parts: first_layer {self.first_layer} leaves none of {scene.layers} blocks. Lower it."]
            )
        harmful = adversarial.batch(range(min(self.prompts, len(adversarial))))
        harmless = utility.batch(range(min(self.prompts, len(utility))))
        return RefusalDirection(ablated, harmful, harmless, self.every)

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives.alignment import Part, Toward

        return [Part(Toward(self.weight, floor=0.0), True)]


class PrefillRecoveryConfig(PartSection):
    """Safety recovery (arXiv:2406.05946): the refusal after the first tokens of the harmful target."""

    name: Literal["prefill_recovery"] = Field("prefill_recovery", description="Refusal after a harmful beginning.")
    weight: NotNegative = Field(0.5, description="Weight of the loss.")
    shortest: Natural = Field(1, description="Fewest tokens of the target that stand before the refusal.")
    longest: Natural = Field(40, description="Most tokens of the target that stand before the refusal.")
    perturbed: bool = Field(False, description="On the perturbed prompt instead of the plain one.")

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives.alignment import Part, PrefillRecovery

        if self.perturbed and attack is None:
            raise ConfigError(
                ["objective.parts: prefill_recovery with perturbed: true needs a part that attacks, such as cat."]
            )
        return [Part(PrefillRecovery(self.weight, self.shortest, self.longest, scene.seed), self.perturbed)]


class KlConfig(PartSection):
    """KL to the base model on utility and borderline rows."""

    on_adversarial = False
    compares = True

    name: Literal["kl"] = Field("kl", description="Divergence from the base, the model with the adapter off.")
    direction: Literal["base_to_model", "model_to_base"] = Field(
        "base_to_model", description="KL(base || model), or KL(model || base) as in LAT's released code."
    )
    weight: NotNegative = Field(0.1, description="Weight of the divergence.")
    scale_free: bool = Field(False, description="Divide each row's divergence by its own value.")

    def on_useful(self, scene: Scene) -> list[Part]:
        from textadv.objectives.alignment import KlToBase, Part

        return [Part(KlToBase(self.weight, self.scale_free, self.direction == "model_to_base"))]


class OverRefusalConfig(PartSection):
    """CAT's mirror image on borderline rows, no paper: away from a refusal and toward the helpful answer.

    Both are taken at a perturbation that elicits the refusal, which is one of the adversarial stream's safe answers.
    """

    on_adversarial = False

    name: Literal["over_refusal"] = Field("over_refusal", description="Borderline rows, attacked to be refused.")
    away: NotNegative = Field(0.5, description="Weight of the loss that drives away from the refusal; 0: none.")
    toward: NotNegative = Field(0.5, description="Weight of the loss of the helpful answer; 0: none.")
    cutoff: Positive = Field(5.0, description="Nats per token of the refusal beyond which away hardly counts.")
    slope: Share = Field(1e-3, description="Share of the gradient that is left beyond cutoff.")

    def on_borderline(self, scene: Scene, useful: list[Part], adversarial: ChatRows) -> Objective | None:
        from textadv.objectives.alignment import REFUSAL, RESPONSE, SAFE, Away, Part, Tempted, Together, Toward

        away = Part(Away(self.away, self.cutoff, self.slope, REFUSAL), True)
        toward = Part(Toward(self.toward, 0.0, answer=RESPONSE), True)
        attacked = [one for one, weight in ((away, self.away), (toward, self.toward)) if weight > 0]
        attack = scene.eliciting() if attacked else None
        replies = dict.fromkeys(zip(adversarial.opening(SAFE), adversarial.answers[SAFE], strict=True))
        openings, refusals = zip(*replies, strict=True)
        return Tempted(Together((*useful, *attacked), attack, REFUSAL), refusals, openings)


class ReroutingConfig(PartSection):
    """Circuit breakers (arXiv:2406.04313): reroute harmful hidden states, retain useful ones; no attack."""

    compares = True

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

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives.alignment import HARMFUL, Part
        from textadv.objectives.rerouting import Reroute

        layers = scene.layers
        # A third and two thirds of the depth, as 10 and 20 of 32.
        middle = tuple(dict.fromkeys((layers // 3, 2 * layers // 3)))
        chosen = middle if self.layers is None else tuple(self.layers)
        if not chosen or max(chosen) >= layers:
            raise ConfigError([f"objective.parts: rerouting.layers must name blocks 0 to {layers - 1}, got {chosen}."])
        return [Part(meant(Reroute(chosen, self.alpha), self.mean, HARMFUL, whole=True))]

    def on_useful(self, scene: Scene) -> list[Part]:
        from textadv.objectives.alignment import Part
        from textadv.objectives.rerouting import Retain

        kept = tuple(range(scene.layers)) if self.retain == "blocks" else None
        return [Part(meant(Retain(kept, self.alpha), self.mean, None, whole=True))]


class AdversarialPartConfig(PartSection):
    """The loss of the safe answer where an attack on it (not on the target) raises it most (arXiv:1706.06083)."""

    alone = True

    name: Literal["adversarial"] = Field("adversarial", description="Loss of the attacked safe answer; untargeted.")

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives import Adversarial
        from textadv.objectives.alignment import Part

        return [Part(Adversarial(scene.untargeted()))]


class TradesPartConfig(PartSection):
    """TRADES (arXiv:1901.08573) on the safe answer's tokens."""

    alone = True

    name: Literal["trades"] = Field("trades", description="Loss of the safe answer + beta x KL under attack.")
    beta: NotNegative = Field(1.0, description="Weight of the divergence.")

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives import trades
        from textadv.objectives.alignment import Part

        return [Part(trades(scene.untargeted("kl"), self.beta))]


class FreelbPartConfig(PartSection):
    """FreeLB (arXiv:1909.11764) on the safe answer."""

    alone = True

    name: Literal["freelb"] = Field("freelb", description="Mean loss over all steps of an attack on the safe answer.")
    start: Share = Field(0.5, description="Size of the initial noise as a share of the radius, 0 to 1.")
    hold_dropout: bool = Field(True, description="Use the same dropout masks for all steps of a batch, as released.")
    special_tokens: bool = Field(
        False, description="Move every token of the prompt, as released, not only the user's own."
    )
    linf_step: LinfStep = "sign"

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.attacks import GradientAttack
        from textadv.objectives import FreeLB
        from textadv.objectives.alignment import Part

        climbing = scene.untargeted()
        if not isinstance(climbing, GradientAttack):
            raise ConfigError(["objective.parts: freelb climbs by itself. Set attack.name: pgd."])
        freelb = FreeLB(
            climbing,
            self.start,
            hold_dropout=self.hold_dropout,
            special_tokens=self.special_tokens,
            largest_entry=self.linf_step == "largest_entry",
        )
        return [Part(freelb)]


class SupervisedPartConfig(PartSection):
    """The safe answer on the plain prompt: refusal training without an adversary."""

    name: Literal["supervised"] = Field("supervised", description="Loss of the safe answer, no attack.")
    weight: NotNegative = Field(1.0, description="Weight of the loss.")

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives.alignment import Part, Supervised

        return [Part(Supervised(self.weight, "refusal"))]


PartConfig = Annotated[
    CatConfig
    | CapoConfig
    | LatConfig
    | RefusalDirectionConfig
    | PrefillRecoveryConfig
    | KlConfig
    | OverRefusalConfig
    | ReroutingConfig
    | TripletConfig
    | SpectrumConfig
    | AdversarialPartConfig
    | TradesPartConfig
    | FreelbPartConfig
    | SupervisedPartConfig,
    Field(discriminator="name"),
]
