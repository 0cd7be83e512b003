"""What the model says to rows as they are: in one pass or the mean of several, in which precision."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textadv.attacks.parts.goals import Goal
from textadv.models import Averaged, PerturbationError, bare, forward, logits_warning
from textadv.values.batch import Batch
from textadv.values.decisions import fits_rows

# How near to 1 the sum of a row of float32 probabilities is.
SUM_OF_PROBABILITIES = 1e-5


def half_to_single(dtype: torch.dtype) -> torch.dtype:
    """The dtype that a delta is kept in: float32 for half precision, the model's own otherwise."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def passes_of(model: nn.Module) -> int:
    """How many passes a point of this model takes: several of an `Averaged` one."""
    return model.passes if isinstance(model, Averaged) else 1


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
    passes = passes_of(model)
    logits = one_pass(model, batch)
    with torch.no_grad():
        if passes > 1:
            logits = logits.to(precision(logits, batch)) / passes
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
    return passes_of(model) > 1 and isinstance(model, Averaged) and all(row in model.clean for row in rows.ids.tolist())


def precision(logits: Tensor, batch: Batch) -> torch.dtype:
    """The dtype that a goal of logits, (B, C) or (B, K, C), is computed in: float64, and float32 for chats."""
    return half_to_single(logits.dtype) if batch.is_chat else torch.float64


def value_at_clean(goal: Goal, rows: Batch, clean: Tensor) -> Tensor:
    """The goal's value (B,), float64, at rows whose unperturbed logits, (B, C) or (B, K, C), are known."""
    precise = clean if rows.is_chat else clean.double()
    return goal.value(precise, rows, precise).double()
