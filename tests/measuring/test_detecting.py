"""A classifier as a detector: thresholds from benign rows, clean and under an attack, and the choice by recall."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.measuring.linear import bag, labelled_rows
from tests.oracles import FixedRows, bag_margin_gain
from textadv.attacks import L2, ThreatModel, pgd
from textadv.measuring import Finished, Measured
from textadv.measuring.accuracy.detecting import Detector, detection_scores, with_detection
from textadv.measuring.accuracy.detection import threshold
from textadv.measuring.sections.detection import Detection
from textadv.values.spaces import Embeddings
from textadv.values.windows import margins

THREAT = ThreatModel(Embeddings(), L2(radius=0.3))
POSITIVE, SHARE = 1, 0.2


def rows_and_model() -> tuple[FixedRows, nn.Module]:
    model = bag()
    return labelled_rows(model, wrong=12), model


def detector(rows: FixedRows, attacked: bool = True) -> Detector:
    benign = tuple(place for place, label in enumerate(rows.labels) if label != POSITIVE)
    attack = pgd(THREAT, steps=8, select="most_damaging") if attacked else None
    return Detector(POSITIVE, (SHARE,), ((rows, benign),), "benign rows", attack)


def leads(rows: FixedRows, model: nn.Module) -> torch.Tensor:
    """The score of every row, in closed form."""
    with torch.no_grad():
        return margins(model(**rows.whole.inputs), POSITIVE)


def test_recall_under_attack_is_the_closed_form_at_the_clean_threshold(tmp_path: Path) -> None:
    rows, model = rows_and_model()
    clean, gain = leads(rows, model), bag_margin_gain(model, rows.whole, THREAT.ball)  # type: ignore[arg-type]
    labels = rows.whole.labels
    limit = threshold(clean[labels != POSITIVE].tolist(), SHARE).value
    # An attack lowers the lead on positive rows and raises it on the others.
    worst = torch.where(labels == POSITIVE, clean - gain, clean + gain)
    assert float((worst - limit).abs().min()) > 1e-3
    files = {"all": range(len(rows))}
    empty = Measured("m", ())

    def found(finished: Finished | None) -> Measured:
        return with_detection(
            empty,
            detector(rows),
            model,
            rows,
            files,
            range(len(rows)),
            THREAT,
            positive="injection",
            finished=finished,
        )

    measured = found(Finished.of(tmp_path, model))
    for scores, key in ((clean, ""), (worst, "/attack")):
        for kind, own in (("recall", labels == POSITIVE), ("false_positives", labels != POSITIVE)):
            measure = measured[f"detection/all/{kind}@0.2{key}"]
            assert measure.value == pytest.approx(float((scores[own] > limit).double().mean())), (kind, key)
    section = measured.section(Detection)
    assert section is not None and section.thresholds[0].value == pytest.approx(limit)
    assert section.positive == "injection" and "PGD" not in section.chosen_on
    # Rows that are done are read back.
    assert found(Finished.of(tmp_path, model)) == measured


class Flags(nn.Module):
    """The model with its first logit far down: it answers class 1 to everything, by the same order of rows."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def get_input_embeddings(self) -> nn.Module:
        return self.model.get_input_embeddings()  # type: ignore[operator, no-any-return]

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.model(**inputs)
        return logits - torch.tensor([30.0, 0.0])


class Constant(Flags):
    """The same lead for every row."""

    def forward(self, **inputs: torch.Tensor) -> torch.Tensor:
        return 0 * self.model(**inputs) + torch.tensor([0.0, 30.0])  # type: ignore[no-any-return]


def test_a_guard_that_flags_everything_does_not_look_robust() -> None:
    rows, model = rows_and_model()
    positions = range(len(rows))
    usual = detection_scores(detector(rows), model, rows, positions, THREAT)
    shifted = detection_scores(detector(rows), Flags(model), rows, positions, THREAT)
    # By its own answer it would hold under every attack.
    assert usual.robust is not None and 0 < usual.robust < usual.clean < 1
    assert (shifted.clean, shifted.robust) == (usual.clean, pytest.approx(usual.robust))
    constant = detection_scores(detector(rows, attacked=False), Constant(model), rows, positions, THREAT)
    assert constant.clean == 0 and constant.collapsed and constant.robust is None
    assert usual.meaning == "recall at 20 % false positives" and not usual.collapsed


def test_benign_rows_of_several_sources_choose_together() -> None:
    rows, model = rows_and_model()
    benign = [place for place, label in enumerate(rows.labels) if label != POSITIVE]
    halves = ((rows, tuple(benign[::2])), (rows, tuple(benign[1::2])), (rows, ()))
    apart = replace(detector(rows), benign=halves)
    assert sorted(apart.benign_scores(model, 4)) == pytest.approx(sorted(detector(rows).benign_scores(model, 64)))
