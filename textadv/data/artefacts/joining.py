"""Which prompts of files belong to which behaviours of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from textadv.data.artefacts.adversariallm import harm_of, is_adversariallm, read_adversariallm
from textadv.data.artefacts.attempts import KNOWN, Artefact, Attempt, json_in, shown
from textadv.data.artefacts.harmbench import is_harmbench, read_harmbench
from textadv.data.artefacts.jailbreakbench import is_jailbreakbench, read_jailbreakbench
from textadv.data.artefacts.paraphrases import read_paraphrases
from textadv.data.characters import Surrogates
from textadv.data.contamination import plain
from textadv.data.tables import SUFFIXES
from textadv.data.text_files import suffix_of
from textadv.values.errors import DataError
from textadv.values.plurals import some

_JSON_READERS = (
    (is_jailbreakbench, read_jailbreakbench),
    (is_adversariallm, read_adversariallm),
    (is_harmbench, read_harmbench),
)


def holds_rows(path: str | Path, key: str) -> bool:
    """Whether a file is a table of rows, and none of the formats of one JSON object. Raises DataError as below."""
    file = Path(path)
    if suffix_of(file) != ".json" and suffix_of(file) in SUFFIXES:
        return True
    try:
        return isinstance(json_in(file), list)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error


def read_artefact(path: str | Path, key: str, surrogates: Surrogates = "error") -> Artefact:
    """A file of any of the known formats, told by what it holds: JailbreakBench's artefacts, HarmBench's test cases or
    completions, AdversariaLLM's runs, or rows of `original_prompt, inpainted_prompt`.

    Raises DataError, naming `key`, where it is none of them or cannot be read.
    """
    file = Path(path)
    if holds_rows(file, key):
        return read_paraphrases(file, key, surrogates)
    try:
        value = json_in(file)
        for fits, read in _JSON_READERS:
            if fits(value):
                return read(file, surrogates)
    except DataError as error:
        raise DataError(f"{key}: {error}") from error
    held = f"an object with {shown(list(value))}" if isinstance(value, dict) else shown(value)
    raise DataError(f"{key}: {file} holds {held}, and is none of {KNOWN}.")


@dataclass(frozen=True)
class Joined:
    """What files hold for the behaviours of a run.

    attempts: behaviour's id -> what belongs to it and has a prompt, likeliest to break first. without: id -> why a
    behaviour has none. null, unknown: how many attempts have no prompt, or belong to no behaviour of the run. tried:
    how many have no prompt and belong to one. notes: what was not read.
    """

    attempts: Mapping[int, tuple[Attempt, ...]]
    without: Mapping[int, str]
    null: int = 0
    unknown: int = 0
    notes: tuple[str, ...] = ()
    tried: int = 0

    def __str__(self) -> str:
        count = sum(map(len, self.attempts.values()))
        parts = [f"{some(count, 'prompt')} for {some(len(self.attempts), 'behaviour')}"]
        parts += [f"{some(len(self.without), 'behaviour')} without a prompt"] if self.without else []
        parts += [some(self.null, "null prompt")] if self.null else []
        parts += [f"{some(self.unknown, 'prompt')} of other behaviours"] if self.unknown else []
        return "; ".join([", ".join(parts), *self.notes])


Requests = Mapping[int, str | Sequence[str]]
"""By the behaviour's id, what is asked for in words, or the forms that files may have it in."""


def joined(
    artefacts: Sequence[Artefact], requests: Requests, names: Mapping[str, Sequence[str]] | None = None
) -> Joined:
    """The attempts by behaviour.

    names: of behaviours, -> the request in words, where files name them.
    Attempts of one behaviour come in this order: those that broke, by their largest p_harmful, by their loss, as they
    stand; of equal prompts (with the same turns before them) the first of these is kept.
    """
    by_text: dict[str, list[int]] = {}
    for number, request in requests.items():
        for form in _forms(request):
            by_text.setdefault(form, []).append(number)
    found: dict[int, list[Attempt]] = {}
    tried: dict[int, int] = {}
    null = unknown = without_prompt = 0
    for attempt in (attempt for artefact in artefacts for attempt in artefact.attempts):
        rows = _rows_of(attempt, by_text, names or {})
        bare = attempt.prompt is None or not attempt.prompt.strip()
        null += bare
        unknown += not rows
        without_prompt += bare and bool(rows)
        for row in rows:
            if bare:
                tried[row] = tried.get(row, 0) + 1
            else:
                found.setdefault(row, []).append(attempt)
    kept = {row: _ordered(found[row]) for row in requests if row in found}
    without = {row: _why(tried.get(row, 0)) for row in requests if row not in found}
    notes = tuple(note for artefact in artefacts for note in artefact.notes)
    return Joined(kept, without, null, unknown, notes, without_prompt)


def _forms(request: str | Sequence[str]) -> list[str]:
    return list(dict.fromkeys(map(plain, [request] if isinstance(request, str) else request)))


def _why(null: int) -> str:
    if null:
        return f"the file has {some(null, 'null prompt')} for it and no other: no jailbreak was found"
    return "the file has no prompt for it"


def _rows_of(attempt: Attempt, by_text: Mapping[str, list[int]], names: Mapping[str, Sequence[str]]) -> list[int]:
    texts = [attempt.goal, *names.get(attempt.behaviour, ()), attempt.behaviour]
    return next((by_text[plain(text)] for text in texts if text.strip() and plain(text) in by_text), [])


def _ordered(attempts: Sequence[Attempt]) -> tuple[Attempt, ...]:
    def rank(attempt: Attempt) -> tuple[bool, float, float]:
        loss = float("inf") if attempt.loss is None else attempt.loss
        return attempt.broken is not True, -(harm_of(attempt) or 0.0), loss

    once: dict[tuple[str | None, str], Attempt] = {}
    for attempt in sorted(attempts, key=rank):
        once.setdefault((attempt.prompt, str(attempt.history)), attempt)
    return tuple(once.values())


def require_named(
    artefacts: Sequence[Artefact], requests: Requests, names: Mapping[str, Sequence[str]] | None, key: str
) -> None:
    """Raises DataError where attempts say names of behaviours that are no requests, and nothing says what they mean."""
    asked = {form for request in requests.values() for form in _forms(request)}
    attempts = [attempt for artefact in artefacts for attempt in artefact.attempts]
    told = any(attempt.goal or plain(attempt.behaviour) in asked for attempt in attempts)
    if names is None and attempts and not told:
        raise DataError(
            f"{key}.file names behaviours by id alone, such as {shown(attempts[0].behaviour)}. Name the table of "
            f"HarmBench's behaviours (BehaviorID, Behavior) in {key}.behaviours."
        )
