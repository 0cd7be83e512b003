"""What a gradient search has seen: the point chosen for every row, and what finding it took."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Cost, Sent, Slopes, slope_met
from textadv.attacks.parts.probe import Point
from textadv.attacks.parts.threat import ThreatModel
from textadv.models import PerturbationError
from textadv.models.finite import overflow
from textadv.values.batch import Batch

Select = Literal["last", "most_damaging"]


@dataclass
class Record:
    """The point chosen so far for every row, each field with one entry per row; written to by the search.

    delta: (B, ...). value, margin: (B,) float64. reached: (B,) bool. forwards, backwards, queries: (B,) int64, passes.
    start: (B,), the goal's value at the first point noted, nan before. moved: (B,) bool, where a gradient was not zero.
    overflowed: (B,) bool, where a gradient was not finite.
    size: (B,) int64, tokens that a pass of the row sends now. sent_forward, sent_backward: (B,) int64, those sent.
    """

    delta: Tensor
    value: Tensor
    reached: Tensor
    margin: Tensor
    start: Tensor
    forwards: Tensor
    backwards: Tensor
    queries: Tensor
    moved: Tensor
    overflowed: Tensor
    size: Tensor
    sent_forward: Tensor
    sent_backward: Tensor

    @classmethod
    def empty(cls, delta: Tensor) -> Record:
        """Nothing seen yet; `delta` (B, ...) stands for the rows of which nothing will be."""
        rows = len(delta)
        low = torch.full((rows,), float("-inf"), device=delta.device, dtype=torch.float64)
        never = torch.zeros(rows, device=delta.device, dtype=torch.bool)
        zero = torch.zeros(rows, device=delta.device, dtype=torch.int64)
        nan = torch.full_like(low, float("nan"))
        counts = (zero, zero.clone(), zero.clone())
        tokens = (zero.clone(), zero.clone(), zero.clone())
        return cls(delta.clone(), low, never, low.clone(), nan, *counts, never.clone(), never.clone(), *tokens)

    @property
    def cost(self) -> Cost:
        """The passes counted."""
        return Cost(self.forwards, self.backwards, self.queries)

    @property
    def sent(self) -> Sent | None:
        """The tokens counted; None where the rows have none."""
        return Sent(self.sent_forward, self.sent_backward) if bool(self.size.any()) else None

    def send(self, index: Tensor, rows: Batch) -> None:
        """Takes note of how many tokens a pass of these rows sends from now on, and of those that a cache holds.

        index: (N,) int64, of `rows` as they will be passed. Where they bring keys and values, a row counts as if it was
        searched alone: all that stands before its own first editable position was read once, whatever the others have.
        """
        if not rows.is_chat:
            return
        whole = rows.inputs["attention_mask"].sum(dim=1)
        known = rows.editable.long().argmax(dim=1) if rows.prefix else torch.zeros_like(whole)
        self.size[index] = whole - known
        self.sent_forward[index] += known

    def see(self, index: Tensor, delta: Tensor, point: Point, select: Select) -> None:
        """Counts a point, delta (N, ...), that was evaluated for the rows `index` (N,) int64, and takes note of it."""
        self.count(index, point)
        self.note(index, delta, point, select)

    def count(self, index: Tensor, point: Point) -> None:
        """Counts the passes of a point of the rows `index` (N,) without choosing it: one that is not allowed, say."""
        self.sent_forward[index] += self.size[index]
        if point.grad is None:
            self.queries[index] += 1
            return
        self.forwards[index] += 1
        self.backwards[index] += 1
        self.sent_backward[index] += self.size[index]
        rows = point.grad.flatten(1)
        self.moved[index] |= rows.any(dim=1)
        self.overflowed[index] |= ~rows.isfinite().all(dim=1)

    def note(self, index: Tensor, delta: Tensor, point: Point, select: Select) -> None:
        """Chooses the point where it does more damage (reached first, then the goal's value), or always: `last`.

        index: (N,) int64. delta: (N, ...).
        """
        fresh = self.start[index].isnan()
        self.start[index] = torch.where(fresh, point.value, self.start[index])
        reached, value = self.reached[index], self.value[index]
        better = (point.reached & ~reached) | ((point.reached == reached) & (point.value > value))
        taken = better if select == "most_damaging" else torch.ones_like(better)
        chosen = index[taken]
        self.delta[chosen] = delta.detach()[taken]
        self.value[chosen] = point.value[taken]
        self.reached[chosen] = point.reached[taken]
        self.margin[chosen] = point.margin.double()[taken]

    def slopes(self, model: nn.Module, rows: Batch, threat: ThreatModel) -> Slopes:
        """Whether any gradient was not zero. Raises PerturbationError where one was not a number."""
        if bool(self.overflowed.any()):
            raise PerturbationError(
                f"The gradient of the goal with respect to the {threat.space} is not finite at row ids "
                f"{rows.ids[self.overflowed].tolist()}. {overflow(model, rows)}"
            )
        # Rows without an editable position (an empty text) cannot be moved: that is the data's affair, not a fault.
        # Neither can rows of radius 0, and rows that were broken before the search began were not tried.
        movable = rows.editable.flatten(1).any(dim=1) & (self.backwards > 0)
        movable = movable & (threat.ball.bound(self.delta) > 0).reshape(-1)
        if not bool(movable.any()):
            return Slopes()
        return slope_met(
            bool(self.moved.any()),
            f"The gradient of the goal is exactly zero for every row's perturbation of the {threat.space}. Either "
            "no editable position counts, the hook is on a module that the output ignores (of the last block a "
            "classifier often reads one special token only), the output is constant, or the logits lie so far "
            "apart that a softmax is exactly 0 and 1: then calibrate them, or divide them by a temperature.",
        )
