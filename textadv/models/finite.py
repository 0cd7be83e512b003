"""Where numbers that are not finite come from: the weight that holds one, or the first module that returns one.

Looking costs a pass over the weights, and a forward where rows are given: it is done at loading, and where a number has
failed already.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.modules.batchnorm import _BatchNorm

from textadv.models.places import bare, dtype_of
from textadv.models.running import THIRD_PARTY, evaluating, forward
from textadv.values.batch import Batch
from textadv.values.errors import ModelError, PerturbationError

ORDINARY = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
NAMED = 3


def extremes(value: Tensor) -> tuple[float, float]:
    """The smallest and the largest number of a tensor of any shape, nan where one is nan; 0 where there is none.

    Of a sharded one, of its own part.
    """
    own = value.to_local() if isinstance(value, DTensor) else value
    if own.dtype not in ORDINARY or own.is_meta or not own.numel():
        return 0.0, 0.0
    low, high = torch.aminmax(own.detach())
    return float(low), float(high)


def is_finite(value: Tensor) -> bool:
    """Whether all numbers of a tensor of any shape are finite."""
    # The difference of two infinite numbers, and of any and nan, is none.
    return all(abs(end) < float("inf") for end in extremes(value))


def odd_weight(model: nn.Module) -> str | None:
    """The first parameter, or batch norm statistic, that is not finite, with where in it; None where all are."""
    inner = bare(model)
    for name, value in chain(inner.named_parameters(), _statistics(inner)):
        if not is_finite(value):
            return f"{name} holds {_places(value)}"
    return None


def odd_gradient(model: nn.Module) -> str | None:
    """The first parameter whose gradient is not finite; None where all are."""
    named = bare(model).named_parameters()
    return next((name for name, value in named if value.grad is not None and not is_finite(value.grad)), None)


def odd_module(model: nn.Module, batch: Batch) -> str | None:
    """The module that is the first to return a number that is not finite, in evaluation mode; None where none is."""
    found: list[str] = []

    def watch(name: str) -> object:
        def see(module: nn.Module, given: object, output: object) -> None:
            if not found and not all(map(is_finite, _tensors(output))):
                largest = max((max(map(abs, extremes(value))) for value in _tensors(given)), default=0.0)
                found.append(f"{name or 'itself'} ({type(module).__name__}, whose inputs reach {largest:.3g})")

        return see

    named = bare(model).named_modules()
    handles = [module.register_forward_hook(watch(name)) for name, module in named]
    try:
        with evaluating(model), torch.no_grad():
            forward(model, batch)
    except (PerturbationError, *THIRD_PARTY):
        pass
    finally:
        for handle in handles:
            handle.remove()
    return found[0] if found else None


def where_odd(model: nn.Module, batches: Iterable[Batch] = ()) -> str | None:
    """A sentence that names the weight or the module that is not finite; None where none is on these rows."""
    weight = odd_weight(model)
    if weight is not None:
        return f"The weight {weight}."
    module = next((found for batch in batches if (found := odd_module(model, batch)) is not None), None)
    return None if module is None else f"The first module that returns such a number is {module}."


def half_remedy(model: nn.Module) -> str | None:
    """What to set where the model computes in float16, whose largest number is 65,504; None where it does not."""
    if dtype_of(model) == torch.float16:
        return "float16 may overflow: set model.dtype: float32."
    kind = "cuda" if torch.cuda.is_available() else "cpu"
    if torch.is_autocast_enabled(kind) and torch.get_autocast_dtype(kind) == torch.float16:
        return "float16 may overflow: set training.precision: no."
    return None


def overflow(model: nn.Module, batch: Batch | None = None) -> str:
    """Where numbers that are not finite come from and what to do, of a model that is not being trained."""
    batches = () if batch is None else (batch.clean(),)
    where, half = where_odd(model, batches), half_remedy(model)
    parts = [] if where is None else [where]
    if half is not None and odd_weight(model) is None:
        return " ".join([*parts, half])
    if batch is not None and where is None:
        return (
            "Without the perturbation all numbers of the model are finite: lower threat.radius or "
            "threat.relative_radius, whichever is set."
        )
    remedy = "Its weights are damaged or its training diverged: load another checkpoint, or train again with a lower "
    return " ".join([*parts, f"{remedy}training.learning_rate."])


def require_finite_weights(name: str, model: nn.Module) -> None:
    """Raises ModelError where a weight of a model that was loaded is not finite. name: the model's."""
    found = odd_weight(model)
    if found is None:
        return
    half = " Or they are too large for float16: set model.dtype: float32." if dtype_of(model) == torch.float16 else ""
    raise ModelError(
        f"model.name {name!r}: its weights are damaged, {found}. Load another checkpoint, or train it again with a "
        f"lower learning rate.{half}"
    )


def _statistics(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Running means and variances. Other buffers, such as masks, may well hold infinity."""
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm):
            yield from ((f"{name}.{key}", value) for key, value in module.named_buffers() if value.is_floating_point())


def _places(value: Tensor) -> str:
    """How many numbers of a tensor are not finite, and in which rows."""
    own = (value.to_local() if isinstance(value, DTensor) else value).detach()
    odd = ~own.isfinite()
    count = f"{int(odd.sum()):,} of {own.numel():,} numbers that are not finite"
    if own.dim() < 2:
        return count
    rows = odd.flatten(1).any(dim=1).nonzero().flatten().tolist()
    more = f" and {len(rows) - NAMED:,} more" if len(rows) > NAMED else ""
    return f"{count}, in row{'s' if len(rows) > 1 else ''} {', '.join(map(str, rows[:NAMED]))}{more}"


def _tensors(value: object) -> Iterator[Tensor]:
    """The floating-point tensors of what a module takes or returns."""
    if isinstance(value, Tensor):
        if value.is_floating_point():
            yield value
    elif isinstance(value, dict):
        yield from (tensor for part in value.values() for tensor in _tensors(part))
    elif isinstance(value, (list, tuple)):
        yield from (tensor for part in value for tensor in _tensors(part))
