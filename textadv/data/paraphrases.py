"""Paraphrases of prompts, of any generator: rows of an original and another prompt, joined to a run's behaviours."""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from textadv.data.characters import Surrogates, unbroken
from textadv.data.chat import Chat, ChatSplits
from textadv.data.chat_forms import empty
from textadv.data.chat_forms import text as text_of
from textadv.data.chat_rows import ChatRows, Editable, encode_chats
from textadv.data.classes import shortened
from textadv.data.contamination import Gram, plain, words_of
from textadv.data.rendering import Template
from textadv.data.tables import Table, read_files
from textadv.values.errors import DataError

ORIGINALS = ("original_prompt", "original", "prompt")
OTHERS = ("inpainted_prompt", "paraphrase", "prompt_paraphrased", "prompt")
Kept = TypeVar("Kept")


class Paraphrase(NamedTuple):
    """Another prompt for what an original asks. place: the row that it comes from, for messages.

    others: what the original may be in other words, where a file names it.
    """

    original: str
    text: str
    place: str
    others: tuple[str, ...] = ()


@dataclass(frozen=True)
class Paraphrases:
    """What was read. notes: what was left out, a sentence each."""

    rows: tuple[Paraphrase, ...]
    notes: tuple[str, ...] = ()


class Joined(NamedTuple):
    """The paraphrases of each training row of a stream, in the order of the file; notes: a sentence each."""

    texts: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...]


def prompt_columns(held: Collection[str], original: str | None = None) -> tuple[str | None, str | None]:
    """Which of the columns of a file hold the original prompt and the other one; None where none does.

    `prompt` is the original's where no other name says so, and else the other's. original: its column, where named.
    """
    original = original or next((name for name in ORIGINALS if name in held), None)
    return original, next((name for name in OTHERS if name in held and name != original), None)


def read_paraphrases(
    paths: Sequence[str | Path],
    key: str,
    columns: Mapping[str, str] | None = None,
    surrogates: Surrogates = "error",
) -> Paraphrases:
    """The rows of the files that have both prompts, each file by the names of its own columns.

    A row has an original prompt and another, in the columns that `prompt_columns` says, or a `suffix`, which follows
    the original after a blank. columns: their names where they are others;
    of both other prompts and suffixes those are read whose column is named. Raises DataError, naming the config key
    `key`, where there is no such column, a cell is no text, no row has both, or both columns are named.
    """
    if {"paraphrase", "suffix"} <= set(columns or {}):
        raise DataError(
            f"{key}.columns names paraphrase and suffix, and a row has one of them: whole other prompts, or what "
            "follows the original. Remove one."
        )
    found: list[Paraphrase] = []
    notes: list[str] = []
    for path in paths:
        table = read_files([path], None, key)
        original = _column(table, "original", columns or {}, key)
        role = _other(table, columns or {})
        other = _column(table, role, columns or {}, key)
        bare: list[int] = []
        for row, (first, second) in enumerate(zip(original, other, strict=True)):
            place = f"row {row} (counted from 0) of {table.place}"
            texts = (_text(first, f"{key}: {place}"), _text(second, f"{key}: {place}"))
            if not all(texts):
                bare.append(row)
                continue
            text = f"{texts[0]} {texts[1]}" if role == "suffix" else texts[1]
            whole = (unbroken(one, f"{key}: {place}", surrogates) for one in (texts[0], text))
            found.append(Paraphrase(next(whole), next(whole), place))
        if bare:
            notes.append(
                f"{key}: {len(bare)} of {len(table)} rows of {table.place} lack a prompt (the first is row "
                f"{bare[0]}, counted from 0) and are left out."
            )
    if not found:
        raise DataError(
            f"{key}: no row of {shortened(map(str, paths))} has an original prompt and another. Name others."
        )
    return Paraphrases(tuple(found), tuple(notes))


def _other(table: Table, columns: Mapping[str, str]) -> str:
    """Which role tells the other prompt: paraphrase, or suffix where there is none of these."""
    roles = ("paraphrase", "suffix")
    has = {role for role in roles if role in columns} or {role for role in roles if _held(table, columns)[role]}
    return "suffix" if has == {"suffix"} else "paraphrase"


def _held(table: Table, columns: Mapping[str, str]) -> dict[str, str | None]:
    """The column of each role; None where the file has none."""
    original, other = prompt_columns(table.columns, columns.get("original"))
    return {"original": original, "paraphrase": other, "suffix": "suffix" if "suffix" in table.columns else None}


def _column(table: Table, role: str, columns: Mapping[str, str], key: str) -> list[Any]:
    wanted = {"original": ORIGINALS[0], "paraphrase": OTHERS[0], "suffix": "suffix"}
    name = columns.get(role) or _held(table, columns)[role] or wanted[role]
    return table.column(name, f"{key}.columns.{role}")


