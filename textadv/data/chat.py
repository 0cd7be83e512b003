"""The three streams of chats: adversarial, utility and borderline; their records, files, columns, splits and checks.

Everything wrong with the data is said here, before a model is loaded, in the keys under data.adversarial, data.utility
and data.borderline.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textadv.batch import Role
from textadv.data.chat_template import SEGMENTS, Message
from textadv.data.examples import DataError
from textadv.data.tables import Table, read_files, read_hub
from textadv.data.thoughts import spelled

FILES = "files"
PARTS = ("train", "validation", "test")
COLUMNS = {
    Role.ADVERSARIAL: ("prompt", "target", "safe", "system"),
    Role.UTILITY: ("prompt", "response", "messages", "system"),
    Role.BORDERLINE: ("prompt", "response", "system"),
}
"""What a stream's files may hold; a column of that name is taken where `columns` names no other."""

Source = str | Path | Sequence[str | Path]


@dataclass(frozen=True)
class Chat:
    """One row of a stream.

    messages: the turns before the answer; the last one is the user's.
    answers: by name: "harmful" (the target) and "safe" in the adversarial stream, "response" in the others.
    id: the row's number in its stream before any sub-sampling, counted from 0; unique within a part.
    place: where the row comes from, for messages.
    """

    messages: tuple[Message, ...]
    answers: Mapping[str, str]
    role: Role
    id: int
    place: str

    @property
    def prompt(self) -> str:
        """The text of the last turn, the user's."""
        return self.messages[-1]["content"]


@dataclass(frozen=True)
class ChatSplits:
    """Train, validation and test rows of one stream; validation and test may be empty."""

    train: tuple[Chat, ...]
    validation: tuple[Chat, ...]
    test: tuple[Chat, ...]


def load_chats(
    role: Role,
    name: str = FILES,
    *,
    config: str | None = None,
    train: Source | None = None,
    validation: Source | None = None,
    test: Source | None = None,
    validation_fraction: float = 0.1,
    test_fraction: float = 0.0,
    columns: Mapping[str, str] | None = None,
    safe_responses: Sequence[str] = (),
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    seed: int = 0,
) -> ChatSplits:
    """The train, validation and test rows of one stream, checked.

    role: Role.ADVERSARIAL, UTILITY or BORDERLINE: which stream; errors name the keys under `data.` + its name.
    name: "files" (then train, validation and test are paths to csv, tsv, json, jsonl or parquet files, one or several
        each); or a Hub data set (then they are its split names; config: its configuration).
    validation_fraction, test_fraction: the share of the train prompts that is held out where there is no such file or
        split, drawn by `seed`; all rows of a prompt go to one part. Nothing is ever held out of test.
    columns: the column of prompt, target, safe, response, messages or system, where its name is another.
        A target or safe cell may be a list of texts. Row k of such a prompt has target k and safe response k, the
        shorter list starting again: as many rows as the longer list has texts, not one for each combination.
    safe_responses: the safe responses, in place of a column of them; row i has response i modulo their number.
    train_rows, validation_rows, test_rows: at most so many rows, drawn by `seed`, in the order of the source.

    Raises DataError, naming the key to change and, for a row, its number and place.
    """
    key = f"data.{role.name.lower()}"
    rows = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    fractions = {"test": test_fraction, "validation": validation_fraction}
    _check_options(role, key, rows, fractions, columns or {}, safe_responses)
    tables = _read(key, name, config, {"train": train, "validation": validation, "test": test})
    if "test" in tables and test_fraction > 0:
        raise DataError(f"{key}.test and {key}.test_fraction ({test_fraction}) are both set. Remove one of them.")
    parts = {part: _chats(found, key, role, columns or {}, safe_responses) for part, found in tables.items()}
    for part, fraction in fractions.items():
        if part not in parts and fraction > 0:
            share = fraction if part == "test" else fraction / (1 - test_fraction)
            parts["train"], parts[part] = _hold_out(parts["train"], share, seed, f"{key}.{part}")
    return ChatSplits(**{part: _sample(parts.get(part, ()), rows[part], seed) for part in PARTS})


