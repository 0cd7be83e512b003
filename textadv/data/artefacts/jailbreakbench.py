"""Artefacts of JailbreakBench (arXiv:2404.01318): one jailbreak for each goal, with the answer and the verdict."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from textadv.data.artefacts.attempts import (
    Artefact,
    Attempt,
    entry_of,
    json_in,
    lacking,
    list_of,
    name_of,
    rest_of,
    shown,
    text_or_none,
    verdict_of,
    write_json,
)
from textadv.data.characters import Surrogates, unbroken
from textadv.values.errors import DataError
from textadv.values.plurals import some

ROWS = "jailbreaks"
UNDECIDED = "undecided"
"""Stands beside `jailbroken: false` where no judge decided: the format has no null there."""
READ = ("goal", "behavior", "prompt", "response", "jailbroken", UNDECIDED)
COUNTS = ("number_of_queries", "queries_to_jailbreak", "prompt_tokens", "response_tokens")


def is_jailbreakbench(value: object) -> bool:
    """Whether a JSON value has the form of an artefact."""
    return isinstance(value, dict) and ROWS in value


def read_jailbreakbench(path: str | Path, surrogates: Surrogates = "error") -> Artefact:
    """The artefact `{parameters, jailbreaks: [{goal, behavior, prompt, response, jailbroken, ...}]}`.

    A prompt or response may be null; entries without the key of a prompt are told in a note. Other values stand in
    `beside` of their attempt, `parameters` in `about`.
    Raises DataError where there is no such list, no entry has the key of a prompt, or one has neither goal nor
    behavior.
    """
    value = json_in(path)
    if not is_jailbreakbench(value):
        raise DataError(f"{path}: this is no artefact of JailbreakBench: it has no {ROWS}.")
    rows = list_of(value[ROWS], f"{path}, {ROWS}")
    attempts = [_attempt(row, f"{path}, {ROWS}, entry {number}") for number, row in enumerate(rows)]
    bare = lacking(rows, "prompt", f"{path}, {ROWS}")
    told = f"{path}: {bare} of {some(len(rows), 'entry', 'entries')} of {ROWS} have no key prompt and are read as null"
    about = rest_of(value, [ROWS])
    return unbroken(Artefact(tuple(attempts), (), about, (told,) if bare else ()), str(path), surrogates)


def _attempt(value: object, place: str) -> Attempt:
    row = entry_of(value, place)
    goal, behaviour = name_of(row, "goal", place), name_of(row, "behavior", place)
    if not goal.strip() and not behaviour.strip():
        raise DataError(
            f"{place}: goal is missing, so that it is not known what was asked for; its keys are {shown(list(row))}. "
            "Add it."
        )
    response = text_or_none(row, "response", place)
    broken = None if row.get(UNDECIDED) is True else verdict_of(row.get("jailbroken"), f"{place}: jailbroken")
    return Attempt(
        behaviour=behaviour,
        goal=goal,
        prompt=text_or_none(row, "prompt", place),
        responses=() if response is None else (response,),
        broken=broken,
        beside=rest_of(row, READ),
    )


def write_jailbreakbench(path: str | Path, artefact: Artefact) -> None:
    """Writes the attempts as an artefact, with every key that JailbreakBench's own reader asks for.

    An attempt's first response is written. `index` and the counts are null (or the place) where `beside` has none.
    Raises WriteError, and ValueError for attempts with turns before their prompt, which the format has no place for.
    """
    rows = [_row(number, attempt) for number, attempt in enumerate(artefact.attempts)]
    write_json(path, {**artefact.about, ROWS: rows})


def _row(number: int, attempt: Attempt) -> dict[str, Any]:
    if attempt.history:
        raise ValueError(f"A jailbreak of JailbreakBench is one message, got {len(attempt.history)} turns before it.")
    first = {"index": number, "goal": attempt.goal, "behavior": attempt.behaviour, "category": ""}
    asked = {"prompt": attempt.prompt, "response": next(iter(attempt.responses), None)}
    counts = dict.fromkeys(COUNTS) | {"number_of_queries": 1}
    undecided = {UNDECIDED: True} if attempt.broken is None else {}
    return {**first, **asked, **counts, "jailbroken": attempt.broken is True, **undecided, **attempt.beside}


def as_jailbreakbench(artefact: Artefact) -> Artefact:
    """The artefact with the values that `write_jailbreakbench` adds, as it is read back."""
    return Artefact(
        tuple(_attempt(_row(number, attempt), "artefact") for number, attempt in enumerate(artefact.attempts)),
        (),
        artefact.about,
    )
