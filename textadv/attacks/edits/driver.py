"""Many searches side by side: at each turn what all of them ask is joined by oracle and answered at once."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from textadv.attacks.edits.parts import Oracle, Request
from textadv.attacks.edits.row import Turns

CHARACTERS_TOGETHER = 256_000
"""Of the texts that are searched side by side: candidates of a text of W words are W pieces each."""


class Task(NamedTuple):
    """A search, and how many characters its text has: what it holds in memory grows with them."""

    search: Turns[None]
    characters: int


class _Waiting(NamedTuple):
    """A search that waits for answers."""

    task: Task
    asked: tuple[Request, ...]


def run(tasks: Iterator[Task], together: int, ended: Callable[[int], None]) -> None:
    """Runs every search to its end, up to `together` of them at a time, in their order, as far as their texts have no
    more than `CHARACTERS_TOGETHER` characters in all; a longer one goes alone.

    ended: told how many more have ended. What a search is answered does not depend on those beside it, but for the last
    bits of what a model computes in another batch.
    """
    waiting: list[_Waiting] = []
    upcoming = next(tasks, None)
    while upcoming is not None or waiting:
        count = 0
        while upcoming is not None and len(waiting) < together and _fits(upcoming, waiting):
            count += _advance(upcoming, None, waiting)
            upcoming = next(tasks, None)
        answers = answered([request for _, asked in waiting for request in asked])
        before, waiting = waiting, []
        for task, asked in before:
            own, answers = answers[: len(asked)], answers[len(asked) :]
            count += _advance(task, own, waiting)
        ended(count)


def _fits(task: Task, waiting: Sequence[_Waiting]) -> bool:
    held = sum(one.task.characters for one in waiting)
    return not waiting or held + task.characters <= CHARACTERS_TOGETHER


def _advance(task: Task, answers: list[list[Any]] | None, waiting: list[_Waiting]) -> int:
    """Takes a search to its next question; returns 1 where it has none."""
    try:
        asked = next(task.search) if answers is None else task.search.send(answers)
    except StopIteration:
        return 1
    waiting.append(_Waiting(task, asked))
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
