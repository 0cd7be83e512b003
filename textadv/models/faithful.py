"""An export beside the model that was measured: whether it is read, tokenised and computed as that one is.

What rounding explains is taken from the model itself: how far its logits move where every weight moves by one unit in
its last place. Folding an adapter into weights of a format makes errors of half that unit, and computing makes others
of the same size; a model that magnifies small differences magnifies these as well.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textadv.models.places import bare, device_of
from textadv.models.running import evaluating, forward
from textadv.models.sources import UNUSABLE, told
from textadv.models.strangers import Opened
from textadv.values.batch import IGNORED, Batch
from textadv.values.decisions import fits_rows

NUDGES = 2
BY_ROUNDING = 3
"""A difference is rounding up to so many times what one unit in the last place of every weight makes.

Merging LoRA into small models of ten families, and into MiniLM, made up to 1.3 times that in float32, 0.9 in float16
and 0.8 in bfloat16; adapters that were lost made 3 to 30 times that in half precision, and 100,000 times in float32.
"""


class UnfaithfulError(Exception):
    """What was written is another model than the one that was measured; the message says in what."""


class Compared(NamedTuple):
    """An export beside the measured model, see `ExportCheck`."""

    precision: str
    rows: int
    decisions: int
    changed: int
    difference: float
    allowed: float


def compare(measured: Opened, reload: Callable[[], Opened]) -> Compared:
    """What `reload` gives beside the measured model, on the same rows.

    Raises UnfaithfulError where it cannot be loaded, is read or tokenised otherwise, or computes something else beyond
    rounding.
    """
    try:
        other = reload()
        _require_same_reading(measured, other)
        _require_same_tokens(measured, other)
    except UnfaithfulError:
        raise
    except UNUSABLE as error:
        raise UnfaithfulError(f"it cannot be loaded and used as others do: {told(error)}") from error
    try:
        found = _difference(measured, other)
    except UnfaithfulError:
        raise
    except UNUSABLE as error:
        raise UnfaithfulError(f"it is loaded, and does not take the rows as others give them: {told(error)}") from error
    precision = max(_formats(measured.model) | _formats(other.model), key=lambda dtype: torch.finfo(dtype).eps)
    # One more model at a time is held.
    del other
    allowed = 0.0
    if found.largest > 0:
        floor = torch.finfo(precision).eps * found.scale
        allowed = BY_ROUNDING * max(_moved_by_rounding(measured, torch.finfo(precision).eps), floor)
    name = str(precision).removeprefix("torch.")
    if not found.largest <= allowed:
        raise UnfaithfulError(
            f"on {found.rows} validation rows its logits differ by up to {found.largest:.3g}, of which rounding in "
            f"{name} explains {allowed:.2g}."
        )
    return Compared(name, found.rows, found.decisions, found.changed, found.largest, allowed)


def _require_same_reading(measured: Opened, other: Opened) -> None:
    wrong = [
        f"{key} is {_shown(other.facts.get(key))} and was {_shown(value)}"
        for key, value in measured.facts.items()
        if other.facts.get(key) != value
    ]
    if wrong:
        raise UnfaithfulError(f"{'; '.join(wrong)}.")


def _require_same_tokens(measured: Opened, other: Opened) -> None:
    one, two = measured.tokens(), other.tokens()
    odd = sum(first != second for first, second in zip(one, two, strict=True))
    if odd:
        raise UnfaithfulError(f"its tokenizer makes other tokens of {odd} of {len(one)} rows.")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _formats(model: nn.Module) -> set[torch.dtype]:
    return {value.dtype for value in model.parameters() if value.is_floating_point()}


class _Difference(NamedTuple):
    """rows: compared. decisions: of which `changed` are others. scale: the largest logit. largest: the difference."""

    rows: int
    decisions: int
    changed: int
    scale: float
    largest: float


def _difference(measured: Opened, other: Opened) -> _Difference:
    found = _Difference(0, 0, 0, 0.0, 0.0)
    for ours, theirs in zip(measured.batches(), other.batches(), strict=True):
        one, two = _logits(measured.model, ours), _logits(other.model, theirs)
        # A number that is not finite differs from every other.
        apart = torch.where(one == two, 0.0, (one - two).abs().nan_to_num(torch.inf))
        found = _Difference(
            found.rows + len(ours),
            found.decisions + len(one),
            found.changed + int((one.argmax(dim=1) != two.argmax(dim=1)).sum()),
            max(found.scale, float(one.abs().max())),
            max(found.largest, float(apart.max())),
        )
    return found


@torch.no_grad()
def _logits(model: nn.Module, batch: Batch) -> Tensor:
    """One row of logits for each decision: a class, a token of the answer, or a token of the text; float32."""
    batch = batch.to(device_of(model))
    with evaluating(model):
        found = forward(bare(model), batch).float()
    if batch.targets is not None:
        return found[batch.kept_targets != IGNORED]
    return found if fits_rows(found, batch) else found[batch.inputs["attention_mask"].bool()]


def _moved_by_rounding(measured: Opened, unit: float) -> float:
    """The largest change of a logit where every weight moves by one unit in its last place, up or down at random.

    unit: the distance of 1 to the next number of the format.
    """
    return max(_difference(measured, _nudged(measured, unit, seed)).largest for seed in range(NUDGES))


@torch.no_grad()
def _nudged(measured: Opened, unit: float, seed: int) -> Opened:
    model, draw = copy.deepcopy(bare(measured.model)), torch.Generator().manual_seed(seed)
    for value in model.parameters():
        if value.is_floating_point():
            up = torch.randint(0, 2, value.shape, generator=draw, dtype=torch.int8).to(value.device)
            value.mul_(1 + unit * (2 * up.to(value.dtype) - 1))
    return Opened(model, {}, measured.tokens, measured.batches)
