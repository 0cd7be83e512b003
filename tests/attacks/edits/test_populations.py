"""The goal's margin, and what the searches by populations do in one step, worked out by hand."""

from __future__ import annotations

from itertools import pairwise, product
from random import Random
from typing import NamedTuple

import pytest
import torch

from tests.attacks.edits.toys import drawn, rows, victim
from textadv.attacks.edits import (
    ChangedWords,
    EditAttack,
    Genetic,
    Misclassify,
    NotTwice,
    Passage,
    RandomEdits,
    Reduce,
    Search,
    Swarm,
    Synonyms,
    Victim,
    WordTable,
    bad_characters,
)
from textadv.attacks.edits.population import _speeds, _toward, crossed, mutated
from textadv.attacks.edits.row import Row, Turns


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


LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("bona", "cire", "dulat", "fanes", "gorit", "lumar", "bisen", "cotal", "denir", "falus")


def spelled(seed: int) -> Victim:
    """Knows ten words; others are read letter by letter, of which each has its own weight, and neighbours one more."""
    generator = torch.Generator().manual_seed(seed)
    pieces = [*LETTERS, *(f"##{letter}" for letter in LETTERS)]
    drawn = torch.randn(len(pieces), generator=generator).tolist()
    return victim(dict.fromkeys(WORDS, 2.0) | dict(zip(pieces, drawn, strict=True)), bend=0.5, max_length=96)


def margin(search: Search, seed: int, queries: int | None = None) -> tuple[float, int]:
    """The margin of the best text with one word changed, and the queries that it took."""
    spec = bad_characters()
    attack = EditAttack(
        spec.transformation, search, spec.constraints, Misclassify(stops=False), queries=queries, seed=seed
    )
    (row,) = attack(spelled(seed), rows(" ".join(WORDS))).rows
    assert row.changed <= 1
    return row.after[0] - row.after[1], row.queries


def test_more_generations_find_more_where_one_word_may_be_changed() -> None:
    """And random edits with as many queries find less."""
    found: dict[str, list[float]] = {"one": [], "ten": [], "random": []}
    for seed in range(8):
        one, few = margin(Genetic(32, 1), seed)
        ten, queries = margin(Genetic(32, 10), seed)
        random, same = margin(RandomEdits(4 * queries, 1), seed, queries)
        assert few < queries / 3 and same == queries and ten >= one
        for name, value in (("one", one), ("ten", ten), ("random", random)):
            found[name].append(value)
    means = {name: sum(values) / len(values) for name, values in found.items()}
    assert means["ten"] > means["one"] + 0.5 and means["ten"] >= means["random"], means
    assert sum(ten > one for ten, one in zip(found["ten"], found["one"], strict=True)) >= 6


class Mutating(NamedTuple):
    """Mutates the row's text so often, and keeps what comes of it."""

    steps: int
    texts: list[str]
    by_word: bool = True

    def __call__(self, row: Row) -> Turns[None]:
        passage = row.original
        for _ in range(self.steps):
            passage = (yield from mutated(row, passage)) or passage
            self.texts.append(str(passage))
        yield from row.see([passage])


def test_a_mutation_replaces_or_moves_an_edit() -> None:
    """With one word to change every mutation is another text with one edit, in the same word or in another."""
    table = WordTable("toy", {"aa": ("ax", "ay"), "bb": ("bx", "by")})
    search = Mutating(40, [])
    attack = EditAttack(Synonyms(table), search, (NotTwice(), ChangedWords(most=1)), Misclassify(stops=False))
    attack(victim({"aa": 1.0, "bb": 1.0}), rows("aa bb"))
    assert set(search.texts) == {"ax bb", "ay bb", "aa bx", "aa by"}
    moves = {(one, other) for one, other in pairwise(search.texts)}
    assert all(one != other for one, other in moves)
    assert ("ax bb", "ay bb") in moves and any(one[:2] == "aa" != other[:2] for one, other in moves)
