"""Work that several processes share: each takes its part of the rows, and all know what every one of them found."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import torch
from accelerate.utils import gather_object
from torch import nn
from torch.distributed.fsdp import FSDPModule

from textadv.values.errors import WriteError

T = TypeVar("T")
MACHINE = (OSError, WriteError)


def rank() -> int:
    """The number of this process, 0 where it is alone."""
    return torch.distributed.get_rank() if torch.distributed.is_initialized() else 0


def processes() -> int:
    """How many processes there are."""
    return torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1


def everywhere(mine: list[T]) -> list[T]:
    """The items of all processes, those of the first process first. Every process must call it."""
    if not torch.distributed.is_initialized():
        return mine
    gathered: list[T] = gather_object(mine)
    return gathered


def of_the_first(mine: T) -> T:
    """What the first process has, on every process. Every process must call it."""
    return everywhere([mine])[0]


def in_step(model: nn.Module) -> bool:
    """Whether all processes have to put the same rows through the model: under FSDP its passes are collective."""
    return isinstance(model, FSDPModule)


def own_share(items: list[T], model: nn.Module | None = None) -> list[T]:
    """Every n-th item for the n-th process; all of them where the model's processes are `in_step`."""
    return items if model is not None and in_step(model) else items[rank() :: processes()]


def own_batches(items: Iterable[T], size: int, length: Callable[[T], Any], model: nn.Module) -> list[list[T]]:
    """This process' share of batches of at most `size` items, those of like length together; `length` orders them.

    Raises ValueError where `size` is below 1.
    """
    if size < 1:
        raise ValueError(f"batch_size must be at least 1, got {size}.")
    ordered = sorted(items, key=length)
    return own_share([ordered[start : start + size] for start in range(0, len(ordered), size)], model)


def from_shares(mine: list[T], model: nn.Module) -> list[T]:
    """What all processes made of their shares; of processes that are `in_step`, which made the same, one's."""
    return mine if in_step(model) else everywhere(mine)


def beside_others(made: Callable[[], T], wanted: bool = True) -> T:
    """What this process makes; raises everywhere where any met an error, so that none waits for another.

    Each raises its own error, or as RuntimeError the first that is told of. What the machine refused one (OSError,
    WriteError) is no fault of what was made: the others raise it as WriteError, whatever they met. Every process must
    call it, unless it is not `wanted`: the process is then on its own.
    """
    if not wanted or processes() == 1:
        return made()
    found, problem = list[T](), None
    try:
        found = [made()]
    except Exception as error:
        problem = error
    refused = isinstance(problem, MACHINE)
    met = [one for one in everywhere([None if problem is None else (refused, str(problem))]) if one is not None]
    if not met:
        return found[0]
    machine, why = max(met, key=lambda one: one[0])
    if problem is not None and refused == machine:
        raise problem
    raise WriteError(why) if machine else RuntimeError(why)


def raise_everywhere(problem: Exception | None, kind: type[Exception]) -> None:
    """Raises on every process what any of them met: its own problem, or the first that is told of, as `kind`.

    Every process must call it.
    """
    told = [line for line in everywhere([None if problem is None else str(problem)]) if line is not None]
    if told:
        raise (problem or kind(told[0])) from problem
