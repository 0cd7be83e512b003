"""A nonlinear model of one point of the plane, whose smallest perturbation is found by trying a grid of them."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.values.batch import Batch

SPACING, REACH = 0.005, 1.5


def plane(rows: int = 8) -> tuple[CurvedBag, Batch]:
    """A model of embeddings with two entries, and rows with one editable position, rightly labelled."""
    model = CurvedBag(width=2, seed=28)
    return model, rightly_labelled(model, token_rows([3] * rows, classes=3, seed=28))


@torch.no_grad()
def smallest_on_grid(model: CurvedBag, rows: Batch, norm: str, *, fewest: bool = False) -> Tensor:
    """The smallest norm among the deltas on a grid around 0 that change the decision, (B,), inf where none does.

    fewest: the number of entries that are not 0 in the place of the norm.
    """
    axis = torch.arange(-REACH, REACH + SPACING, SPACING, dtype=torch.float64)
    grid = torch.stack(torch.meshgrid(axis, axis, indexing="ij"), dim=-1).reshape(-1, 2)  # (N, 2)
    size = torch.linalg.vector_norm(grid, {"l2": 2.0, "linf": float("inf"), "l1": 1.0}[norm], dim=-1)
    if fewest:
        size = (grid.abs() > SPACING / 2).sum(dim=-1).double()
    found = []
    for row, label in enumerate(rows.labels.tolist()):
        tokens = rows.inputs["input_ids"][row]
        weight = model.importance[tokens].unsqueeze(-1)
        bent = torch.sin(model.embeddings(tokens) @ model.inner.T) * weight
        middle = torch.sin((model.embeddings(tokens[1]) + grid) @ model.inner.T) * weight[1]
        logits = (bent[0] + bent[2] + middle) @ model.head.T + model.bias
        found.append(size.masked_fill(logits.argmax(dim=1) == label, float("inf")).min())
    return torch.stack(found)
