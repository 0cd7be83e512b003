"""The passes that every attack claims for a row are those that the row went through, counted in the model."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from torch import Tensor

from tests.attacks.every import EVERY, Maker, cases
from tests.oracles import CurvedBag, rightly_labelled, token_rows
from textadv.attacks import L1, L2, Linf, ThreatModel, Transfer
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings

NORMS = {"l2": L2(0.6, per="example"), "linf": Linf(0.2, per="example"), "l1": L1(1.5, per="example")}


class CountedBag(CurvedBag):
    """Counts, for every text, how often it went forwards and how often a gradient came back."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__(seed=seed)
        self.forwards: Counter[tuple[int, ...]] = Counter()
        self.backwards: Counter[tuple[int, ...]] = Counter()

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        texts = [tuple(text) for text in input_ids.tolist()]
        logits = super().forward(input_ids, attention_mask)
        self.forwards.update(texts)
        if logits.requires_grad:
            logits.register_hook(lambda _: self.backwards.update(texts))
        return logits


def rows_of() -> Batch:
    """Rows of which the first is wrong already, the last can be touched nowhere, and the others are right."""
    rows = rightly_labelled(CurvedBag(), token_rows([5, 9, 7, 4, 8, 6, 2], classes=3))
    rows.labels[0] = (rows.labels[0] + 1) % 3
    return rows


@pytest.mark.parametrize("measure", [True, False], ids=["measured", "unmeasured"])
@pytest.mark.parametrize(("norm", "make"), cases(EVERY).values(), ids=cases(EVERY))
def test_what_is_claimed_is_what_is_counted(norm: str, make: Maker, measure: bool) -> None:
    model, surrogate, rows = CountedBag(), CountedBag(seed=1), rows_of()
    attack = make(ThreatModel(Embeddings(), NORMS[norm]), surrogate)
    attacked = attack(model, rows, measure=measure)
    cost = attacked.cost
    texts = [tuple(text) for text in rows.inputs["input_ids"].tolist()]
    assert len(set(texts)) == len(texts)
    through = [model.forwards[text] + surrogate.forwards[text] for text in texts]
    if isinstance(attack, Transfer):
        through[0] -= 2  # one row through each model tells whether they know the same classes
    back = [model.backwards[text] + surrogate.backwards[text] for text in texts]
    assert (cost.forwards + cost.queries).tolist() == through
    assert cost.backwards.tolist() == back
    if measure:
        assert int(attacked.success.sum()) > 0
    assert torch.equal(rows.labels, attacked.batch.labels)
