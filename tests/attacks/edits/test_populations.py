"""The goal's margin, and what the searches by populations do in one step, worked out by hand."""

from __future__ import annotations

from itertools import product
from random import Random

import pytest
import torch

from tests.attacks.edits.toys import drawn, rows, victim
from textadv.attacks.edits import (
    EditAttack,
    Genetic,
    Misclassify,
    NotTwice,
    Passage,
    Reduce,
    Swarm,
    Synonyms,
    WordTable,
)
from textadv.attacks.edits.population import _speeds, _toward, crossed


def test_the_goal_is_a_margin_of_logits_that_does_not_saturate() -> None:
    logits = torch.tensor([[2.0, 0.5, 1.0], [400.0, 1.0, 0.0], [0.0, 0.1, 3.0]])
    goal = Misclassify()
    assert goal.values(logits, 0, []).tolist() == pytest.approx([-1.0, -399.0, 3.0])
    assert goal.reached(logits, 0, []).tolist() == [False, False, True]
    # Where probabilities are all 1 the margin still tells which text is nearer.
    sharp = 1000 * logits[:2]
    assert sharp.softmax(dim=1)[:, 0].tolist() == [1.0, 1.0]
    first, second = goal.values(sharp, 0, []).tolist()
    assert first > second


def test_reduction_counts_words_before_confidence() -> None:
    passage = Passage.of("a b c")
    shorter, shortest = passage.with_piece(0, ""), passage.with_piece(0, "").with_piece(1, "")
    logits = torch.tensor([[0.0, 9.0], [0.0, 0.1], [9.0, 0.0]])
    values = Reduce().values(logits, 1, [passage, shorter, shortest]).tolist()
    assert values[2] == -1.0 < values[0] < 1.0 < values[1] < 2.0
    assert Reduce().reached(logits, 1, [passage, shorter, shortest]).tolist() == [False, True, False]


def attack(search: Genetic | Swarm) -> EditAttack:
    toy = drawn(0)
    spec = Synonyms(WordTable("toy", toy.table))
    return EditAttack(spec, search, (NotTwice(),), Misclassify(stops=False))


def test_a_child_costs_one_query() -> None:
    toy = drawn(0)
    (row,) = attack(Genetic(5, 3))(victim(toy.weights), rows(" ".join(toy.table))).rows
    assert row.queries + row.cached == 1 + 5 + 3 * 4


def test_a_particle_costs_one_query() -> None:
    toy = drawn(0)
    (row,) = attack(Swarm(5, 3))(victim(toy.weights), rows(" ".join(toy.table))).rows
    assert row.queries + row.cached == 1 + 5 + 3 * 5


def test_parents_are_drawn_by_their_margins() -> None:
    """Of two whose margins are far apart every child has the better one's words, and one edit more."""
    weights = {"aa": 1.0, "ax": -900.0, "bb": 1.0, "bx": 0.9}
    spec = Synonyms(WordTable("toy", {"aa": ("ax",), "bb": ("bx",)}))
    search = EditAttack(spec, Genetic(2, 1), (NotTwice(),), Misclassify(stops=False))
    for seed in range(6):
        (row,) = EditAttack(spec, search.search, search.constraints, search.goal, seed=seed)(
            victim(weights), rows("aa bb")
        ).rows
        assert row.edited in ("ax bb", "ax bx", "aa bx")
    assert row.after[0] - row.after[1] > 0 or "ax" not in row.edited


def test_a_child_has_each_word_from_either_parent() -> None:
    one = Passage.of("a b c d").with_pieces(("a1", "b1", "", "d"))
    other = Passage.of("a b c d").with_pieces(("a", "b2", "c", "d"))
    children = {crossed(one, other, Random(seed)).pieces for seed in range(60)}
    assert children == set(product(("a1", "a"), ("b1", "b2"), ("", "c"), ("d",)))


def test_velocities_by_hand() -> None:
    here = Passage.of("a b c")
    own, elite = here.with_piece(0, "x"), here.with_piece(0, "x").with_piece(1, "y")
    # Pulls are +1 for each best that differs and -1 for each that does not: 2, 0 and -2.
    assert _speeds([0.5, 0.5, 0.5], 0.6, here, own, elite) == pytest.approx([1.0, 0.3, -0.5])
    assert _speeds([1.0, -1.0, -1.0], 0.2, here, own, elite) == pytest.approx([1.0, -0.2, -1.0])
    sure = _toward(here, elite, [800.0, -700.0, 0.0], Random(0))
    assert sure.pieces[:2] == ("x", "b")