def _text(value: object, where: str) -> str:
    """The text of a cell; empty for null and not-a-number. Raises DataError where it is no text."""
    return "" if empty(value, where) else text_of(value, where).strip()


def join_paraphrases(read: Paraphrases, splits: ChatSplits, key: str, *, exact: bool = False) -> Joined:
    """The paraphrases of each training row: their original is its last turn but for case, blanks and a full stop.

    exact: prompts of attacks, which may change these alone: left out is only what is the same to the letter. Otherwise
    a paraphrase has other words than its original, and than others of it.

    Those of validation and test behaviours are never trained on, nor is what reads as one of their prompts. Notes tell
    how many that are, how many are of no behaviour at all, and how many training prompts have none.
    Raises DataError, naming the config key `key`, where no training prompt has one.
    """
    train, validation, test = (_prompts(part) for part in (splits.train, splits.validation, splits.test))
    tested = {words_of(text) for text in test}
    held = tested | {words_of(text) for text in validation}
    texts: dict[str, dict[Gram, str]] = {text: {} for text in train if words_of(text) not in held}
    told_by: Callable[[str], Gram] = (lambda text: (text,)) if exact else words_of
    own: dict[str, set[str]] = {}
    for chat in splits.train:
        own.setdefault(plain(chat.prompt), set()).add(chat.prompt.strip())
    of_test = of_validation = unknown = leaking = same = 0
    first = ""
    for row in read.rows:
        forms, words = [plain(form) for form in (row.original, *row.others)], words_of(row.text)
        original = next((form for form in forms if form in texts), forms[0])
        theirs = [form for form in forms if words_of(form) in held]
        if theirs:
            of_test += not tested.isdisjoint(map(words_of, theirs))
            of_validation += tested.isdisjoint(map(words_of, theirs))
        elif original not in texts:
            unknown += 1
            first = first or row.original
        elif words in held:
            leaking += 1
        elif (row.text in own[original] if exact else words == words_of(original)) or told_by(row.text) in texts[
            original
        ]:
            same += 1
        else:
            texts[original][told_by(row.text)] = row.text
    held_out = of_test + of_validation
    if not any(texts.values()):
        raise DataError(
            f"{key}: none of {len(read.rows)} rows is of a training prompt of data.adversarial ({held_out} are of "
            f"held-out ones). Their first original is {shorter(read.rows[0].original)}. Name the file of these "
            "behaviours, or columns.original."
        )
    count = len(read.rows)
    told = (
        (
            of_test,
            "are of test behaviours: the file is keyed on what the evaluation reports on. They are not trained on, "
            "and neither should be what else was made from them",
        ),
        (of_validation, "are of validation behaviours and not trained on"),
        (leaking, "read as the prompt of a held-out behaviour and are left out"),
        (unknown, f"are of no behaviour that is trained on (such as {shorter(first)}) and are not used"),
        (same, "read as their original or as another row of it and are left out"),
    )
    notes = [f"{key}: {number} of {count} rows {what}." for number, what in told if number]
    bare = sum(not found for found in texts.values())
    if bare:
        notes.append(f"{key}: {bare} of {len(texts)} training prompts have no paraphrase and are trained on alone.")
    rows = tuple(tuple(texts.get(plain(chat.prompt), {}).values()) for chat in splits.train)
    return Joined(rows, (*read.notes, *notes))


def _prompts(chats: Sequence[Chat]) -> set[str]:
    return {plain(chat.prompt) for chat in chats}


def shorter(text: str, most: int = 60) -> str:
    """A text in quotes, of at most so many characters."""
    return repr(text if len(text) <= most else f"{text[: most - 1]}…")


def limited(offered: Sequence[Sequence[Kept]], most: int, seed: int | None) -> tuple[tuple[Kept, ...], ...]:
    """At most so many of what each row is offered: the first ones, or a draw by `seed` in the order of the file."""
    rows = []
    for number, own in enumerate(offered):
        places = range(min(most, len(own)))
        if seed is not None and len(own) > most:
            places = sorted(random.Random(f"{seed} {number}").sample(range(len(own)), most))  # type: ignore[assignment]
        rows.append(tuple(own[place] for place in places))
    return tuple(rows)


def encoded_whole(
    chat: Chat, lengths: Mapping[str, int], template: Template, max_length: int, editable: Editable
) -> ChatRows | None:
    """The chat as a row; None where its prompt would be cut, or an answer be shorter than `lengths` says, in tokens."""
    try:
        row = encode_chats([chat], template, max_length, editable=editable)
    except DataError:
        return None
    whole = not row.cut_prompts and all(len(row.answers[name][0]) == size for name, size in lengths.items())
    return row if whole else None


def rephrased(chat: Chat, text: str, id: int) -> Chat:
    """The chat with another text in its last turn, as a row of its own."""
    messages = (*chat.messages[:-1], {**chat.messages[-1], "content": text})
    return replace(chat, messages=messages, id=id, place=f"{chat.place}, a paraphrase")