def _check_options(
    role: Role,
    key: str,
    rows: Mapping[str, int | None],
    fractions: Mapping[str, float],
    columns: Mapping[str, str],
    safe_responses: Sequence[str],
) -> None:
    for part, size in rows.items():
        if size is not None and size < 1:
            raise DataError(f"{key}.{part}_rows must be at least 1, got {size}. Leave it out to take all rows.")
    for part, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise DataError(f"{key}.{part}_fraction must be at least 0 and below 1, got {fraction}.")
    if sum(fractions.values()) >= 1:
        raise DataError(
            f"{key}.validation_fraction and {key}.test_fraction must leave rows to train on, got "
            f"{fractions['validation']} and {fractions['test']}."
        )
    unknown = sorted(set(columns) - set(COLUMNS[role]))
    if unknown:
        raise DataError(f"{key}.columns.{unknown[0]} is not known; there are {', '.join(COLUMNS[role])}.")
    if isinstance(safe_responses, str):
        raise DataError(f"{key}.safe_responses must be a list of texts, got {safe_responses!r}. Write it as a list.")
    for number, text in enumerate(safe_responses):
        _text(text, f"{key}.safe_responses: entry {number} (counted from 0)")
    if safe_responses and "safe" in columns:
        raise DataError(f"{key}.safe_responses and {key}.columns.safe are both set. Remove one of them.")


def _read(key: str, name: str, config: str | None, sources: Mapping[str, Source | None]) -> dict[str, list[Table]]:
    """The tables of each part, one for each file."""
    if name == FILES:
        files = {
            part: [source] if isinstance(source, (str, Path)) else list(source)
            for part, source in sources.items()
            if source is not None
        }
        for part, paths in {"train": [], **files}.items():
            if not paths:
                raise DataError(f"{key}.{part}: no file named. Name one of chats.")
        _check_distinct({part: {str(Path(path).resolve()) for path in paths} for part, paths in files.items()}, key)
        return {part: [read_files([path], None, f"{key}.{part}") for path in paths] for part, paths in files.items()}
    wanted: dict[str, str | None] = {}
    for part, source in sources.items():
        if source is not None and not isinstance(source, str):
            raise DataError(
                f"{key}.{part} must be the name of one Hub split, got {source!r}. For files set {key}.name: {FILES}."
            )
        wanted[part] = source
    _check_distinct({part: {split} for part, split in wanted.items() if split is not None}, key)
    try:
        tables = read_hub(name, config, wanted)
    except DataError as error:
        # The reader knows the keys of a run with one data set.
        raise DataError(re.sub(r"\bdata\.(name|config|train|validation|test)\b", rf"{key}.\1", str(error))) from error
    if "train" not in tables:
        raise DataError(f"{key}.train: {name} has no split of that name. Name one.")
    return {part: [table] for part, table in tables.items()}


def _check_distinct(parts: Mapping[str, set[str]], key: str) -> None:
    for first, second in (("train", "test"), ("validation", "test"), ("train", "validation")):
        shared = parts.get(first, set()) & parts.get(second, set())
        if shared:
            raise DataError(
                f"{key}.{first} and {key}.{second} both name {sorted(shared)[0]}. Each part needs rows of its own; "
                f"{key}.{second}_fraction holds rows out of train."
            )


def _chats(
    tables: Sequence[Table], key: str, role: Role, columns: Mapping[str, str], safe_responses: Sequence[str]
) -> tuple[Chat, ...]:
    found: list[Chat] = []
    for table in tables:
        picked = _picked(table, key, role, columns, bool(safe_responses))
        if len(table) == 0:
            raise DataError(f"{key}: {table.place} has no rows. Name a file or split that has some.")
        for row in range(len(table)):
            place = f"row {row} (counted from 0) of {table.place}"
            record = {name: values[row] for name, values in picked.items()}
            for messages, answers in _READ[role](record, key, place, safe_responses, len(found)):
                found.append(Chat(messages, answers, role, len(found), f"{key}: {place}"))
    return tuple(found)


def _picked(table: Table, key: str, role: Role, columns: Mapping[str, str], safe_given: bool) -> dict[str, list[Any]]:
    """The columns that are read, by what they hold."""
    names = {name: columns.get(name, name) for name in COLUMNS[role]}
    if role is Role.UTILITY:
        asked = columns.keys() & {"prompt", "response"}
        if asked and "messages" in columns:
            raise DataError(
                f"{key}.columns names messages and {sorted(asked)[0]}. Name messages, or prompt and response."
            )
        if "messages" in columns or (names["messages"] in table.columns and not asked):
            names = {"messages": names["messages"]}
        else:
            del names["messages"]
    if role is Role.ADVERSARIAL and safe_given:
        del names["safe"]
    if "system" in names and "system" not in columns and "system" not in table.columns:
        del names["system"]
    for name, column in names.items():
        if column not in table.columns:
            remedy = f", or {key}.safe_responses to a list of texts" if name == "safe" else ""
            remedy = (
                f", or {key}.columns.messages" if name in ("prompt", "response") and role is Role.UTILITY else remedy
            )
            raise DataError(
                f"{key}.columns.{name}: no column {column!r} in {table.place}; there are {', '.join(table.columns)}. "
                f"Set {key}.columns.{name} to one of them{remedy}."
            )
    return {name: table.columns[column] for name, column in names.items()}


