"""The goal at one point, with or without its gradient: the step that every attack is made of."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks.parts.attacked import Attacked, Cost, Outcome
from textadv.attacks.parts.goals import Goal
from textadv.attacks.parts.threat import ThreatModel
from textadv.attacks.parts.unperturbed import passes_of, precision, value_at_clean
from textadv.models import PerturbationError, bare, editable_mask, forward
from textadv.values.batch import Batch, per_row
from textadv.values.losses import margin


class Point(NamedTuple):
    """The goal at one delta. value, margin: (B,). reached: (B,) bool. grad: (B, ...) as the delta, or None."""

    value: Tensor
    reached: Tensor
    margin: Tensor
    grad: Tensor | None


@contextmanager
def differentiable(wanted: bool = True) -> Iterator[None]:
    """Inside the block a graph is built where `wanted`, also under the caller's torch.no_grad(), and else none.

    Raises PerturbationError in torch.inference_mode(): what is made in it can never carry a gradient.
    """
    if wanted and torch.is_inference_mode_enabled():
        raise PerturbationError(
            "An attack follows gradients, and it was called inside torch.inference_mode(), where there are none. Call "
            "it outside, or inside torch.no_grad()."
        )
    with torch.set_grad_enabled(wanted):
        yield


def evaluate_at(
    model: nn.Module, batch: Batch, threat: ThreatModel, delta: Tensor, goal: Goal, clean: Tensor | None, ascend: bool
) -> Point:
    """The goal at `delta` (B, ...), with its gradient where `ascend`. clean: logits, (B, C) or (B, K, C), if known.

    The gradient is right in direction per row, not in length: what flows back from the logits is scaled per row to a
    largest entry of 1, in float64 (float32 for chats, whose logits are many). No ascent here depends on the length, and
    a confident row's tiny gradient then survives float16 and float32 alike.

    Of an `Averaged` model value and gradient are the means over its passes, and `reached` and `margin` are those of the
    mean logits.

    Raises PerturbationError where the output does not depend on the delta.
    """
    seen, value, gradient, largest = _pass(model, batch, threat, delta, goal, clean, ascend)
    passes = passes_of(model)
    if passes > 1:
        seen, value = seen.to(precision(seen, batch)) / passes, value / passes
        for _ in range(passes - 1):
            more = _pass(model, batch, threat, delta, goal, clean, ascend)
            seen, value = seen + more.logits / passes, value + more.value / passes
            if gradient is not None and more.grad is not None:
                gradient, largest = _summed(gradient, largest, more.grad, more.scale)
    return Point(value, goal.reached(seen, batch), margin(seen, batch), gradient)


class _Pass(NamedTuple):
    """One forward pass: the gradient is the goal's divided by `scale`, (B,)."""

    logits: Tensor
    value: Tensor
    grad: Tensor | None
    scale: Tensor


def _pass(
    model: nn.Module, batch: Batch, threat: ThreatModel, delta: Tensor, goal: Goal, clean: Tensor | None, ascend: bool
) -> _Pass:
    with differentiable(ascend):
        leaf = delta.detach().requires_grad_(ascend)
        logits = forward(bare(model), batch.perturbed(threat.space, leaf))
    with torch.enable_grad():
        precise = precision(logits, batch)
        wide = logits.detach().to(precise).requires_grad_(ascend)
        value = goal.value(wide, batch, None if clean is None else clean.to(precise)).double()
    gradient, largest = None, torch.ones_like(value)
    if ascend:
        (upstream,) = torch.autograd.grad(value, [wide], torch.ones_like(value))
        largest = upstream.abs().flatten(1).amax(dim=1)
        scale = per_row(largest, upstream)
        upstream = upstream / torch.where(scale > 0, scale, 1)
        gradient = _gradient(logits, leaf, upstream, threat)
        gradient = gradient.masked_fill(~editable_mask(batch, tuple(delta.shape)), 0)
    return _Pass(logits.detach(), value.detach(), gradient, largest.detach())


def _summed(grad: Tensor, scale: Tensor, other: Tensor, other_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of two gradients that are each divided by a scale per row, divided by the larger scale; and that."""
    larger = torch.maximum(scale, other_scale)
    safe = torch.where(larger > 0, larger, 1)
    mine, theirs = per_row(scale / safe, grad).to(grad.dtype), per_row(other_scale / safe, grad).to(grad.dtype)
    return grad * mine + other * theirs, larger


def _gradient(logits: Tensor, leaf: Tensor, upstream: Tensor, threat: ThreatModel) -> Tensor:
    missing = PerturbationError(
        f"The output does not depend on the perturbation of the {threat.space}: the attack has no gradient. Check "
        "threat.space, and that nothing between it and the logits detaches the graph."
    )
    if not logits.requires_grad:
        raise missing
    (grad,) = torch.autograd.grad(logits, [leaf], grad_outputs=upstream.to(logits.dtype), allow_unused=True)
    if grad is None:
        raise missing
    return grad


def assess(
    model: nn.Module,
    rows: Batch,
    threat: ThreatModel,
    delta: Tensor,
    start: Tensor | None,
    goal: Goal,
    clean: Tensor | None,
    cost: Cost,
) -> Attacked:
    """The rows at `delta` (B, ...), measured against the clean rows where their logits are given.

    clean: (B, C) or (B, K, C). start: (B, ...), where the search began, None where there was no search.
    """
    outcome = None
    if clean is not None:
        end = evaluate_at(model, rows, threat, delta, goal, clean, ascend=False)
        first = torch.full_like(end.value, float("nan"))
        if start is not None:
            first = evaluate_at(model, rows, threat, start, goal, clean, ascend=False).value
        before = value_at_clean(goal, rows, clean)
        outcome = Outcome(end.reached, end.value - before, end.value - first, end.margin.double())
        cost = cost._replace(queries=cost.queries + (2 if start is None else 3))
    return Attacked(rows.perturbed(threat.space, delta), threat.ball.gauge(delta), cost, outcome)
