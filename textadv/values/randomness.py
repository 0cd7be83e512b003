"""Randomness that belongs to a row, a run or a scope, and never to the process."""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor


def derived_seed(*parts: int) -> int:
    """A 63-bit seed that is a fixed function of the integers given, e.g. (seed, step, row id, restart)."""
    digest = hashlib.blake2b(struct.pack(f"<{len(parts)}q", *parts), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def row_generators(seed: int, step: int, ids: Tensor, draw: int) -> list[torch.Generator]:
    """One generator per row of `ids` (B,), on the device of `ids`.

    Its stream depends on (seed, step, row id, draw) alone, so that a row gets the same noise in any batch, any
    micro-batch and on any process.
    """
    return [torch.Generator(device=ids.device).manual_seed(derived_seed(seed, step, row, draw)) for row in ids.tolist()]


def permutation(seed: int, *parts: int, size: int) -> list[int]:
    """A permutation of range(size) that is a function of (seed, *parts)."""
    generator = torch.Generator().manual_seed(derived_seed(seed, *parts))
    return torch.randperm(size, generator=generator).tolist()


def rng_state() -> dict[str, Tensor]:
    """The global generators of torch, CPU first, then each CUDA device, as uint8 tensors (N,)."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state |= {f"cuda{n}": value for n, value in enumerate(torch.cuda.get_rng_state_all())}
    return state


def set_rng_state(state: dict[str, Tensor]) -> None:
    """Puts back what `rng_state` returned, uint8 tensors (N,)."""
    torch.set_rng_state(state["cpu"])
    cuda: Sequence[Tensor] = [value for name, value in state.items() if name.startswith("cuda")]
    if cuda:
        torch.cuda.set_rng_state_all(list(cuda))


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Whatever the block draws, the global generators are afterwards as they were before."""
    before = rng_state()
    try:
        yield
    finally:
        set_rng_state(before)


@contextmanager
def seeded_scope(*parts: int) -> Iterator[None]:
    """Inside the block the global generators are a function of `parts`; afterwards they are as before.

    For library code that draws from the global generators (initial weights, dropout): a run stays a function of its
    configuration and the caller's own stream is untouched.
    """
    with preserved_rng():
        seed = derived_seed(*parts)
        fresh = {"cpu": torch.Generator().manual_seed(seed).get_state()}
        for n in range(torch.cuda.device_count()):
            fresh[f"cuda{n}"] = torch.Generator(device=f"cuda:{n}").manual_seed(seed).get_state()
        set_rng_state(fresh)
        yield
