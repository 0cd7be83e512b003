"""On toy vocabularies the exhaustive search is brute force, and no other search finds what brute force does not."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import pytest

from tests.attacks.edits.toys import Toy, drawn, rows, victim
from textadv.attacks.edits import (
    Beam,
    ChangedWords,
    EditAttack,
    Exhaustive,
    Genetic,
    Greedy,
    Misclassify,
    NotTwice,
    Passage,
    RandomEdits,
    Search,
    Swarm,
    Synonyms,
    Toward,
    WordTable,
)
from textadv.attacks.edits.parts import Request

SEEDS = range(6)
BEND = 0.8
TO_THE_END = Misclassify(stops=False)
"""Goes on after the first success, so that searches are compared by the best that they find."""


def attack(toy: Toy, search: Search, most: int = 3, goal: Misclassify | Toward = TO_THE_END) -> EditAttack:
    constraints = (NotTwice(), ChangedWords(most=most))
    return EditAttack(Synonyms(WordTable("toy", toy.table)), search, constraints, goal)


def brute_force(toy: Toy, most: int) -> float:
    """The largest margin of class 0 over 1 of all texts with at most so many words replaced, by the model alone."""
    words = list(toy.table)
    own = victim(toy.weights, BEND)
    texts = [
        " ".join(choice)
        for choice in product(*((word, *toy.table[word]) for word in words))
        if sum(a != b for a, b in zip(choice, words, strict=True)) <= most
    ]
    encoded = own.tokenizer(texts, return_tensors="pt")
    logits = own.model(encoded["input_ids"], encoded["attention_mask"])
    return float((logits[:, 0] - logits[:, 1]).detach().max())


def found(toy: Toy, search: Search, most: int = 3) -> float:
    (row,) = attack(toy, search, most)(victim(toy.weights, BEND), rows(" ".join(toy.table))).rows
    if row.status.value == "skipped":
        return row.before[0] - row.before[1]
    return row.after[0] - row.after[1]


def attackable(seeds: range) -> list[int]:
    """Seeds of toys that the model has right to begin with."""
    right = []
    for seed in seeds:
        toy = drawn(seed)
        (row,) = attack(toy, Beam(1, 1))(victim(toy.weights, BEND), rows(" ".join(toy.table))).rows
        right += [seed] if row.status.value != "skipped" else []
    return right


def test_exhaustive_search_goes_through_allowed_texts_alone() -> None:
    """`fine film` is allowed and lies behind `bad film`, which is not: so the docstring says."""
    weights = {"good": 2.0, "bad": 1.0, "fine": 0.5, "film": 3.0}
    table = WordTable("toy", {"good": ("bad",), "bad": ("fine",)})
    own, text = victim(weights), rows("good film")
    allowed = NotThrough("bad")
    (row,) = EditAttack(Synonyms(table), Exhaustive(2), (allowed,), TO_THE_END)(own, text).rows
    assert row.edited == "good film"
    (row,) = EditAttack(Synonyms(table), Exhaustive(2), (), TO_THE_END)(own, text).rows
    assert row.edited == "fine film" and allowed.allows(Passage.of("good film"), [Passage.of(row.edited)], ()) == [True]


@dataclass(frozen=True)
class NotThrough:
    """Texts with this word are forbidden, those with what may stand for it not."""

    word: str

    def asks(self, original: Passage, edited: Sequence[Passage]) -> Request | None:
        return None

    def allows(self, original: Passage, edited: Sequence[Passage], known: Sequence[object]) -> list[bool]:
        return [self.word not in str(one).split() for one in edited]


def test_most_toys_are_right_before_the_attack() -> None:
    assert len(attackable(SEEDS)) >= 4


@pytest.mark.parametrize("most", [1, 2, 3])
@pytest.mark.parametrize("seed", SEEDS)
def test_exhaustive_search_is_brute_force(seed: int, most: int) -> None:
    toy = drawn(seed)
    if seed in attackable(range(seed, seed + 1)):
        assert found(toy, Exhaustive(most), most) == pytest.approx(brute_force(toy, most), abs=1e-6)


# The gap to brute force in units of what brute force gains, on the mean of the toys: what each is held to.
GAPS: list[tuple[Search, float]] = [
    (Greedy("delete"), 0.25),
    (Greedy("unk"), 0.2),
    (Greedy("gradient"), 0.36),
    (Greedy("weighted"), 0.15),
    (Beam(1), 0.05),
    (Beam(4), 0.02),
    (Genetic(20, 12), 0.08),
    (Swarm(20, 12), 0.08),
    (RandomEdits(400), 0.15),
]


@pytest.mark.parametrize(("search", "gap"), GAPS, ids=[repr(search) for search, _ in GAPS])
def test_no_search_beats_brute_force_and_each_comes_near_it(search: Search, gap: float) -> None:
    shares = []
    for seed in attackable(SEEDS):
        toy = drawn(seed)
        best, start = brute_force(toy, 3), brute_force(toy, 0)
        own = found(toy, search)
        assert start <= own <= best + 1e-6
        shares.append((best - own) / (best - start))
    assert sum(shares) / len(shares) <= gap, shares


def test_weaker_searches_find_less() -> None:
    """On the mean a random order is worse than an order by importance with one word to change, and a wide beam best."""
    seeds = attackable(range(12))
    means = {}
    for name, search in {"random": Greedy("random"), "delete": Greedy("weighted"), "beam": Beam(3)}.items():
        means[name] = sum(found(drawn(seed), search, 1) for seed in seeds) / len(seeds)
    assert means["random"] < means["delete"] <= means["beam"] + 1e-9


@pytest.mark.parametrize("search", [Genetic(4, 2), Swarm(4, 2), RandomEdits(8), Greedy("random")], ids=repr)
def test_what_is_drawn_follows_from_seed_step_and_row(search: Search) -> None:
    toy = drawn(0)
    own = victim(toy.weights, BEND)
    text = " ".join(toy.table)
    first = attack(toy, search)(own, rows(text, text, text, ids=[3, 4, 5]))
    assert attack(toy, search)(own, rows(text, ids=[4])).rows[0] == first.rows[1]
    assert attack(toy, search)(own, rows(text, text, ids=[5, 3])).rows == (first.rows[2], first.rows[0])
    again = attack(toy, search)(own, rows(text, text, text, ids=[3, 4, 5]), step=1)
    assert again.rows != first.rows


def test_a_search_ends_at_the_first_success_and_stays_within_its_queries() -> None:
    toy = drawn(0)
    own, text = victim(toy.weights, BEND), rows(" ".join(toy.table))
    whole = attack(toy, Greedy("delete"), goal=Misclassify())(own, text).rows[0]
    assert whole.status.value == "succeeded" and whole.prediction == 0
    longer = attack(toy, Greedy("delete"))(own, text).rows[0]
    assert whole.queries < longer.queries
    for budget in range(1, whole.queries + 1):
        spec = attack(toy, Greedy("delete"), goal=Misclassify())
        (row,) = EditAttack(spec.transformation, spec.search, spec.constraints, queries=budget)(own, text).rows
        assert row.queries <= budget
        assert (row.status.value == "failed") == (row.reason == "out of queries")
    assert row.status.value == "succeeded" and row.edited == whole.edited


def test_toward_a_class() -> None:
    toy = drawn(0)
    own, text = victim(toy.weights, BEND), rows(" ".join(toy.table))
    spec = EditAttack(Synonyms(WordTable("toy", toy.table)), Beam(2), (NotTwice(),), Toward(0))
    assert spec(own, text).rows[0].prediction == 0
    spec = EditAttack(Synonyms(WordTable("toy", toy.table)), Beam(2), (NotTwice(),), Toward(1))
    assert spec(own, text).rows[0].reason == "its own class is the target"
    with pytest.raises(ValueError, match="goal.target must be one of the model's 2 classes, got 2"):
        EditAttack(Synonyms(WordTable("toy", toy.table)), Beam(2), (), Toward(2))(own, text)


def test_a_row_with_too_many_texts_for_the_oracle_fails_and_says_so() -> None:
    toy = drawn(0)
    own, few = victim(toy.weights, BEND), "wa"
    first, second = attack(toy, Exhaustive(3, most=50))(own, rows(" ".join(toy.table), few, label=1)).rows
    assert first.status.value == "failed" and "more than 50 texts within 3 edits" in first.reason
    assert "more than" not in second.reason


@pytest.mark.parametrize(("less", "kept"), [(1e-7, "good film"), (1e-3, "fine film")])
def test_what_only_rounding_tells_apart_leaves_the_text_as_it_is(less: float, kept: str) -> None:
    """The same text has other last bits in other batches; what comes back must not follow from them."""
    own = victim({"good": 3.0, "fine": 3.0 - less, "film": 0.0})
    (row,) = attack(Toy({}, {"good": ("fine",)}), Exhaustive(1))(own, rows("good film")).rows
    assert row.edited == kept and row.status.value == "failed"