Read = Callable[[Mapping[str, Any], str, str, Sequence[str], int], Iterator[tuple[tuple[Message, ...], dict[str, str]]]]


def _adversarial(
    record: Mapping[str, Any], key: str, place: str, safe_responses: Sequence[str], start: int
) -> Iterator[tuple[tuple[Message, ...], dict[str, str]]]:
    messages = _prompt(record, key, place)
    targets = _texts(record["target"], f"{key}.columns.target: {place}")
    safe = _texts(record["safe"], f"{key}.columns.safe: {place}") if "safe" in record else []
    for turn in range(max(len(targets), len(safe))):
        response = safe[turn % len(safe)] if safe else safe_responses[(start + turn) % len(safe_responses)]
        yield messages, {"harmful": targets[turn % len(targets)], "safe": response}


def _answered(
    record: Mapping[str, Any], key: str, place: str, safe_responses: Sequence[str], start: int
) -> Iterator[tuple[tuple[Message, ...], dict[str, str]]]:
    if "messages" in record:
        *messages, answer = _messages(record["messages"], f"{key}.columns.messages: {place}")
        yield tuple(messages), {"response": answer["content"]}
    else:
        response = _text(record["response"], f"{key}.columns.response: {place}")
        yield _prompt(record, key, place), {"response": response}


_READ: dict[Role, Read] = {Role.ADVERSARIAL: _adversarial, Role.UTILITY: _answered, Role.BORDERLINE: _answered}


def _prompt(record: Mapping[str, Any], key: str, place: str) -> tuple[Message, ...]:
    user = {"role": "user", "content": _text(record["prompt"], f"{key}.columns.prompt: {place}")}
    system = record.get("system")
    if system is None or system == "":
        return (user,)
    return {"role": "system", "content": _text(system, f"{key}.columns.system: {place}")}, user


def _messages(value: Any, where: str) -> list[Message]:
    if not isinstance(value, (list, tuple)) or not all(isinstance(turn, Mapping) for turn in value):
        raise DataError(f"{where} has {_shortened(value)}, which is no list of messages with role and content.")
    messages: list[Message] = []
    for number, turn in enumerate(value):
        at = f"{where}, message {number}"
        if turn.get("role") not in tuple(SEGMENTS):
            raise DataError(
                f"{at}, has the role {turn.get('role')!r}; roles are {', '.join(SEGMENTS)}. Correct or remove the row."
            )
        messages.append({"role": turn["role"], "content": _text(turn.get("content"), f"{at},")})
    roles = [message["role"] for message in messages]
    if roles[-1:] != ["assistant"] or roles[-2:-1] != ["user"]:
        raise DataError(
            f"{where} has the turns {', '.join(roles) or '(none)'}; the last must be the assistant's answer to a user. "
            "Correct or remove the row."
        )
    return [*messages[:-1], {"role": "assistant", "content": spelled(value[-1])}]


def _texts(value: Any, where: str) -> list[str]:
    if not isinstance(value, (list, tuple)):
        return [_text(value, where)]
    if not value:
        raise DataError(f"{where} has an empty list. Give it at least one text, or remove the row.")
    return [_text(text, f"{where}, entry {number},") for number, text in enumerate(value)]


def _text(value: Any, where: str) -> str:
    if not isinstance(value, str):
        raise DataError(f"{where} has {_shortened(value)}, which is not text. Correct or remove it.")
    if not value.strip():
        raise DataError(f"{where} is empty. Fill it in or remove it.")
    return value


def _hold_out(
    chats: tuple[Chat, ...], fraction: float, seed: int, key: str
) -> tuple[tuple[Chat, ...], tuple[Chat, ...]]:
    """The rows without and with the held-out share of the prompts."""
    contents = [tuple(message["content"] for message in chat.messages) for chat in chats]
    prompts = list(dict.fromkeys(contents))
    held = set(random.Random(f"{seed} {key}").sample(prompts, round(fraction * len(prompts))))
    if not held or len(held) == len(prompts):
        raise DataError(
            f"{key}_fraction: {fraction:g} of {len(prompts)} prompts leaves it or train empty. Change it, or "
            f"name {key}."
        )
    apart = [content in held for content in contents]
    kept = tuple(chat for chat, out in zip(chats, apart, strict=True) if not out)
    return kept, tuple(chat for chat, out in zip(chats, apart, strict=True) if out)


def _sample(chats: tuple[Chat, ...], rows: int | None, seed: int) -> tuple[Chat, ...]:
    if rows is None or rows >= len(chats):
        return chats
    return tuple(chats[i] for i in sorted(random.Random(seed).sample(range(len(chats)), rows)))


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
