"""The three streams of chats: adversarial, utility and borderline; their records, files, columns, splits and checks.

Everything wrong with the data is said here, before a model is loaded, in the keys under data.adversarial, data.utility
and data.borderline.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from operator import ne
from pathlib import Path
from typing import Any, NamedTuple

from textadv.data.characters import Surrogates, replaced_note, unbroken
from textadv.data.chat_columns import COLUMNS, HISTORY, WANTED, picked
from textadv.data.chat_forms import (
    Answered,
    answer_texts,
    answered,
    answered_chat,
    earlier_turns,
    empty,
    prompt_messages,
    text,
)
from textadv.data.classification import FILES, Source, check_sizes, listed, split_names
from textadv.data.hub import read_hub, unread
from textadv.data.rendering import Message
from textadv.data.tables import Table, read_files
from textadv.values.batch import Role
from textadv.values.errors import DataError

PARTS = ("train", "validation", "test")
MEDIA = {"image", "images", "video", "videos", "audio", "audios"}


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

    @property
    def request(self) -> str:
        """What the user says in all turns, a line each."""
        return "\n".join(turn["content"] for turn in self.messages if turn["role"] == "user")

    @property
    def conversation(self) -> str:
        """All turns as one text, for judges and readers; of a chat of one turn, the user's, that turn alone."""
        if len(self.messages) == 1:
            return self.prompt
        return "\n\n".join(f"{turn['role'].capitalize()}: {turn['content']}" for turn in self.messages)


@dataclass(frozen=True)
class ChatSplits:
    """Train, validation and test rows of one stream; validation and test may be empty.

    notes: what reading did that whoever trusts the numbers must know, a sentence each.
    """

    train: tuple[Chat, ...]
    validation: tuple[Chat, ...]
    test: tuple[Chat, ...]
    notes: tuple[str, ...] = ()


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
    validation_columns: Mapping[str, str] | None = None,
    test_columns: Mapping[str, str] | None = None,
    safe_responses: Sequence[str] = (),
    train_rows: int | None = None,
    validation_rows: int | None = None,
    test_rows: int | None = None,
    surrogates: Surrogates = "error",
    seed: int = 0,
) -> ChatSplits:
    """The train, validation and test rows of one stream, checked.

    role: Role.ADVERSARIAL, UTILITY or BORDERLINE: which stream; errors name the keys under `data.` + its name.
    name: "files" (then train, validation and test are paths to csv, tsv, json, jsonl or parquet files, one or several
        each); or a Hub data set (then they are its split names; config: its configuration).
    validation_fraction, test_fraction: the share of the train prompts that is held out where there is no such file or
        split, drawn by `seed`; all rows of a prompt go to one part. Nothing is ever held out of test.
    columns: the column of prompt, target, safe, input, response, messages or system, where its name is another;
        validation_columns, test_columns: those of that part, where they differ. See `chat_columns` for the names that
        are known, and `chat_forms` for what prompts, answers and messages may be.
        A target or safe cell may be a list of texts. Row k of such a prompt has target k and safe response k, the
        shorter list starting again: as many rows as the longer list has texts, not one for each combination.
    safe_responses: the safe responses, in place of a column of them; row i has response i modulo their number.
    train_rows, validation_rows, test_rows: at most so many rows, drawn by `seed`, in the order of the source.
    surrogates: half characters (lone surrogates) are an error, or U+FFFD is put in their place, with a note.

    Raises DataError, naming the key to change and, for a row, its number and place.
    """
    key = f"data.{role.name.lower()}"
    rows = {"train": train_rows, "validation": validation_rows, "test": test_rows}
    fractions = {"test": test_fraction, "validation": validation_fraction}
    named = {part: (f"{key}.columns", columns or {}) for part in PARTS}
    for part, own in (("validation", validation_columns), ("test", test_columns)):
        if own is not None:
            named[part] = (f"{key}.{part}_columns", own)
    _check_options(role, key, rows, fractions, named.values(), safe_responses)
    tables = _read(key, name, config, {"train": train, "validation": validation, "test": test})
    if "test" in tables and test_fraction > 0:
        raise DataError(f"{key}.test and {key}.test_fraction ({test_fraction}) are both set. Remove one of them.")
    for part, (at, _) in named.items():
        if part not in tables and at != f"{key}.columns":
            raise DataError(f"{at} names columns of {key}.{part}, which is not set. Remove it.")
    found = {part: _chats(given, key, *named[part], role, safe_responses) for part, given in tables.items()}
    parts = {part: tuple(_whole(chat, surrogates) for chat in read.chats) for part, read in found.items()}
    changed = {part: sum(map(ne, read.chats, parts[part])) for part, read in found.items()}
    for part, fraction in fractions.items():
        if part not in parts and fraction > 0:
            share = fraction if part == "test" else fraction / (1 - test_fraction)
            parts["train"], parts[part] = _hold_out(parts["train"], share, seed, f"{key}.{part}")
    notes = [*(note for read in found.values() for note in read.notes), *replaced_note(key, changed)]
    sampled = {part: _sample(parts.get(part, ()), rows[part], seed) for part in PARTS}
    left = [] if name == FILES else [re.sub(r"^data\.", f"{key}.", note) for note in unread(name, config)]
    return ChatSplits(**sampled, notes=(*left, *notes))


