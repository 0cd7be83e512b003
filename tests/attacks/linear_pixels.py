"""A linear classifier of small images, and the distance to its nearest decision boundary in closed form."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from textadv.values.batch import Batch, Role

SHAPE = (3, 4, 4)


class LinearPixels(nn.Module):
    """logits = W (pixels - 1/2) + b, with parameters drawn from `seed`."""

    def __init__(self, classes: int = 2, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        entries = SHAPE[0] * SHAPE[1] * SHAPE[2]
        self.weight = nn.Parameter(torch.randn((classes, entries), generator=generator, dtype=torch.float64).to(dtype))
        self.bias = nn.Parameter(torch.randn(classes, generator=generator, dtype=torch.float64).to(dtype))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return (pixel_values.to(self.weight.dtype) - 0.5).flatten(1) @ self.weight.T + self.bias


def pixel_rows(model: LinearPixels, count: int = 4, *, low: float = 0.3, high: float = 0.7, seed: int = 0) -> Batch:
    """Images uniform in [low, high], rightly labelled, all pixels editable."""
    generator = torch.Generator().manual_seed(seed)
    pixels = low + (high - low) * torch.rand((count, *SHAPE), generator=generator, dtype=torch.float64)
    return labelled(model, pixels)


def saturated_rows(model: LinearPixels, count: int = 4, *, seed: int = 0) -> Batch:
    """Images of zeros and ones alone, rightly labelled."""
    generator = torch.Generator().manual_seed(seed)
    return labelled(model, torch.randint(0, 2, (count, *SHAPE), generator=generator).double())


def labelled(model: LinearPixels, pixels: Tensor) -> Batch:
    """Images with the labels that the model gives them."""
    labels = model(pixels).detach().argmax(dim=1)
    return Batch(
        inputs={"pixel_values": pixels},
        labels=labels,
        editable=torch.ones((len(pixels), 1, *SHAPE[1:]), dtype=torch.bool),
        ids=torch.arange(len(pixels)) + 100,
        role=torch.full_like(labels, int(Role.CLEAN)),
    )


def rises(model: LinearPixels, rows: Batch) -> tuple[Tensor, Tensor]:
    """How far every other class is behind (B, C), inf for the label, and the gradients of the differences (B, C, n)."""
    logits = model(**rows.inputs).detach()
    behind = logits.gather(1, rows.labels[:, None]) - logits
    direction = model.weight.detach()[None] - model.weight.detach()[rows.labels][:, None]
    return behind.scatter(1, rows.labels[:, None], float("inf")), direction


def distance(model: LinearPixels, rows: Batch, norm: str) -> Tensor:
    """The norm of the smallest perturbation that changes the decision, (B,), where the box is far enough away.

    Pixels that start at the edge of the box can move inwards only, and are otherwise left out.
    """
    behind, direction = rises(model, rows)
    pixels = rows.inputs["pixel_values"].flatten(1)[:, None]
    usable = direction.masked_fill(((pixels >= 1) & (direction > 0)) | ((pixels <= 0) & (direction < 0)), 0)
    dual = torch.linalg.vector_norm(usable, {"l2": 2.0, "linf": 1.0, "l1": float("inf")}[norm], dim=-1)
    return (behind / dual.clamp_min(1e-30)).amin(dim=1)


def fewest_pixels(model: LinearPixels, rows: Batch) -> Tensor:
    """How many pixels, all their channels together, must change to change the decision, (B,), for two classes.

    A pixel raises the difference at most by |gradient| x the room to the edge of the box, summed over its channels; the
    pixels that raise it most come first.
    """
    behind, direction = rises(model, rows)
    gap = behind.amin(dim=1)
    towards = direction[torch.arange(len(rows)), 1 - rows.labels]
    pixels = rows.inputs["pixel_values"].flatten(1)
    room = torch.where(towards > 0, 1 - pixels, pixels)
    most = (towards.abs() * room).reshape(len(rows), *SHAPE).sum(dim=1).flatten(1)
    reach = most.sort(dim=1, descending=True).values.cumsum(dim=1)
    return (reach < gap[:, None]).sum(dim=1) + 1
