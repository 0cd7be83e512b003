"""What cannot be right about a classifier's numbers: chance, collapse, wild temperatures, and whoever is told of it."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest
import torch
from torch import nn

from tests.measuring.linear import ROWS, bag, ball_threat, labelled_rows
from tests.oracles import FixedRows
from tests.report.made_up import made
from tests.seen import evaluate
from textadv.attacks import L2, Transfer, pgd
from textadv.data import ImageRows
from textadv.measuring import calibrated, scores
from textadv.measuring.accuracy.record import Classified
from textadv.measuring.accuracy.sanity import Answered, answer_doubts, temperature_doubt
from textadv.models import as_classifier
from textadv.report import doubts
from textadv.values.randomness import seeded_scope

THREAT = ball_threat(L2(0.2))
NAMES = ("poor", "good")


def told(guesses: list[int], labels: list[int], classes: int = 2) -> str:
    return " | ".join(answer_doubts(Answered(guesses, labels, classes, "test", NAMES)))


def right_on(count: int, rows: int, classes: int = 2) -> tuple[list[int], list[int]]:
    """Answers to `rows` rows of balanced classes; those that are wrong name the classes in turn."""
    labels = [row % classes for row in range(rows)]
    draw = random.Random(3)
    order = draw.sample(range(rows), rows)
    guesses = list(labels)
    for place, row in enumerate(order[count:]):
        others = [label for label in range(classes) if label != labels[row]]
        guesses[row] = others[place % len(others)]
    return guesses, labels


@pytest.mark.parametrize(
    ("right", "rows", "classes", "word"),
    [
        (12, 24, 2, "at chance"),
        (8, 24, 3, "at chance"),
        (100, 200, 2, "at chance"),
        (55, 100, 2, "not shown to be above chance"),
        (5, 100, 10, "at chance"),
        (30, 100, 2, "under chance"),
        (0, 8, 2, "under chance"),
    ],
)
def test_accuracy_at_or_under_chance_is_told(right: int, rows: int, classes: int, word: str) -> None:
    found = told(*right_on(right, rows, classes), classes)
    assert f"clean accuracy, {100 * right / rows:.1f} % of {rows} test rows, is {word}" in found


@pytest.mark.parametrize(
    ("right", "rows", "classes"),
    [(24, 24, 2), (18, 24, 2), (14, 24, 3), (3, 6, 2), (0, 4, 2), (5, 10, 2), (65, 100, 2), (120, 1000, 10)],
)
def test_what_is_above_chance_or_too_few_rows_is_not(right: int, rows: int, classes: int) -> None:
    assert "chance" not in told(*right_on(right, rows, classes), classes)


def test_chance_is_the_best_constant_answer() -> None:
    """90 % of the rows are of one class: 89 % right is not above chance, 99 % is."""
    labels = [0] * 180 + [1] * 20
    weak = [0] * 178 + [1] * 2 + [0] * 19 + [1]
    assert "the answer 'poor' to every row would be right on 90.0 %" in told(weak, labels)
    assert not told([*labels[:-2], 0, 0], labels)


def test_one_answer_for_all_and_rows_of_one_class() -> None:
    assert "gives every one of 12 test rows class 'good': it has collapsed" in told([1] * 12, [0, 1] * 6)
    assert "all 12 test rows are of class 'good'" in told([1, 0] * 6, [1] * 12)
    assert not told([0], [0]) and not told([], [])


def test_a_class_that_is_never_answered() -> None:
    labels = [row % 3 for row in range(60)]
    found = told([0 if label == 2 else label for label in labels], labels, 3)
    assert found == "never answers '2' (20 test rows): all these rows are wrong without an attack."
    few = [0] * 30 + [1] * 30 + [2] * 4
    assert not told([0 if label == 2 else label for label in few], few, 3)


@pytest.mark.parametrize(("value", "word"), [(100.0, "bound 100"), (0.05, "bound 0.05")])
def test_a_temperature_at_its_bound(value: float, word: str) -> None:
    answered = Answered([0, 1] * 6, [0, 1] * 6, 2, "validation", NAMES)
    assert word in str(temperature_doubt(value, answered))
    assert temperature_doubt(value * (0.99 if value > 1 else 1.01), answered) is None
    assert "of one class, 'good', alone" in str(temperature_doubt(1.0, replace(answered, labels=[1] * 12)))


# ---- from Python


def swapped(rows: FixedRows) -> FixedRows:
    return FixedRows(replace(rows.whole, labels=1 - rows.whole.labels))


def measured(rows: FixedRows, calibration: FixedRows | None = None, **more: object) -> Classified:
    attacks = {"pgd": pgd(THREAT, steps=2)}
    found: Classified = evaluate(bag(), rows, attacks, THREAT, calibration=calibration, names=NAMES, **more)
    return found


def test_texts_with_swapped_labels_are_told_before_any_attack_and_in_the_report() -> None:
    said: list[str] = []
    own = labelled_rows(bag(), wrong=2)
    found = measured(swapped(own), swapped(own), say=said.append)
    order, chance, bound = found.notes
    assert "its classes seem to be in another order than the labels'" in order and '["good", "poor"]' in order
    assert "is under chance" in chance and "ran to its bound 100" in bound
    assert said[1:4] == [f"note: model: {note}" for note in found.notes]
    assert [line for line in doubts(made(found)) if line.startswith("model: ")][:3] == [
        f"model: {note}" for note in found.notes
    ]


def test_rows_as_the_model_has_them_have_no_notes() -> None:
    own = labelled_rows(bag(), wrong=7)
    assert measured(own, own).notes == ()


def test_validation_labels_alone_that_are_swapped() -> None:
    own = labelled_rows(bag(), wrong=2)
    found = measured(own, swapped(own))
    assert "2 of 60 validation rows are right, and 58 would be" in found.notes[0] and len(found.notes) == 2
    assert calibrated(bag(), own).doubts == ()


def test_scores_tell_the_order_of_the_rows_that_choose() -> None:
    own = labelled_rows(bag(), wrong=2)
    assert scores(bag(), own, range(ROWS), None).doubt is None
    doubt = scores(bag(), swapped(own), range(ROWS), None, names=NAMES).doubt
    assert doubt is not None and "'poor' as 'good'" in doubt


def test_a_surrogate_of_another_order_is_told() -> None:
    model, other = bag(), bag()
    with torch.no_grad():
        other.head.neg_()
        other.bias.neg_()
    attack = Transfer(other, pgd(THREAT, steps=2), THREAT, "the other")
    found = evaluate(model, labelled_rows(model, wrong=2), {"moved": attack}, THREAT)
    assert any(
        note.startswith("the other, which moved is transferred from: its classes seem to be in another order")
        for note in found.notes
    )


class Brightest(nn.Module):
    """The third of the image that is brightest, as logits in the order `order`."""

    def __init__(self, order: tuple[int, ...]) -> None:
        super().__init__()
        self.order = order

    def forward(self, pixel_values: torch.Tensor) -> torch.Tensor:
        parts = torch.stack([part.mean(dim=(1, 2, 3)) for part in pixel_values.chunk(3, dim=3)], dim=1)
        return 8 * parts[:, list(self.order)]


def images(rows: int = 30) -> ImageRows:
    with seeded_scope(0):
        pixels = 0.4 * torch.rand(rows, 1, 6, 6)
    labels = [row % 3 for row in range(rows)]
    for row, label in enumerate(labels):
        pixels[row, :, :, 2 * label : 2 * label + 2] += 0.5
    return ImageRows(pixels, tuple(labels), tuple(range(rows)))


def test_images_in_another_order() -> None:
    # Logit 0 is of class 2, and so on.
    found = evaluate(as_classifier(Brightest((2, 0, 1))), images(), {}, THREAT, calibration=images())
    assert "'0' as '2', '1' as '0', '2' as '1'" in found.notes[0] and 'data.labels: ["2", "0", "1"]' in found.notes[0]
    assert evaluate(as_classifier(Brightest((0, 1, 2))), images(), {}, THREAT, calibration=images()).notes == ()


def test_answers_that_follow_unbalanced_classes_are_no_chance() -> None:
    labels = [0] * 180 + [1] * 20
    guesses = [0] * 153 + [1] * 27 + [1] * 19 + [0]
    note = told(guesses, labels)
    assert "though answers do follow the classes (kappa 0.51)" in note
    assert "mean nothing" not in note
    assert told([0] * 178 + [1] * 2 + [0] * 14 + [1] * 6, labels) == ""


def test_one_answer_to_rows_that_are_nearly_all_of_its_class_is_no_collapse() -> None:
    assert "too few to say whether it has collapsed" in told([0, 0], [0, 1])
    assert "it has collapsed" in told([0] * 8, [0, 1] * 4)


def test_a_temperature_at_its_upper_bound_of_a_model_that_is_right_is_its_scale() -> None:
    right = Answered([0, 1] * 10, [0, 1] * 10, 2, "validation")
    wrong = Answered([1, 0] * 10, [0, 1] * 10, 2, "validation")
    assert "scaled up" in str(temperature_doubt(100.0, right))
    assert "swapped labels" in str(temperature_doubt(100.0, wrong))