def _check_options(
    role: Role,
    key: str,
    rows: Mapping[str, int | None],
    fractions: Mapping[str, float],
    columns: Iterable[tuple[str, Mapping[str, str]]],
    safe_responses: Sequence[str],
) -> None:
    check_sizes(rows, key)
    for part, fraction in fractions.items():
        if not 0 <= fraction < 1:
            raise DataError(f"{key}.{part}_fraction must be at least 0 and below 1, got {fraction}.")
    if sum(fractions.values()) >= 1:
        raise DataError(
            f"{key}.validation_fraction and {key}.test_fraction must leave rows to train on, got "
            f"{fractions['validation']} and {fractions['test']}."
        )
    for at, names in columns:
        unknown = sorted(set(names) - set(COLUMNS[role]))
        if unknown:
            raise DataError(f"{at}.{unknown[0]} is not known; there are {', '.join(COLUMNS[role])}.")
        if safe_responses and "safe" in names:
            raise DataError(f"{key}.safe_responses and {at}.safe are both set. Remove one of them.")
    if isinstance(safe_responses, str):
        raise DataError(f"{key}.safe_responses must be a list of texts, got {safe_responses!r}. Write it as a list.")
    for number, response in enumerate(safe_responses):
        text(response, f"{key}.safe_responses: entry {number} (counted from 0)")


def _read(key: str, name: str, config: str | None, sources: Mapping[str, Source | None]) -> dict[str, list[Table]]:
    """The tables of each part, one for each file."""
    if name == FILES:
        files = listed(sources)
        for part, paths in {"train": [], **files}.items():
            if not paths:
                raise DataError(f"{key}.{part}: no file named. Name one of chats.")
        _check_distinct({part: {str(Path(path).resolve()) for path in paths} for part, paths in files.items()}, key)
        return {part: [read_files([path], None, f"{key}.{part}") for path in paths] for part, paths in files.items()}
    wanted = split_names(sources, key)
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


class _Read(NamedTuple):
    """The chats of one part; notes: what was left out, a sentence each."""

    chats: tuple[Chat, ...]
    notes: tuple[str, ...]


def _chats(
    tables: Sequence[Table],
    key: str,
    at: str,
    columns: Mapping[str, str],
    role: Role,
    safe_responses: Sequence[str],
) -> _Read:
    """The chats of all tables. at: the configuration key of `columns`."""
    found: list[Chat] = []
    notes: list[str] = []
    for table in tables:
        given = picked(table, at, role, columns, bool(safe_responses))
        if len(table) == 0:
            raise DataError(f"{key}: {table.place} has no rows. Name a file or split that has some.")
        places = [f"row {row} (counted from 0) of {table.place}" for row in range(len(table))]
        records = [{name: values[row] for name, values in given.values.items()} for row in range(len(table))]
        notes += _unread(table, key)
        if role is Role.ADVERSARIAL:
            for record, place in zip(records, places, strict=True):
                for messages, answers in _adversarial(record, at, place, safe_responses, len(found)):
                    found.append(Chat(messages, answers, role, len(found), f"{key}: {place}"))
            continue
        read = [_answered(record, at, place) for record, place in zip(records, places, strict=True)]
        notes += [f"{key}: {note}" for note in _left_out(read, given.instructions, table.place, key)]
        for chat, place in zip(read, places, strict=True):
            if chat.answer is not None:
                answers = {"response": chat.answer}
                found.append(Chat(chat.messages, answers, role, len(found), f"{key}: {place}"))
    return _Read(tuple(found), tuple(notes))


