"""What an attack is, and what it hands back."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from torch import Tensor, nn

from textadv.models import embedded_inputs
from textadv.values.batch import Batch, Perturbation

EDITED = (
    "Edited texts have tokens of their own: measure them by an EditAttack, attack(Victim(model, tokenizer), rows), and "
    "train on them by then(edits, attack)."
)


class Outcome(NamedTuple):
    """What the perturbation did, per row, in evaluation mode.

    success: (B,) bool, whether the goal was reached.
    loss_gain: (B,) the goal's value at the perturbed row minus that at the clean row.
    climb: (B,) the same minus the value at the attack's first point: what the search itself added;
        nan where nothing was searched.
    margin: (B,) largest other logit minus the label's: comparable between attacks.
    """

    success: Tensor
    loss_gain: Tensor
    climb: Tensor
    margin: Tensor


class Slopes(NamedTuple):
    """Whether a search that follows gradients met any. met: one that is not zero. complaint: what is wrong if none was.

    Neither, where nothing followed gradients.
    """

    met: bool = False
    complaint: str | None = None

    def plus(self, other: Slopes) -> Slopes:
        """Both searches together, the complaint of the first that has one."""
        return Slopes(self.met or other.met, self.complaint if self.complaint is not None else other.complaint)

    @property
    def flat(self) -> bool:
        """Whether a search met no slope, and none met any."""
        return self.complaint is not None and not self.met


def slope_met(met: bool, complaint: str) -> Slopes:
    """What a search that follows gradients tells of itself."""
    return Slopes(met, None if met else complaint)


class Cost(NamedTuple):
    """Passes through the model per row. forwards, backwards, queries: (B,) int64; queries have no gradient."""

    forwards: Tensor
    backwards: Tensor
    queries: Tensor

    @classmethod
    def none(cls, batch: Batch) -> Cost:
        """No passes yet."""
        zero = torch.zeros_like(batch.ids)
        return cls(zero, zero.clone(), zero.clone())

    def plus(self, other: Cost) -> Cost:
        """Both costs together."""
        return Cost(*(a + b for a, b in zip(self, other, strict=True)))


class Sent(NamedTuple):
    """Tokens of each row that a search sent through the model: those of its text, not those that a cache held.

    forward, backward: (B,) int64; backward of gradients with respect to what went through, never to weights.
    """

    forward: Tensor
    backward: Tensor


@dataclass(frozen=True)
class Attacked:
    """A batch with the perturbation that an attack found.

    batch: the rows as they were, with the perturbation beside them: `batch.inputs` are the clean images or tokens. The
        adversarial ones are `inputs`. Where an attack edits texts, the edited rows in their own tokens.
    gauge: (B,) norm over radius, at most 1 inside the ball. Edits alone have no norm: 1
        where they changed the row, 0 where they did not, nan where none was drawn for it.
    measured: the outcome, or None where the attack was called with measure=False.
    size: (B,) float64, the norm of the smallest perturbation that a minimal attack found, inside the radius or not: 0
        where the row is wrong already, inf where it found none. None for attacks that look for no smallest one, and for
        those that stop early.
    model: the model that was attacked, as long as someone else keeps it.
    slopes: what the search met. Whether it is an error that no row has a slope, who asked decides, see `searched`.
    origin: the rows before their texts were edited, with the same labels and ids; None where none was.
    sent: the tokens that went through the model; None where nobody counted them, or the rows have none (images).
    reached: (B,) bool, whether the goal was reached at this perturbation, as the search itself saw it; None where it
        did not look at where it ended.
    """

    batch: Batch
    gauge: Tensor
    cost: Cost
    measured: Outcome | None
    size: Tensor | None = field(default=None, repr=False, compare=False)
    model: weakref.ref[nn.Module] | None = field(default=None, repr=False, compare=False)
    slopes: Slopes = field(default=Slopes(), repr=False, compare=False)
    origin: Batch | None = field(default=None, repr=False, compare=False)
    sent: Sent | None = field(default=None, repr=False, compare=False)
    reached: Tensor | None = field(default=None, repr=False, compare=False)

    @property
    def clean(self) -> Batch:
        """The rows as they were given, neither edited nor perturbed."""
        return self.batch.clean() if self.origin is None else self.origin

    @property
    def outcome(self) -> Outcome:
        """The measured outcome. Raises ValueError where the attack was told not to measure."""
        if self.measured is None:
            raise ValueError("This attack ran with measure=False: call it with measure=True to learn what it did.")
        return self.measured

    @property
    def success(self) -> Tensor:
        """(B,) bool, whether the goal was reached."""
        return self.outcome.success

    @property
    def perturbation(self) -> Perturbation:
        """The delta and its space. Raises ValueError where texts were edited and nothing else was done."""
        if self.batch.perturbation is None:
            raise ValueError(f"These rows were edited and not perturbed. {EDITED}")
        return self.batch.perturbation

    def of_same_tokens(self, what: str) -> Attacked:
        """The same. Raises ValueError where texts were edited, which `what` cannot do with.

        what: puts perturbations on the rows as they were given.
        """
        if self.origin is not None:
            raise ValueError(f"{what} puts a perturbation on the tokens of the given texts. {EDITED}")
        return self

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The adversarial rows as the model's own forward takes them, detached.

        Images: `pixel_values`, perturbed, exactly as the model gets them. Texts perturbed in their embeddings:
        `inputs_embeds` (B, S, D) in place of `input_ids`, beside the attention mask and the like; see
        `embedded_inputs` of textadv.models. Computed at every call, with the weights that the model then has. Texts
        that were edited and not perturbed: their tokens.

        Raises ValueError in other spaces, which are no input of a model, and where the model is needed and gone.
        """
        if self.batch.perturbation is None and self.origin is not None:
            return dict(self.batch.inputs)
        found = self.perturbation
        return found.space.perturbed_inputs(self.batch.inputs, found.delta, self._embedded)

    def _embedded(self) -> dict[str, Tensor]:
        model = None if self.model is None else self.model()
        if model is None:
            raise ValueError(
                "The model that was attacked is gone, and the embeddings with it. Keep the model, or call "
                "textadv.models.embedded_inputs(model, attacked.batch)."
            )
        return embedded_inputs(model, self.batch)


class BrokenAt(NamedTuple):
    """What `MinimumRadius` found.

    attacked: the rows at the smallest radius that broke them, under the contract of `textadv.attacks.minimal.contract`.
    radius: (B,) float64, that radius: 0 where the row is wrong already, inf where `upper` did not break it.
    """

    attacked: Attacked
    radius: Tensor

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The adversarial rows as the model's own forward takes them, each (B, ...), see `Attacked.inputs`."""
        return self.attacked.inputs


class Attack(Protocol):
    """A function from a model and a batch to an `Attacked`; it changes nothing but its own delta.

    Raises PerturbationError where its search met no slope; `searched` asks for what it found even then.

    step: the optimizer step (any integer): random starts are drawn from (seed, step, row id).
    radius_scale: a factor on the radius, a number or one per row (B,).
    measure: whether to spend the forward passes that `Attacked.outcome` needs.
    """

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked: ...
