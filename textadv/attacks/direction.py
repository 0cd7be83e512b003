"""An analytic adversary: the direction that carries a model's refusal, taken out of its hidden states."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Attacked, Cost, Outcome
from textadv.attacks.parts.calling import entered, on_arrays
from textadv.attacks.parts.goals import Elicit, Goal
from textadv.attacks.parts.unperturbed import value_at_clean
from textadv.models import bare, device_of, evaluating, forward, hidden_states
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.spaces import Ablation


@dataclass
class _Known:
    searched: int = -1
    directions: Tensor | None = None


@dataclass(frozen=True)
class RefusalDirection:
    """Ablates, after each of `layers`, the difference of mean hidden states of harmful and harmless prompts there.

    The mean is over the last position of each prompt, where the assistant is about to start (arXiv:2406.11717,
    equation 2); training against it is ReFAT's (arXiv:2409.20089). The directions are taken from the model as it is at
    every `every`-th optimizer step.

    harmful, harmless: prompts, without answers, that the means are over (32 of each in the paper).

    Deviations: every layer has a direction of its own, where the papers pick one layer's for all. A search has no first
    point, so the outcome's climb is its loss gain.
    """

    layers: tuple[int, ...]
    harmful: Batch
    harmless: Batch
    every: int = 4
    goal: Goal = field(default_factory=Elicit)
    _known: _Known = field(default_factory=_Known, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.every < 1:
            raise ValueError(f"objective.every must be at least 1, got {self.every}.")
        if not self.layers:
            raise ValueError("objective.layers must name at least one block.")

    def __str__(self) -> str:
        return f"refusal direction ablated after layers {self.layers[0]} to {self.layers[-1]}, every {self.every} steps"

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
        """The rows with their directions; see `Attack`. There is no radius to scale: a scale is refused."""
        model, batch, back = entered(self, model, batch, y, measure)
        if isinstance(radius_scale, Tensor) or radius_scale != 1.0:
            raise ValueError("The refusal direction has no radius: leave mixing.radius_schedule and the curve out.")
        directions = self.directions(model, step)
        moved = batch.perturbed(Ablation(self.layers), directions.expand(len(batch), *directions.shape))
        outcome, cost = None, Cost.none(batch)
        if measure:
            outcome = self._outcome(model, batch.clean(), moved)
            cost = cost._replace(queries=cost.queries + 2)
        return back(Attacked(moved, torch.ones(len(batch), device=batch.device), cost, outcome))

    def directions(self, model: nn.Module, step: int = 0) -> Tensor:
        """Unit directions (layers, D) of the model at the last optimizer step that is a multiple of `every`."""
        searched = step - step % self.every
        if self._known.directions is None or self._known.searched != searched:
            with evaluating(model), torch.no_grad():
                apart = self._means(model, self.harmful) - self._means(model, self.harmless)
            self._known.directions = torch.nn.functional.normalize(apart, dim=-1)
            self._known.searched = searched
        return self._known.directions

    def _means(self, model: nn.Module, prompts: Batch) -> Tensor:
        """Mean hidden states (layers, D) at the last position of each prompt, float32."""
        rows = prompts.to(device_of(model)).prompts()
        states = hidden_states(bare(model), rows, self.layers)[1]
        assert rows.prompt_lengths is not None
        last = rows.prompt_lengths - 1
        place = torch.arange(len(rows), device=last.device)
        return torch.stack([state[place, last].float().mean(dim=0) for state in states])

    def _outcome(self, model: nn.Module, clean: Batch, moved: Batch) -> Outcome:
        with evaluating(model), torch.no_grad():
            before, after = forward(bare(model), clean), forward(bare(model), moved)
        gain = value_at_clean(self.goal, clean, after) - value_at_clean(self.goal, clean, before)
        return Outcome(self.goal.reached(after, clean), gain, gain, margin(after, clean).double())
