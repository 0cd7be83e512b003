"""What a budget of queries leaves for edits: importance takes half of it at most, and what tried no edit says so."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from tests.attacks.edits.toys import rows, victim
from textadv.attacks.edits import (
    EditAttack,
    Greedy,
    Misclassify,
    NotTwice,
    Passage,
    Status,
    Synonyms,
    Victim,
    WordTable,
    deepwordbug,
    driver,
    textbugger,
)
from textadv.attacks.edits.driver import Task, run
from textadv.attacks.edits.greedy import Importance
from textadv.attacks.edits.row import CHARACTERS_AT_ONCE, Row, Turns
from textadv.models.victim import Asked

ASKING: tuple[Importance, ...] = ("delete", "unk", "weighted")
NAMES = [f"w{chr(97 + n // 26)}{chr(97 + n % 26)}" for n in range(70)]
TABLE = WordTable("toy", {name: (f"{name}x",) for name in NAMES})


class Recorded(Victim):
    """A victim that keeps what it was asked."""

    def logits(self, asked: Sequence[Asked]) -> Tensor:
        texts.extend(one.text for one in asked)
        return super().logits(asked)


texts: list[str] = []


def recorded(weights: dict[str, float]) -> Recorded:
    texts.clear()
    own = victim(weights, max_length=128)
    return Recorded(own.model, own.tokenizer, own.max_length)


def decisive(*places: int, weight: float = 5.0) -> dict[str, float]:
    """70 words of which those in these places carry the class."""
    return {name: weight if n in places else 0.01 for n, name in enumerate(NAMES)} | {NAMES[0]: -1.0}


def swaps(importance: Importance, queries: int | None, stops: bool = True) -> EditAttack:
    return EditAttack(Synonyms(TABLE), Greedy(importance), (NotTwice(),), Misclassify(stops), queries=queries)


def candidates(found: Sequence[str]) -> list[int]:
    """Which of the texts hold a synonym."""
    return [n for n, text in enumerate(found) if any(word.endswith("x") for word in text.split())]


@pytest.mark.parametrize("queries", [30, 64, 70])
@pytest.mark.parametrize("attack", [deepwordbug(), textbugger()], ids=lambda one: one.name)
def test_one_decisive_word_of_seventy_is_found_with_fewer_queries_than_words(attack: EditAttack, queries: int) -> None:
    (row,) = replace(attack, queries=queries)(victim(decisive(40), max_length=128), rows(" ".join(NAMES))).rows
    assert row.status is Status.SUCCEEDED and row.edited.split()[40] != NAMES[40]


@pytest.mark.parametrize("importance", ASKING)
@pytest.mark.parametrize("queries", [2, 3, 5, 12, 40, 64, 100, 141, 142])
def test_importance_takes_half_of_a_budget_at_most(importance: Importance, queries: int) -> None:
    """Of what is left once the row was asked for. A search that is not over tries edits with the rest."""
    own = recorded(dict.fromkeys(NAMES, 2.0))
    (row,) = swaps(importance, queries, stops=False)(own, rows(" ".join(NAMES))).rows
    asked = texts[1:]  # Behind the one by which the classes are counted.
    tried = candidates(asked)
    assert row.queries == len(asked) <= queries
    assert tried and len(asked) - len(tried) <= 1 + (queries - 1) // 2
    assert row.edited != row.text
    if queries > 12:
        assert row.changed > 1, "edits are put together"


@pytest.mark.parametrize("importance", ASKING)
def test_a_budget_that_is_enough_for_every_word_changes_nothing(importance: Importance) -> None:
    few = " ".join(NAMES[:12])
    weights = decisive(3, 7, 9)
    whole = recorded(weights)
    free = swaps(importance, None)(whole, rows(few)).rows[0]
    asked = list(texts)
    for queries in (1 + 4 * 12, 200):
        own = recorded(weights)
        assert swaps(importance, queries)(own, rows(few)).rows[0] == free
        assert texts == asked
    assert free.status is Status.SUCCEEDED


def test_blocks_then_the_words_of_the_block_that_counts_most_by_hand() -> None:
    """8 words, 10 queries: 4 are for importance. Blocks of 4 gain 4 and 8, halves of the second 6 and 2; so words count
    1 each, but those of the third pair 3."""
    weights = dict.fromkeys(NAMES[:8], 1.0) | {NAMES[5]: 5.0, NAMES[69]: 100.0}
    own = recorded(weights)
    (row,) = swaps("delete", 10)(own, rows(" ".join(NAMES[:8]))).rows
    asked = [text.split() for text in texts[2:]]
    kept = [[NAMES.index(word) for word in words] for words in asked[:4]]
    assert kept == [[4, 5, 6, 7], [0, 1, 2, 3], [0, 1, 2, 3, 6, 7], [0, 1, 2, 3, 4, 5]]
    edited = [[n for n, word in enumerate(words) if word.endswith("x")] for words in asked[4:]]
    assert edited == [[4], [4, 5], [0, 4, 5], [0, 1, 4, 5], [0, 1, 2, 4, 5]]
    assert row.reason == "out of queries" and row.queries == 10


@pytest.mark.parametrize("importance", ASKING)
def test_a_row_in_a_batch_is_searched_as_alone(importance: Importance) -> None:
    own = victim(decisive(3, 40, 41), max_length=128)
    several = [" ".join(NAMES), " ".join(NAMES[20:60]), " ".join(NAMES[::-1])]
    attack = swaps(importance, 24)
    together = attack(own, rows(*several)).rows
    for n, text in enumerate(several):
        assert attack(own, rows(text, ids=[n])).rows[0] == together[n]


def test_groups_find_more_than_no_order_at_the_same_budget() -> None:
    generator = torch.Generator().manual_seed(0)
    found = {"random": 0, "delete": 0, "unk": 0, "weighted": 0}
    for n in range(12):
        own = victim(decisive(*torch.randperm(69, generator=generator)[:2].add(1).tolist()), max_length=128)
        for importance in found:
            attack = replace(swaps(importance, 40), seed=n)  # type: ignore[arg-type]
            found[importance] += attack(own, rows(" ".join(NAMES))).count(Status.SUCCEEDED)
    assert found["delete"] == found["unk"] == found["weighted"] == 12 and found["random"] < 8


def test_a_row_whose_queries_were_spent_before_the_first_edit_says_so() -> None:
    own = victim(decisive(40), max_length=128)
    one = deepwordbug(queries=1)(own, rows(" ".join(NAMES)))
    assert one.rows[0].status is Status.SKIPPED and one.rows[0].untried and one.untried == 1
    assert one.rows[0].reason == "no edit was tried: 1 query is fewer than the search takes before its first"
    assert not one.attacked
    two = deepwordbug(queries=2)(own, rows(" ".join(NAMES)))
    assert two.rows[0].reason == "out of queries" and two.untried == 0


class Probing(NamedTuple):
    """Asks for texts without one word, and notes each that was made."""

    made: list[int]
    by_word: bool = True

    def __call__(self, row: Row) -> Turns[None]:
        def without() -> Iterator[Passage]:
            for place in row.places:
                self.made.append(place)
                yield row.original.with_piece(place, "")

        yield from row.probe(without())


def probing(made: list[int], queries: int | None = None) -> EditAttack:
    return EditAttack(Synonyms(TABLE), Probing(made), (NotTwice(),), queries=queries)


def test_a_text_behind_the_end_of_the_budget_is_not_made() -> None:
    """But for those that are tokenised together with the last that fits."""
    made: list[int] = []
    own, text = victim(dict.fromkeys(NAMES, 1.0), max_length=128), " ".join(NAMES[:2] * 12_000)
    (row,) = probing(made, queries=5)(own, rows(text)).rows
    parts = -(-CHARACTERS_AT_ONCE // len(text))
    assert row.untried and row.queries == 5 and 5 <= len(made) <= parts + 1 < 100


def test_very_long_texts_are_searched_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(driver, "CHARACTERS_TOGETHER", 10)
    running: set[int] = set()
    seen: list[set[int]] = []
    ended: list[int] = []

    def search(n: int) -> Turns[None]:
        running.add(n)
        for _ in range(2):
            seen.append(set(running))
            yield ()
        running.remove(n)

    sizes = [4, 4, 4, 30, 2, 2]
    run((Task(search(n), size) for n, size in enumerate(sizes)), 64, ended.append)
    assert max(map(len, seen)) == 2 and {3} in seen and sum(ended) == 6
    assert all(one == {3} or sum(sizes[n] for n in one) <= 10 for one in seen)
