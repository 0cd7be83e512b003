"""Hashes of what results follow from: texts, tensors and the weights of models."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import torch
from torch import Tensor, nn


def digest(parts: Iterable[bytes]) -> str:
    """SHA-256 of the parts, one after the other, in hex."""
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def tensor_bytes(tensor: Tensor) -> bytes:
    """The numbers of a tensor of any shape, dtype and device, as they lie in memory in the order of its indices."""
    return tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def weights_hash(model: nn.Module) -> str:
    """SHA-256 of all weights and buffers of the model, by name."""
    named = sorted(model.state_dict().items())
    return digest(part for name, value in named for part in (name.encode(), tensor_bytes(value)))
