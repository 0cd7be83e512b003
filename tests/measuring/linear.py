"""A linear classifier on rows whose robustness is known in closed form, and attacks that misbehave."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

from tests.oracles import BagOfEmbeddings, FixedRows, bag_margin_gain, token_rows
from textadv.attacks import Attack, Attacked, Ball, ThreatModel
from textadv.attacks.parts.attacked import Cost
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Space

ROWS = 60


def bag(dtype: torch.dtype = torch.float64) -> BagOfEmbeddings:
    return BagOfEmbeddings(dtype=dtype).eval()


def labelled_rows(model: nn.Module, wrong: int = 7, count: int = ROWS, seed: int = 0) -> FixedRows:
    """Rows of 4 to 9 tokens, labelled as the model sees them but for the first `wrong`."""
    batch = token_rows([4 + row % 6 for row in range(count)], seed=seed)
    with torch.no_grad():
        labels = model(**batch.inputs).argmax(dim=1)
    labels[:wrong] = 1 - labels[:wrong]
    return FixedRows(replace(batch, labels=labels))


def closed_form(model: BagOfEmbeddings, rows: FixedRows, ball: Ball) -> Tensor:
    """(N,) bool, whether the row is right everywhere in the ball; no row lies within 1e-3 of the edge."""
    batch = rows.whole
    with torch.no_grad():
        logits = model(**batch.inputs)
    labels = batch.labels[:, None]
    margin = (logits.gather(1, 1 - labels) - logits.gather(1, labels)).squeeze(1) + bag_margin_gain(model, batch, ball)
    assert float(margin.abs().min()) > 1e-3
    return margin < 0


@dataclass
class Counted:
    """An attack that remembers the row ids it was given, call by call, with the factor on the radius."""

    attack: Attack
    calls: list[tuple[float, list[int]]] = field(default_factory=list)

    def __call__(
        self, model: nn.Module, batch: Batch, *, step: int = 0, radius_scale: float = 1.0, measure: bool = True
    ) -> Attacked:
        self.calls.append((radius_scale, batch.ids.tolist()))
        return self.attack(model, batch, step=step, radius_scale=radius_scale, measure=measure)

    def ids(self, radius_scale: float) -> list[int]:
        """Every row id that was attacked at this factor, sorted."""
        return sorted(i for scale, ids in self.calls if abs(scale - radius_scale) < 1e-9 for i in ids)


@dataclass(frozen=True)
class Fixed:
    """Hands back whatever `make` returns as the delta, and claims half the radius, success everywhere, and no cost."""

    make: Callable[[Batch, Tensor], Tensor]
    space: Space = field(default_factory=Embeddings)
    edit: Callable[[Batch], Batch] = lambda batch: batch

    def __call__(
        self, model: nn.Module, batch: Batch, *, step: int = 0, radius_scale: float = 1.0, measure: bool = True
    ) -> Attacked:
        zero = torch.zeros((*batch.editable.shape, 8), dtype=torch.float64)
        delta = self.make(batch, zero)
        claimed = torch.full((len(batch),), 0.5)
        return Attacked(self.edit(batch).perturbed(self.space, delta), claimed, Cost.none(batch), None)


def idle(batch: Batch, zero: Tensor) -> Tensor:
    return zero


def ball_threat(ball: Ball) -> ThreatModel:
    return ThreatModel(Embeddings(), ball)
