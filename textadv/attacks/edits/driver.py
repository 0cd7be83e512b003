"""Many searches side by side: at each turn what all of them ask is joined by oracle and answered at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from textadv.attacks.edits.parts import Oracle, Request
from textadv.attacks.edits.row import Turns


def run(searches: Iterator[Turns[None]], together: int, ended: Callable[[int], None]) -> None:
    """Runs every search to its end, up to `together` of them at a time, in their order.

    ended: told how many more have ended. What a search is answered does not depend on those beside it, but for the last
    bits of what a model computes in another batch.
    """
    waiting: list[tuple[Turns[None], tuple[Request, ...]]] = []
    more = True
    while more or waiting:
        count = 0
        while more and len(waiting) < together:
            search = next(searches, None)
            if search is None:
                more = False
                break
            count += _advance(search, None, waiting)
        answers = answered([request for _, asked in waiting for request in asked])
        before, waiting = waiting, []
        for search, asked in before:
            own, answers = answers[: len(asked)], answers[len(asked) :]
            count += _advance(search, own, waiting)
        ended(count)


def _advance(
    search: Turns[None], answers: list[list[Any]] | None, waiting: list[tuple[Turns[None], tuple[Request, ...]]]
) -> int:
    """Takes a search to its next question; returns 1 where it has none."""
    try:
        asked = next(search) if answers is None else search.send(answers)
    except StopIteration:
        return 1
    waiting.append((search, asked))
    return 0


def answered(requests: Sequence[Request]) -> list[list[Any]]:
    """The answers to each request; each oracle is called once, with the questions of all requests to it."""
    joined: dict[Oracle, list[Any]] = {}
    for oracle, items in requests:
        joined.setdefault(oracle, []).extend(items)
    found = {oracle: list(oracle(items)) for oracle, items in joined.items()}
    taken = dict.fromkeys(found, 0)
    own = []
    for oracle, items in requests:
        start = taken[oracle]
        taken[oracle] = start + len(items)
        own.append(found[oracle][start : start + len(items)])
    return own
