"""Files of HarmBench (arXiv:2402.04249): test cases and completions by BehaviorID, and the table of behaviours."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from textadv.data.artefacts.attempts import (
    Artefact,
    Attempt,
    entry_of,
    json_in,
    list_of,
    name_of,
    rest_of,
    shown,
    text_or_none,
    verdict_of,
    write_json,
)
from textadv.data.characters import Surrogates, unbroken
from textadv.data.tables import read_files
from textadv.values.errors import DataError

IDS = ("BehaviorID", "behavior_id", "id")
TEXTS = ("Behavior", "behavior", "goal", "Goal", "prompt")
NAMED = 3
"""Of the cases that are not read so many are named."""
CONTEXTS = ("ContextString", "context")


def is_harmbench(value: object) -> bool:
    """Whether a JSON value has the form of test cases or completions: lists of texts or objects by BehaviorID."""
    return isinstance(value, dict) and bool(value) and all(isinstance(part, list) for part in value.values())


def read_harmbench(path: str | Path, surrogates: Surrogates = "error") -> Artefact:
    """Test cases `{BehaviorID: [prompt, ...]}`, or completions `{BehaviorID: [{test_case, generation, label}, ...]}`.

    A prompt may be null; a behaviour without any stands in `empty`. `label` is the verdict (1, 0, or -1: not known);
    other values of a completion stand in its `beside`. Cases with an image are left out and named in a note. Raises
    DataError for anything else, and where no case is of text.
    """
    value = json_in(path)
    if not is_harmbench(value):
        raise DataError(f"{path}: this is no file of HarmBench: it holds no object of lists by BehaviorID.")
    attempts: list[Attempt] = []
    pictured: list[str] = []
    for name, cases in value.items():
        for n, case in enumerate(list_of(cases, f"{path}, {shown(name)}")):
            place = f"{shown(name)}, entry {n}"
            if isinstance(case.get("test_case") if isinstance(case, dict) else case, list):
                pictured.append(place)
            else:
                attempts.append(_attempt(name, case, f"{path}, {place}"))
    if pictured and not attempts:
        raise DataError(f"{path}: every test case has an image, such as {pictured[0]}. Only cases of text are read.")
    named = ", ".join(pictured[:NAMED]) + (", ..." if len(pictured) > NAMED else "")
    total = len(attempts) + len(pictured)
    notes = (f"{path}: {len(pictured)} of {total} test cases have an image and are left out ({named})",)
    empty = tuple(name for name, cases in value.items() if not cases)
    return unbroken(Artefact(tuple(attempts), empty, notes=notes if pictured else ()), str(path), surrogates)


def _attempt(name: str, case: object, place: str) -> Attempt:
    if case is None or isinstance(case, str):
        return Attempt(name, prompt=case)
    row = entry_of(case, place)
    if "test_case" not in row:
        raise DataError(f"{place}: test_case is missing; there are {shown(list(row))}.")
    said = text_or_none(row, "generation", place)
    return Attempt(
        behaviour=name,
        prompt=text_or_none(row, "test_case", place),
        responses=() if said is None else (said,),
        broken=verdict_of(row.get("label"), f"{place}: label"),
        beside=rest_of(row, ("test_case", "generation", "label")),
    )


def write_test_cases(path: str | Path, artefact: Artefact) -> None:
    """Writes `{BehaviorID: [prompt, ...]}`, behaviours in the order in which they first occur, empty ones last.

    Raises WriteError, and ValueError where an attempt names no behaviour or has turns before its prompt.
    """
    write_json(path, _by_behaviour(artefact, lambda attempt: attempt.prompt))


def write_completions(path: str | Path, artefact: Artefact) -> None:
    """Writes `{BehaviorID: [{test_case, generation, label, ...}, ...]}` as `write_test_cases`; first responses."""
    write_json(path, _by_behaviour(artefact, _completion))


def _by_behaviour(artefact: Artefact, made: Any) -> dict[str, list[Any]]:
    found: dict[str, list[Any]] = {}
    for attempt in artefact.attempts:
        if not attempt.behaviour:
            raise ValueError(f"HarmBench's files name behaviours, and one of {shown(attempt.goal)} has no name.")
        if attempt.history:
            raise ValueError(f"A test case of HarmBench is one message, got {len(attempt.history)} turns before it.")
        found.setdefault(attempt.behaviour, []).append(made(attempt))
    return found | {name: [] for name in artefact.empty if name not in found}


def _completion(attempt: Attempt) -> dict[str, Any]:
    said = {"test_case": attempt.prompt, "generation": next(iter(attempt.responses), None)}
    label = {} if attempt.broken is None else {"label": int(attempt.broken)}
    return {**said, **label, **attempt.beside}


# ---- the table of behaviours


def read_behaviours(path: str | Path, key: str) -> dict[str, tuple[str, ...]]:
    """BehaviorID -> the request in words, with its context before it as well where it has one.

    A csv file of HarmBench, or any table with one of the columns BehaviorID, behavior_id, id and one of Behavior,
    behavior, goal, prompt. Rows without a name are left out: no file can mean them. Raises DataError, naming `key`,
    where it lacks these columns, names a behaviour twice or none at all, or a name is no text and no whole number.
    """
    columns = read_files([path], None, key).columns
    ids, texts = (next((name for name in names if name in columns), None) for names in (IDS, TEXTS))
    if ids is None or texts is None:
        raise DataError(
            f"{key}: {path} has the columns {shown(list(columns))}, and needs one of {', '.join(IDS)} and one of "
            f"{', '.join(TEXTS)}."
        )
    contexts = columns.get(next((name for name in CONTEXTS if name in columns), ""), [None] * len(columns[ids]))
    found: dict[str, tuple[str, ...]] = {}
    for number, (cell, text, context) in enumerate(zip(columns[ids], columns[texts], contexts, strict=True)):
        name = name_of({ids: cell}, ids, f"{key}: {path}, row {number}")
        if not name.strip():
            continue
        if name in found:
            raise DataError(f"{key}: {path} names the behaviour {shown(name)} twice. Keep one row of it.")
        words, before = str(text or ""), str(context or "").strip()
        found[name] = (words, f"{before}\n\n---\n\n{words.strip()}") if before else (words,)
    if not found:
        raise DataError(f"{key}: {path} names no behaviour: {ids} is empty in every row. Fill it in.")
    return found


def behaviour_rows(names: Mapping[str, str]) -> Sequence[dict[str, str]]:
    """Rows of HarmBench's table of behaviours, one for each name and request in words."""
    blank = {"FunctionalCategory": "standard", "SemanticCategory": "", "Tags": "", "ContextString": ""}
    return [{"Behavior": request, **blank, "BehaviorID": name} for name, request in names.items()]
