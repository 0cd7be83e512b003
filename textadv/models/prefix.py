"""Keys and values of the positions before the first one an adversary may touch: computed once, used in every pass.

A system prompt and the template's head are the same in all passes of an attack, and in a causal model nothing before a
position depends on it. Whether an architecture's own cache reproduces its plain forward pass is tried, not assumed.

What was tried is remembered with the model, as long as it lives: a fact about its code, which weights do not change. It
changes no result by more than the rounding in `TOLERANCE`, only how long a pass takes.
"""

from __future__ import annotations

import warnings
from dataclasses import replace
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from textadv.models.places import bare
from textadv.models.running import as_cache, forward, prefix_length
from textadv.values.batch import Batch, Perturbation

TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-4, torch.bfloat16: 0.1, torch.float16: 0.02}
_trusted: WeakKeyDictionary[nn.Module, bool] = WeakKeyDictionary()


def with_prefix(model: nn.Module, batch: Batch, perturbation: Perturbation) -> Batch:
    """The batch with its prefix's keys and values, or the batch itself where a cache cannot serve.

    Where the batch has a shorter prefix already, it goes on from there.

    perturbation: a sample of what the attack will add; the first time a model is met, its logits with the cache are
    compared with those without, on this very batch. A difference is told once, as a warning, and the cache left alone.
    """
    length = _unperturbed(batch)
    if (
        batch.targets is None
        or length <= prefix_length(batch)
        or not perturbation.space.per_position
        or not _trusted.get(bare(model), True)
    ):
        return batch
    inner = bare(model)
    with torch.no_grad():
        cached = _cached(inner, batch, length)
        if cached is not None and inner not in _trusted:
            _trusted[inner] = _same(inner, batch, cached, perturbation)
    if cached is None or not _trusted[inner]:
        return batch
    return cached


def _unperturbed(batch: Batch) -> int:
    """Positions, from the first on, that no row may be perturbed at."""
    any_row = batch.editable.any(dim=0)
    return int(any_row.int().argmax()) if bool(any_row.any()) else 0


def _cached(model: nn.Module, batch: Batch, length: int) -> Batch | None:
    """The batch with keys and values of its first positions; None, told once, where the model keeps none."""
    try:
        output = model(
            input_ids=batch.inputs["input_ids"][:, prefix_length(batch) : length],
            attention_mask=batch.inputs["attention_mask"][:, :length],
            past_key_values=as_cache(batch),
            use_cache=True,
            logits_to_keep=1,
        )
        known = [(layer.keys, layer.values) for layer in output.past_key_values.layers]
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        _trusted[model] = False
        _tell(model, f"its cache does not work here ({type(error).__name__}: {error})")
        return None
    if not all(_complete(pair, len(batch), length) for pair in known):
        _trusted[model] = False
        _tell(model, "its cache does not hold every position of every layer")
        return None
    return replace(batch, prefix=tuple(known))


def _complete(pair: tuple[Tensor | None, Tensor | None], rows: int, length: int) -> bool:
    return all(part is not None and part.dim() == 4 and part.shape[0::2] == (rows, length) for part in pair)


def _same(model: nn.Module, batch: Batch, cached: Batch, perturbation: Perturbation) -> bool:
    """Whether both give the same logits, up to rounding, relative to the largest."""
    space, delta = perturbation.space, perturbation.delta
    plain = forward(model, batch.perturbed(space, delta))
    fast = forward(model, cached.perturbed(space, delta))
    apart = float((plain - fast).abs().max() / plain.abs().max().clamp_min(1e-12))
    if apart <= TOLERANCE[plain.dtype]:
        return True
    _tell(model, f"with it logits differ by {apart:.2g} of the largest")
    return False


def _tell(model: nn.Module, why: str) -> None:
    warnings.warn(
        f"The prefix cache is off for {type(model).__name__}: {why}. Attacks run without it, more slowly.",
        stacklevel=4,
    )
