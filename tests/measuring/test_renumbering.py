"""Which order of the classes fits the answers: found where it is there, and never found in luck or in weak models."""

from __future__ import annotations

import random
from collections.abc import Sequence

import pytest

from textadv.measuring.accuracy.renumbering import renumbering, told


def answers(labels: Sequence[int], order: Sequence[int], share: float, classes: int, seed: int = 0) -> list[int]:
    """Answers that are the class `order[label]`, but for a share of rows where they are drawn blindly."""
    draw = random.Random(seed)
    return [order[label] if draw.random() < share else draw.randrange(classes) for label in labels]


@pytest.mark.parametrize(
    ("order", "rows", "share"),
    [
        ([1, 0], 24, 1.0),
        ([1, 0], 200, 0.6),
        ([2, 0, 1], 24, 1.0),
        ([2, 0, 1], 6, 1.0),
        ([0, 1, 2, 4, 5, 3], 60, 0.95),
        ([1, 0, 2, 4, 5, 3], 90, 0.9),
        ([9, 8, 7, 6, 5, 4, 3, 2, 1, 0], 60, 0.9),
    ],
    ids=["swap", "weak swap", "rotation", "six rows", "three of six", "two cycles", "reversed"],
)
def test_the_order_is_found(order: list[int], rows: int, share: float) -> None:
    labels = [row % len(order) for row in range(rows)]
    guesses = answers(labels, order, share, len(order))
    found = renumbering(guesses, labels, len(order))
    assert found is not None
    assert [found.classes[answer] for answer in order] == list(range(len(order)))
    assert found.before == sum(g == y for g, y in zip(guesses, labels, strict=True))
    assert found.after == sum(found.classes[g] == y for g, y in zip(guesses, labels, strict=True)) > found.before


def test_few_rows_of_very_many_classes_tell_a_shift_and_an_order_of_texts() -> None:
    classes = 300
    labels = [row for row in range(classes) for _ in range(2)]
    shifted = renumbering(answers(labels, [(n + 1) % classes for n in range(classes)], 0.6, classes), labels, classes)
    assert shifted is not None and shifted.classes[1] == 0 and shifted.classes[0] == classes - 1
    place = {name: n for n, name in enumerate(sorted(map(str, range(classes))))}
    order = [place[str(n)] for n in range(classes)]
    sorted_as_texts = renumbering(answers(labels, order, 0.6, classes), labels, classes)
    assert sorted_as_texts is not None and all(sorted_as_texts.classes[order[n]] == n for n in (2, 10, 100))


def test_a_swap_of_unequal_classes_is_found_where_accuracy_could_be_a_constant_answer() -> None:
    labels = [0] * 180 + [1] * 20
    found = renumbering(answers(labels, [1, 0], 0.95, 2), labels, 2)
    assert found is not None and found.classes == (1, 0)


@pytest.mark.parametrize("classes", [2, 3, 6, 10])
@pytest.mark.parametrize("share", [0.0, 0.4, 0.8, 1.0])
def test_luck_and_weak_models_have_no_other_order(classes: int, share: float) -> None:
    draw = random.Random(classes)
    told_of = 0
    for trial in range(60):
        labels = [draw.randrange(classes) for _ in range(draw.choice([4, 10, 24, 100]))]
        told_of += renumbering(answers(labels, range(classes), share, classes, trial), labels, classes) is not None
    assert told_of <= 2, "a test at 1 %"


def test_a_model_of_one_answer_has_no_other_order() -> None:
    assert renumbering([2] * 60, [row % 3 for row in range(60)], 3) is None
    assert renumbering([0] * 60, [row % 3 for row in range(60)], 3) is None


def test_classes_that_are_confused_one_way_are_not_swapped() -> None:
    """Half of class 1 is taken for 2, and none of 2 for 1."""
    labels = [0] * 40 + [1] * 40 + [2] * 40
    assert renumbering([0] * 40 + [1, 2] * 20 + [2] * 40, labels, 3) is None


def test_the_sentence_names_the_classes_in_the_model_s_order() -> None:
    labels = [row % 3 for row in range(24)]
    found = renumbering([[2, 0, 1][label] for label in labels], labels, 3)
    assert found is not None
    said = told(found, ["bad", "fine", "x" * 90], "test rows")
    assert "0 of 24 test rows are right, and 24 would be" in said
    assert f"'bad' as 'fine', 'fine' as '{'x' * 40}...', '{'x' * 40}...' as 'bad'" in said
    assert f'data.labels: ["fine", "{"x" * 90}", "bad"]' in said


@pytest.mark.parametrize(("rows", "cycle"), [(100, [1, 0]), (100, [2, 0, 1])])
def test_a_few_of_ten_classes_in_another_order_are_found(rows: int, cycle: list[int]) -> None:
    order = [*cycle, *range(len(cycle), 10)]
    labels = [row % 10 for row in range(rows)]
    guesses = [order.index(label) for label in labels]
    guesses[0] = labels[0]
    found = renumbering(guesses, labels, 10)
    assert found is not None
    assert list(found.classes) == order


def test_answers_that_miss_by_accident_are_given_no_order() -> None:
    rung = 0
    for seed in range(200):
        draw = random.Random(seed)
        labels = [draw.randrange(10) for _ in range(100)]
        guesses = [label if draw.random() < 0.3 else draw.randrange(10) for label in labels]
        rung += renumbering(guesses, labels, 10) is not None
    assert rung <= 2
