"""Decision boundaries whose distance is known, in closed form or by bisection, and what an attack found of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor, nn

from tests.networks import image_batch
from tests.oracles import BagOfEmbeddings, bag_margin_gain
from textadv.attacks import L1, L2, Attacked, Ball, Linf, ThreatModel
from textadv.models import forward
from textadv.values.batch import Batch
from textadv.values.losses import margin
from textadv.values.spaces import Embeddings, Space

NORMS = {"l2": L2, "linf": Linf, "l1": L1}
ORDERS = {"l2": 2.0, "linf": float("inf"), "l1": 1.0}


def threat_of(norm: str, radius: float | Tensor = 1.0, space: Space | None = None) -> ThreatModel:
    return ThreatModel(space or Embeddings(), NORMS[norm](radius, per="example"))


def right(model: nn.Module, rows: Batch) -> Batch:
    """The same rows, each labelled with what the model predicts in evaluation mode."""
    with torch.no_grad():
        return replace(rows, labels=forward(model.eval(), rows).argmax(dim=1))


def sizes(attacked: Attacked, norm: str) -> Tensor:
    return torch.linalg.vector_norm(attacked.perturbation.delta.double().flatten(1), ORDERS[norm], dim=1)


def reach(attacked: Attacked, norm: str) -> Tensor:
    """The size found, infinite where nothing was."""
    size = sizes(attacked, norm)
    return size.masked_fill((size == 0) & ~attacked.success, torch.inf)


def clean_margin(model: nn.Module, rows: Batch) -> Tensor:
    with torch.no_grad():
        return margin(forward(model.eval(), rows).double(), rows)


def bag_distance(model: BagOfEmbeddings, rows: Batch, ball: Ball) -> Tensor:
    """The distance to the decision boundary, (B,): the least over the other classes of |margin| over the dual norm."""
    logits = model(**rows.inputs).detach()
    nearest = torch.full((len(rows),), torch.inf, dtype=torch.float64)
    two = BagOfEmbeddings()
    two.embeddings, two.importance = model.embeddings, model.importance
    for row, label in enumerate(rows.labels.tolist()):
        for other in set(range(len(model.head))) - {label}:
            two.head = nn.Parameter(model.head[[label, other]].detach())
            alone = replace(rows.rows(torch.tensor([row])), labels=torch.tensor([0]))
            rise = bag_margin_gain(two, alone, replace(ball, radius=1.0))[0]
            nearest[row] = torch.minimum(nearest[row], (logits[row, label] - logits[row, other]) / rise)
    return nearest


class Slopes(nn.Module):
    """logits = W pixels + b over images of `pixels` values: linear, with a box."""

    def __init__(self, classes: int, pixels: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.head = nn.Parameter(torch.randn((classes, pixels), generator=generator))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return pixel_values.flatten(1) @ self.head.T


class Bowl(nn.Module):
    """Two classes over two pixels (x, y), divided by the curve y = 0.3 + 2 (x - 0.5)^2 + 0.1 sin(9 x)."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones((), dtype=torch.float64))

    def forward(self, pixel_values: Tensor) -> Tensor:
        x, y = pixel_values.flatten(1).unbind(dim=1)
        above = y - 0.3 - 2 * (x - 0.5).square() - 0.1 * (9 * x).sin()
        return torch.stack([above, -above], dim=1) * self.scale


def linear_images(count: int) -> tuple[Slopes, Batch]:
    """Images near the bounds of the box, so that much of the nearest point lies on it; a third of them are frozen."""
    model, generator = Slopes(2, 24), torch.Generator().manual_seed(1)
    pixels = torch.rand((count, 1, 4, 6), generator=generator)
    pixels = torch.where(pixels < 0.4, pixels / 100, pixels)
    rows = image_batch(pixels, torch.zeros(count, dtype=torch.int64))
    rows = replace(rows, editable=torch.rand((count, 1, 4, 6), generator=generator) > 0.3)
    return model, right(model, rows)


def boxed_distance(model: Slopes, rows: Batch, norm: str) -> Tensor:
    """The smallest norm that reaches the boundary in the box, (B,), by bisection on what each norm allows."""
    pixels = rows.inputs["pixel_values"].double().flatten(1)
    lead = -clean_margin(model, rows)
    slope = (model.head[1 - rows.labels] - model.head[rows.labels]).detach().double()
    slope = slope * rows.editable.flatten(1)
    room = torch.where(slope > 0, 1 - pixels, pixels)

    def gain(amount: Tensor) -> Tensor:
        if norm == "l1":
            order = slope.abs().argsort(dim=1, descending=True)
            wide = room.gather(1, order)
            left = (amount - (wide.cumsum(dim=1) - wide)).clamp_min(0)
            return (torch.minimum(left, wide) * slope.abs().gather(1, order)).sum(dim=1)
        rate = slope.abs() if norm == "l2" else torch.ones_like(slope)
        return (torch.minimum(amount * rate, room) * slope.abs()).sum(dim=1)

    low, high = torch.zeros_like(lead), torch.full_like(lead, 100.0)
    for _ in range(100):
        middle = (low + high) / 2
        enough = gain(middle.unsqueeze(1)) >= lead
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    if norm == "l2":
        return torch.minimum(high.unsqueeze(1) * slope.abs(), room).norm(dim=1)
    return high.masked_fill(gain(high.unsqueeze(1)) < lead * (1 - 1e-9), torch.inf)
