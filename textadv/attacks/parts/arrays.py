"""Images and labels in arrays as a batch that can be attacked, and perturbed images as such an array again."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from textadv.attacks.parts.members import threats
from textadv.data import class_numbers, from_numpy
from textadv.models import Normalised, as_classifier, bare, clean_outputs, device_of
from textadv.values.batch import Batch, Role

SHAPE = "(N, channels, height, width)"
# More channels than this, and so many or fewer at the end: the channels stand last.
COLOURS = 4
FORMATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Attackable(NamedTuple):
    """A model as attacks call it, and rows for it."""

    model: nn.Module
    batch: Batch


def attackable(attack: object, model: nn.Module, x: Tensor | NDArray[Any], y: object) -> Attackable:
    """Images and labels as one batch on the model's device; see `Call` for errors.

    x: (N, channels, height, width). y: their N classes.
    """
    built_for = threats(attack)
    odd = [threat for threat in built_for if not threat.space.is_picture]
    if odd or not built_for:
        where = str(odd[0].space) if odd else "directions"
        raise ValueError(
            f"Only attacks on pixels can be called on arrays, and this one moves {where}. Build it for "
            "ThreatModel(Pixels(), ball), or give it a batch: rows.batch(positions)."
        )
    pixels = _pixels(x)
    labels = class_numbers(y, "y")
    if labels is None or len(labels) != len(pixels):
        count = "none" if labels is None else str(len(labels))
        raise ValueError(f"attack(model, x, y) needs the classes of its {len(pixels)} images as y, got {count}.")
    device = device_of(model)
    batch = Batch(
        inputs={"pixel_values": pixels.to(device)},
        labels=torch.tensor(labels, device=device),
        editable=torch.ones_like(pixels[:, :1], dtype=torch.bool, device=device),
        ids=torch.arange(len(pixels), device=device),
        role=torch.full((len(pixels),), int(Role.CLEAN), device=device),
    )
    for threat in built_for:
        threat.resolved(model, batch)
    called = model if isinstance(bare(model), Normalised) else as_classifier(bare(model))
    _require_classes(called, batch)
    return Attackable(called, batch)


def _pixels(x: Tensor | NDArray[Any]) -> Tensor:
    """The images, float32 or float64, a copy. Raises TypeError or ValueError where they are not images."""
    tensor = x.detach() if isinstance(x, Tensor) else from_numpy(x)
    if tensor is None or tensor.dtype not in FORMATS:
        raise TypeError(
            f"x must be floating point of 16, 32 or 64 bits, got {x.dtype}. Bytes of 0 to 255 are pixels in [0, 1] "
            "when divided: x / 255."
        )
    shape = tuple(x.shape)
    if len(shape) != 4:
        one = " One image is x[None]." if len(shape) == 3 else ""
        raise ValueError(f"x must be images of shape {SHAPE}, got shape {shape}.{one or ' Reshape it.'}")
    if 0 in shape:
        raise ValueError(f"x must hold at least one image of at least one pixel, got shape {shape}.")
    if shape[1] > COLOURS >= shape[3]:
        raise ValueError(
            f"x must be images of shape {SHAPE}, got shape {shape}, whose channels stand last. Move them: "
            "x.transpose(0, 3, 1, 2) of an array, x.permute(0, 3, 1, 2) of a tensor."
        )
    # In half precision a pixel could not take a small delta up exactly.
    pixels = tensor.to(torch.promote_types(tensor.dtype, torch.float32), copy=True)
    odd = (~pixels.isfinite()).flatten(1).any(dim=1).nonzero().flatten().tolist()
    if odd:
        raise ValueError(f"x must be finite, got nan or infinite pixels in rows {odd[:5]}. Repair or drop them.")
    return pixels


def _require_classes(model: nn.Module, batch: Batch) -> None:
    """Raises ModelError where the model does not take the images, ValueError where it has no such class."""
    output = clean_outputs(model, batch.rows(torch.arange(1, device=batch.device)))
    classes = output.shape[1]
    odd = (batch.labels >= classes).nonzero().flatten()
    if len(odd):
        raise ValueError(
            f"y must be classes from 0 to {classes - 1}, since the model returns {classes} logits, got "
            f"{int(batch.labels[odd[0]])} in row {int(odd[0])}. Number the classes from 0."
        )


def like(given: Tensor | NDArray[Any], clean: Tensor, moved: Tensor) -> Tensor | NDArray[Any]:
    """The perturbed images `moved` as an array of the type, number format and device of `given`: all of any shape.

    clean: the same images unperturbed; where the format is narrower, rounding goes towards them.
    """
    if isinstance(given, np.ndarray):
        dtype = {2: torch.float16, 4: torch.float32, 8: torch.float64}[given.dtype.itemsize]
        return _narrowed(clean, moved, dtype).cpu().numpy().astype(given.dtype, copy=False)
    return _narrowed(clean, moved, given.dtype).to(given.device)


def _narrowed(clean: Tensor, moved: Tensor, dtype: torch.dtype) -> Tensor:
    """The numbers in `dtype`, none further from `clean`, which `dtype` holds exactly, than before."""
    narrow = moved.detach().to(dtype)
    if dtype.itemsize >= moved.dtype.itemsize:
        return narrow
    further = (narrow.to(moved.dtype) - clean).abs() > (moved - clean).abs()
    # The next number of the format away from zero has the next bits, the one towards zero the bits before.
    outwards = (clean > moved) == (narrow > 0)
    bits = narrow.view(torch.int16)
    nearer = torch.where(narrow == 0, clean.to(dtype), (bits + torch.where(outwards, 1, -1)).short().view(dtype))
    return torch.where(further, nearer, narrow)
