"""FGSM, PGD, PGD with restarts, APGD, AutoAttack: each leaves no more rows of a trained network than the one before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from tests.networks import StridedCNN, mnist
from tests.oracles import tiny_models, token_rows
from textadv.attacks import L2, Attack, Linf, ThreatModel, apgd_ce, autoattack, fgsm, pgd
from textadv.models import forward
from textadv.values.batch import Batch
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Pixels


def ladder(threat: ThreatModel, classes: int) -> list[Attack]:
    many = {"steps": 5, "early_stop": True, "select": "most_damaging"}
    return [
        fgsm(threat),
        pgd(threat, **many),
        pgd(threat, restarts=4, **many),
        apgd_ce(threat, steps=40, restarts=2),
        autoattack(threat, classes, steps=25, queries=100),
    ]


def trained(model: nn.Module, rows: Batch, threat: ThreatModel | None, steps: int) -> nn.Module:
    """The model after so many steps of Adam on 64 rows each; the later half on the rows under FGSM where asked."""
    optimizer = torch.optim.Adam(model.parameters(), 2e-3)
    generator = torch.Generator().manual_seed(0)
    for step in range(steps):
        batch = rows.rows(torch.randint(0, len(rows), (64,), generator=generator))
        if threat is not None and step >= steps // 2:
            batch = pgd(threat, steps=1, relative_step_size=1.25)(model, batch, step=step, measure=False).batch
        optimizer.zero_grad()
        nn.functional.cross_entropy(forward(model.train(), batch), batch.labels).backward()
        optimizer.step()
    return model.eval()


def right(model: nn.Module, rows: Batch) -> Batch:
    """The rows that the model gets right."""
    with torch.no_grad():
        return rows.rows(forward(model, rows).argmax(dim=1) == rows.labels)


def left(model: nn.Module, rows: Batch, threat: ThreatModel, classes: int) -> list[int]:
    return [int((~attack(model, rows).success).sum()) for attack in ladder(threat, classes)]


def texts(count: int, seed: int) -> Batch:
    """Rows whose label is the remainder by 3 that most of their words have."""
    rows = token_rows([5 + row % 6 for row in range(count)], classes=3, seed=seed)
    tokens = rows.inputs["input_ids"]
    counts = [((tokens % 3 == rest) & rows.editable).sum(dim=1) for rest in range(3)]
    return replace(rows, labels=torch.stack(counts, dim=1).argmax(dim=1))


def test_on_images(shared: Path) -> None:
    """A small network trained for seconds, on images under FGSM at last: gradients that mislead a single step."""
    with seeded_scope(0):
        model = StridedCNN()
    threats = [ThreatModel(Pixels(), Linf(radius, per="example")) for radius in (0.1, 0.14)]
    trained(model, mnist(shared, 2000, "train"), threats[0], 120)
    rows = right(model, mnist(shared, 64))
    kept = left(model, rows, threats[1], 10)
    assert len(rows) > 55 and kept[0] < len(rows)
    assert kept == sorted(kept, reverse=True)
    one_step, plain, restarted, adaptive, everything = kept
    assert one_step > plain + 5 and plain > restarted >= adaptive > everything > 0


def test_on_word_embeddings() -> None:
    model = trained(tiny_models()["bert"](), texts(1500, 0), None, 150)
    rows = right(model, texts(100, 1))
    kept = left(model, rows, ThreatModel(Embeddings(), L2(0.3, per="example")), 3)
    assert len(rows) > 70 and kept[0] < len(rows)
    assert kept == sorted(kept, reverse=True)
    assert kept[0] > kept[1] > kept[3] >= kept[4] > 0