def _left_out(chats: Sequence[Answered], instructions: bool, place: str, key: str) -> Iterator[str]:
    """Notes on rows of instructions without an output, and on turns that nobody answers.

    Raises DataError for rows without an answer where they are no instructions, or half of all or more.
    """
    bare = [chat.problem for chat in chats if chat.answer is None and not chat.unwanted]
    unwanted = sum(chat.unwanted for chat in chats)
    if unwanted == len(chats):
        raise DataError(f"{key}: no answer in {place} is to be learned, by its label or weight. Name other rows.")
    if bare and not (instructions and 2 * len(bare) < len(chats)):
        raise DataError(f"{bare[0]} Without an answer are {len(bare)} of {len(chats)} rows.")
    if bare:
        yield f"{len(bare)} of {len(chats)} rows of {place} have no output and are left out."
    if unwanted:
        yield (
            f"{unwanted} of {len(chats)} rows of {place} say that their answer is not to be learned (label: false, "
            "weight: 0 or train: false), and are left out."
        )
    passed_over = sum(chat.passed_over for chat in chats)
    if passed_over:
        yield (
            f"{passed_over} of {len(chats)} rows of {place} end with an answer that is not to be learned (weight: 0 or "
            "train: false); the last one that is stands as the answer."
        )
    cut = sum(chat.cut for chat in chats)
    if cut:
        yield (
            f"{cut} of {len(chats)} rows of {place} end with a turn of the user that has no answer, and that turn is "
            "left out."
        )


def _unread(table: Table, key: str) -> Iterator[str]:
    """A note on tools that are offered; DataError for rows with images, sounds or films, of which only text is read."""
    for column in MEDIA & table.columns.keys():
        row = next((row for row, value in enumerate(table.columns[column]) if not _is_nothing(value)), None)
        if row is not None:
            raise DataError(
                f"{key}: row {row} (counted from 0) of {table.place} has something in its column {column!r}, and only "
                "text is read. Remove such rows, or the column where the texts do without it."
            )
    offered = sum(not _is_nothing(value) for value in table.columns.get("tools", []))
    if offered:
        yield f"{key}: {offered} of {len(table)} rows of {table.place} offer tools, which no prompt here tells of."


def _is_nothing(value: object) -> bool:
    """Whether a cell holds null, not-a-number, or an empty text or list."""
    return value is None or value != value or str(value).strip() in ("", "[]", "{}")


def _adversarial(
    record: Mapping[str, Any], at: str, place: str, safe_responses: Sequence[str], start: int
) -> Iterator[tuple[tuple[Message, ...], dict[str, str]]]:
    messages = _with_system(prompt_messages(record["prompt"], f"{at}.prompt: {place}"), record, at, place)
    targets = answer_texts(record["target"], f"{at}.target: {place}")
    safe = answer_texts(record["safe"], f"{at}.safe: {place}") if "safe" in record else []
    for turn in range(max(len(targets), len(safe))):
        response = safe[turn % len(safe)] if safe else safe_responses[(start + turn) % len(safe_responses)]
        yield messages, {"harmful": targets[turn % len(targets)], "safe": response}


def _answered(record: Mapping[str, Any], at: str, place: str) -> Answered:
    if "messages" in record:
        chat = answered_chat(record["messages"], f"{at}.messages: {place}")
        return chat if chat.answer is None else chat._replace(messages=_with_system(chat.messages, record, at, place))
    if record.get(WANTED) is False:
        return Answered((), None, unwanted=True)
    found = answered(record["prompt"], record["response"], (f"{at}.prompt: {place}", f"{at}.response: {place}"))
    more = f"{at}.input: {place}"
    messages = found.messages
    if not empty(record.get("input"), more):
        asked = f"{messages[-1]['content']}\n\n{text(record['input'], more)}"
        messages = (*messages[:-1], {"role": "user", "content": asked})
    messages = (*earlier_turns(record.get(HISTORY), f"{at}.prompt: the history of {place}"), *messages)
    return found._replace(messages=_with_system(messages, record, at, place))


def _with_system(messages: tuple[Message, ...], record: Mapping[str, Any], at: str, place: str) -> tuple[Message, ...]:
    """The messages after the row's system text, where it has one."""
    where = f"{at}.system: {place}"
    if empty(record.get("system"), where):
        return messages
    if messages[0]["role"] == "system" and messages[0]["content"].strip() == str(record["system"]).strip():
        return messages
    if messages[0]["role"] == "system":
        raise DataError(f"{where} has a system text, and the prompt has one as well. Remove one of them.")
    return {"role": "system", "content": text(record["system"], where)}, *messages


def _whole(chat: Chat, surrogates: Surrogates) -> Chat:
    """The chat without half characters."""
    messages = unbroken(chat.messages, f"{chat.place}", surrogates)
    answers = {name: unbroken(text, f"{chat.place}, {name},", surrogates) for name, text in chat.answers.items()}
    return replace(chat, messages=messages, answers=answers)


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
