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
from textadv.models import Averaged, PerturbationError, bare, delta_shape, editable_mask, forward, logits_warning
from textadv.values.batch import Batch
from textadv.values.decisions import fits_rows
from textadv.values.losses import margin
from textadv.values.randomness import derived_seed, row_generators

# How near to 1 the sum of a row of float32 probabilities is.
SUM_OF_PROBABILITIES = 1e-5
# Tells the draw of a start's radius from that of its direction.
RADIUS = 1


def half_to_single(dtype: torch.dtype) -> torch.dtype:
    """The dtype that a delta is kept in: float32 for half precision, the model's own otherwise."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


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


def _passes(model: nn.Module) -> int:
    return model.passes if isinstance(model, Averaged) else 1


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
    passes = _passes(model)
    if passes > 1:
        seen, value = seen.to(_precise(seen, batch)) / passes, value / passes
        for _ in range(passes - 1):
            more = _pass(model, batch, threat, delta, goal, clean, ascend)
            seen, value = seen + more.logits / passes, value + more.value / passes
            if gradient is not None and more.grad is not None:
                gradient, largest = _summed(gradient, largest, more.grad, more.scale)
    return Point(value, goal.reached(seen, batch), margin(seen, batch), gradient)


def one_pass(model: nn.Module, batch: Batch) -> Tensor:
    """The logits of the batch, (B, C) or (B, K, C), detached, from a single pass.

    Raises ModelError where the model does not take such images, or returns probabilities. The latter is told from two
    rows or more that are no half-precision numbers: fewer digits or rows could add up to 1 by chance.
    """
    try:
        with torch.no_grad():
            logits = forward(bare(model), batch)
    except RuntimeError as error:
        if "pixel_values" in batch.inputs and not isinstance(error, torch.OutOfMemoryError | PerturbationError):
            logits_warning(model, batch.clean())
        raise
    if fits_rows(logits, batch) and len(logits) > 1 and half_to_single(logits.dtype) == logits.dtype:
        sums = (logits.sum(dim=1) - 1).abs() <= SUM_OF_PROBABILITIES
        if bool((sums & (logits >= 0).all(dim=1)).all()):
            logits_warning(model, batch)
    return logits


def mean_logits(model: nn.Module, batch: Batch) -> Tensor:
    """The logits of the batch, (B, C) or (B, K, C), detached; of an `Averaged` model their mean over its passes.

    Raises as `one_pass`.
    """
    passes = _passes(model)
    logits = one_pass(model, batch)
    with torch.no_grad():
        if passes > 1:
            logits = logits.to(_precise(logits, batch)) / passes
            for _ in range(passes - 1):
                logits = logits + forward(bare(model), batch) / passes
    return logits


def clean_logits(model: nn.Module, rows: Batch) -> Tensor:
    """The logits of unperturbed rows, (B, C) or (B, K, C); of an `Averaged` model a mean taken once per row id.

    Detached, and so that several searches of a random model rank its classes alike; chats have no classes, and get a
    mean of their own each time. Raises as `one_pass`.
    """
    if not isinstance(model, Averaged) or model.passes == 1:
        return one_pass(model, rows)
    ids = rows.ids.tolist()
    if all(row in model.clean for row in ids):
        return torch.stack([model.clean[row] for row in ids])
    logits = mean_logits(model, rows)
    if fits_rows(logits, rows):
        model.clean.update(zip(ids, logits, strict=True))
    return logits


def clean_is_known(model: nn.Module, rows: Batch) -> bool:
    """Whether `clean_logits` would hand out what it found before, without a pass."""
    return _passes(model) > 1 and isinstance(model, Averaged) and all(row in model.clean for row in rows.ids.tolist())


class _Pass(NamedTuple):
    """One forward pass: the gradient is the goal's divided by `scale`, (B,)."""

    logits: Tensor
    value: Tensor
    grad: Tensor | None
    scale: Tensor


def _precise(logits: Tensor, batch: Batch) -> torch.dtype:
    return half_to_single(logits.dtype) if batch.is_chat else torch.float64


def _over(row: Tensor, tensor: Tensor) -> Tensor:
    """Values per row, (B,), broadcastable over a tensor (B, ...)."""
    return row.reshape(-1, *[1] * (tensor.dim() - 1))


def _pass(
    model: nn.Module, batch: Batch, threat: ThreatModel, delta: Tensor, goal: Goal, clean: Tensor | None, ascend: bool
) -> _Pass:
    with differentiable(ascend):
        leaf = delta.detach().requires_grad_(ascend)
        logits = forward(bare(model), batch.perturbed(threat.space, leaf))
    with torch.enable_grad():
        precise = _precise(logits, batch)
        wide = logits.detach().to(precise).requires_grad_(ascend)
        value = goal.value(wide, batch, None if clean is None else clean.to(precise)).double()
    gradient, largest = None, torch.ones_like(value)
    if ascend:
        (upstream,) = torch.autograd.grad(value, [wide], torch.ones_like(value))
        largest = upstream.abs().flatten(1).amax(dim=1)
        scale = _over(largest, upstream)
        upstream = upstream / torch.where(scale > 0, scale, 1)
        gradient = _gradient(logits, leaf, upstream, threat)
        gradient = gradient.masked_fill(~editable_mask(batch, tuple(delta.shape)), 0)
    return _Pass(logits.detach(), value.detach(), gradient, largest.detach())


def _summed(grad: Tensor, scale: Tensor, other: Tensor, other_scale: Tensor) -> tuple[Tensor, Tensor]:
    """The sum of two gradients that are each divided by a scale per row, divided by the larger scale; and that."""
    larger = torch.maximum(scale, other_scale)
    safe = torch.where(larger > 0, larger, 1)
    mine, theirs = _over(scale / safe, grad).to(grad.dtype), _over(other_scale / safe, grad).to(grad.dtype)
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


def value_at_clean(goal: Goal, rows: Batch, clean: Tensor) -> Tensor:
    """The goal's value (B,), float64, at rows whose unperturbed logits, (B, C) or (B, K, C), are known."""
    precise = clean if rows.is_chat else clean.double()
    return goal.value(precise, rows, precise).double()


def uniform_start(
    model: nn.Module, rows: Batch, threat: ThreatModel, dtype: torch.dtype, seed: int, step: int, draw: int = 0
) -> Tensor:
    """A delta (B, ...) uniform in the ball on the editable positions, drawn per row from (seed, step, row id, draw)."""
    shape = delta_shape(model, rows, threat.space)
    noise = threat.ball.sample(editable_mask(rows, shape), row_generators(seed, step, rows.ids, draw))
    return threat.confine(rows, noise.to(half_to_single(dtype)))


def spread_start(
    model: nn.Module, rows: Batch, threat: ThreatModel, dtype: torch.dtype, seed: int, step: int, draw: int
) -> Tensor:
    """`uniform_start`, (B, ...), times a factor per row, uniform in 0..1 and drawn from the same four numbers."""
    start = uniform_start(model, rows, threat, dtype, seed, step, draw)
    makers = [torch.Generator().manual_seed(derived_seed(seed, step, row, draw, RADIUS)) for row in rows.ids.tolist()]
    factor = torch.stack([torch.rand((), generator=maker) for maker in makers]).to(start)
    return threat.confine(rows, start * _over(factor, start))


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
