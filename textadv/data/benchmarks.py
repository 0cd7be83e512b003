"""Files of public benchmarks, and the project's own lab files, as frozen records.

ARC (arXiv:1803.05457), MMLU (arXiv:2009.03300), TruthfulQA (arXiv:2109.07958), IFEval (arXiv:2311.07911) and GSM8K
(arXiv:2110.14168), each in the form its authors published, as the Hub has it (json, jsonl or parquet) and in the flat
forms that copies of it have. Every error is a DataError that names the file, the row and what is missing there.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from string import ascii_uppercase
from typing import Any

from textadv.data.characters import Surrogates, unbroken
from textadv.data.records import opened, records
from textadv.data.spellings import spelled
from textadv.data.text_files import suffix_of
from textadv.values.errors import DataError
from textadv.values.host.reading import literal_of

MMLU_COLUMNS = 6
RECORDS = (".json", ".jsonl", ".ndjson", ".parquet")
SPLITS = ("test", "dev", "val", "validation", "auxiliary", "train")


@dataclass(frozen=True)
class Question:
    """One multiple-choice question.

    true: the positions, in `choices`, of the right answers: one, or several in TruthfulQA's mc2.
    subject: MMLU's subject in words, otherwise "".
    """

    id: str
    question: str
    choices: tuple[str, ...]
    true: tuple[int, ...]
    subject: str = ""


@dataclass(frozen=True)
class Instruction:
    """What an answer must fulfil: an id such as "punctuation:no_comma", and its arguments by name."""

    id: str
    arguments: Mapping[str, Any]


@dataclass(frozen=True)
class Instructed:
    """One prompt and the instructions in it that code can check."""

    id: str
    prompt: str
    instructions: tuple[Instruction, ...]


def read_arc(path: str | Path, surrogates: Surrogates = "error") -> tuple[Question, ...]:
    """The questions of an ARC file.

    A row is {id, question: {stem, choices: [{text, label}]}, answerKey}, the Hub's {id, question, choices: {text: [],
    label: []}, answerKey} (question_stem in OpenBookQA), or flat {id, prompt, choices, answer_idx}. Without an id a
    row's is its number, from 0.
    """
    rows = enumerate(records(path))
    return tuple(unbroken(_arc_question(row, place, number), place, surrogates) for number, (place, row) in rows)


def _arc_question(row: dict[str, Any], place: str, number: int) -> Question:
    name = _name(row, "id", place) if "id" in row else str(number)
    if "answer_idx" in row:
        choices = _choices(row, "choices", place)
        true = _place(row["answer_idx"], choices)
        return _question(place, name, _text(row, "prompt", place), choices, [true])
    if isinstance(row.get("question"), str) and row["question"].lstrip().startswith("{"):
        row = row | {"question": _decoded(row["question"])}
    nested = isinstance(row.get("question"), dict)
    holder, within = (row["question"], f"{place}, question") if nested else (row, place)
    hub = "question_stem" if "question_stem" in holder else "question"
    question = _text(holder, "stem" if nested else hub, within)
    texts, labels = _labelled_choices(holder, within)
    key = _name(row, "answerKey", place)
    labels = labels if key in labels else [label.upper() for label in labels]
    key = key if key in labels else key.upper()
    if labels.count(key) != 1:
        raise DataError(f"{place}: answerKey {key!r} must name one of the choices {', '.join(labels)}.")
    return _question(place, name, question, texts, [labels.index(key)])


def _labelled_choices(row: dict[str, Any], place: str) -> tuple[list[str], list[str]]:
    """The texts and the labels of choices: one object for each, or one list for all texts and one for all labels."""
    choices = _decoded(row.get("choices"))
    if isinstance(choices, dict):
        texts, labels = (_choices(choices, name, f"{place}, choices") for name in ("text", "label"))
        if len(texts) != len(labels):
            raise DataError(f"{place}: choices has {len(texts)} texts and {len(labels)} labels.")
        return texts, [label.strip() for label in labels]
    parts = _list(row, "choices", place)
    if not all(isinstance(part, dict) and {"text", "label"} <= part.keys() for part in parts):
        raise DataError(f"{place}: each of choices needs text and label.")
    return [str(part["text"]) for part in parts], [str(part["label"]).strip() for part in parts]


def read_mmlu(path: str | Path, surrogates: Surrogates = "error") -> tuple[Question, ...]:
    """The questions of an MMLU file, or of all csv (or else other) files of a folder in the order of their names.

    A row of a csv file is question, four choices, answer, or has a header line with these names. The subject is the
    file's name without _dev, _val or _test.
    A row of other files, or of a csv file with these names, is the Hub's {question, subject, choices (or options, or
    A, B, C, D), answer}, the answer a letter, a number from 0, or one of the choices in full.
    """
    folder = Path(path)
    files = [folder]
    if folder.is_dir():
        inside = sorted(folder.iterdir())
        files = [file for file in inside if suffix_of(file) == ".csv"]
        files = files or [file for file in inside if suffix_of(file) in RECORDS]
        _require_one_split(folder, files)
    if not files:
        raise DataError(f"{folder}: there is no csv file in this folder, and none of {', '.join(RECORDS)}.")
    return tuple(question for file in files for question in _mmlu_file(file, surrogates))


def _require_one_split(folder: Path, files: Sequence[Path]) -> None:
    """DataError where a folder holds the questions that models are shown beside those that they are asked."""
    held: dict[tuple[str, ...], dict[str, str]] = {}
    for file in files:
        words = re.findall("[a-z]+", file.stem.lower())
        split = next((word for word in words if word in SPLITS), None)
        if split is not None:
            held.setdefault(tuple(word for word in words if word not in SPLITS), {})[split] = file.name
    mixed = next((names for names in held.values() if len(names) > 1), None)
    if mixed is not None:
        raise DataError(
            f"{folder}: this folder holds several splits, such as {' and '.join(mixed.values())}. Name a file, or a "
            "folder, of one split."
        )


def _mmlu_rows(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Rows of a csv file as the Hub's objects."""
    reader = csv.reader(io.StringIO(opened(path), newline=""), strict=True)
    try:
        rows = [(f"{path}:{reader.line_num}", row) for row in reader if row]
    except csv.Error as error:
        raise DataError(f"{path}: not readable as csv: {error}.") from error
    header = [name.strip().lower() for name in rows[0][1]] if rows else []
    named = {"question", "answer"} <= set(header) and bool({"choices", "options", "a"} & set(header))
    body = rows[1:] if named or header[:1] == ["question"] else rows
    if not body:
        raise DataError(f"{path}: there is no row in this file.")
    for place, row in body:
        if named:
            yield place, dict(zip(header, row, strict=False))
            continue
        if len(row) != MMLU_COLUMNS:
            raise DataError(f"{place}: expected question, four choices and answer, got {len(row)} fields.")
        yield place, {"question": row[0], "choices": row[1:-1], "answer": row[-1]}


def _mmlu_file(path: Path, surrogates: Surrogates) -> Iterator[Question]:
    name = path.stem.removesuffix("_test").removesuffix("_dev").removesuffix("_val")
    rows = records(path) if suffix_of(path) in RECORDS else _mmlu_rows(path)
    for number, (place, row) in enumerate(rows):
        subject = str(row.get("subject") or name)
        lettered = [letter for letter in ascii_uppercase if letter in row or letter.lower() in row]
        if "choices" not in row and "options" not in row and lettered[:2] == ["A", "B"]:
            row = row | {"choices": [row.get(letter, row.get(letter.lower())) for letter in lettered]}
        choices = _choices(row, "options" if "options" in row and "choices" not in row else "choices", place)
        if "answer" not in row:
            raise DataError(f"{place}: answer is missing; there are {', '.join(row)}.")
        true = _place(row["answer"], choices)
        question = _text(row, "question", place)
        found = _question(place, f"{subject}/{number}", question, choices, [true], subject.replace("_", " "))
        yield unbroken(found, place, surrogates)


def read_truthfulqa(path: str | Path, targets: str = "mc1", surrogates: Surrogates = "error") -> tuple[Question, ...]:
    """The questions of TruthfulQA: the authors' mc_task.json, or the Hub's rows of multiple_choice.

    A row is {question, mc1_targets, mc2_targets}, the targets {choice: 1 or 0} or {choices: [], labels: []}.
    targets: "mc1", one right answer among wrong ones, or "mc2", several right ones.
    """
    if targets not in ("mc1", "mc2"):
        raise ValueError(f'targets must be "mc1" or "mc2", got {targets!r}.')
    questions = []
    for number, (place, row) in enumerate(records(path)):
        if f"{targets}_targets" not in row and {"best_answer", "Best Answer"} & row.keys():
            raise DataError(
                f"{place}: these are TruthfulQA's rows of generation; there are {', '.join(row)}. Multiple choice "
                "needs those of the configuration multiple_choice, with mc1_targets and mc2_targets."
            )
        row = {key: _decoded(value) if key.endswith("_targets") else value for key, value in row.items()}
        answers = _field(row, f"{targets}_targets", dict, place)
        # Parquet files hold every row's choices in each row, null where they are another's.
        own = {choice: mark for choice, mark in answers.items() if mark is not None}
        choices, marks = [*own], [*own.values()]
        if answers.keys() == {"choices", "labels"}:
            within = f"{place}, {targets}_targets"
            choices, marks = _choices(answers, "choices", within), _list(answers, "labels", within)
        if len(choices) != len(marks):
            raise DataError(f"{place}: {targets}_targets has {len(choices)} choices and {len(marks)} labels.")
        true = [n for n, right in enumerate(marks) if right is True or spelled(right) == 1]
        if len(true) == len(marks) or (targets == "mc1" and len(true) != 1):
            raise DataError(f"{place}: {targets}_targets has {len(true)} right answers out of {len(marks)}.")
        found = _question(place, str(number), _text(row, "question", place), choices, true)
        questions.append(unbroken(found, place, surrogates))
    return tuple(questions)


def read_lab_questions(path: str | Path, surrogates: Surrogates = "error") -> tuple[Question, ...]:
    """The questions of a lab file (`facts_test.jsonl`): a line is {prompt, choices, answer}, the answer in words."""
    found = []
    for number, (place, row) in enumerate(records(path)):
        choices, answer = _choices(row, "choices", place), _text(row, "answer", place)
        true = [n for n, choice in enumerate(choices) if choice == answer]
        if len(true) != 1:
            raise DataError(f"{place}: the answer {answer!r} must be exactly one of the choices, got {choices}.")
        question = _question(place, str(row.get("id", number)), _text(row, "prompt", place), choices, true)
        found.append(unbroken(question, place, surrogates))
    return tuple(found)


QUESTION_READERS: dict[str, Callable[..., tuple[Question, ...]]] = {
    "arc": read_arc,
    "mmlu": read_mmlu,
    "lab": read_lab_questions,
    "truthfulqa_mc1": read_truthfulqa,
    "truthfulqa_mc2": partial(read_truthfulqa, targets="mc2"),
}


def read_instructed(path: str | Path, surrogates: Surrogates = "error") -> tuple[Instructed, ...]:
    """The prompts of an IFEval file, or of a lab file (`instructions_test.jsonl`, `facts_test.jsonl`).

    A row is {prompt, instruction_id_list, kwargs} with one kwargs object per instruction (null values are left out; the
    lists and objects may be JSON in text), {prompt, checks: [{id, kwargs}]}, or {prompt, answer}, which asks that the
    response contain the answer. `key` or `id`, where there is one, becomes the id; otherwise the row's number, from 0.
    """
    found = []
    for number, (place, row) in enumerate(records(path)):
        key = str(row.get("key", row.get("id", number)))
        asked = Instructed(key, _text(row, "prompt", place), tuple(_instructions(row, place)))
        found.append(unbroken(asked, place, surrogates))
    return tuple(found)


def _instructions(row: dict[str, Any], place: str) -> Iterator[Instruction]:
    if "checks" in row:
        parts = _list(row, "checks", place)
        if not all(isinstance(part, dict) and {"id", "kwargs"} <= part.keys() for part in parts):
            raise DataError(f"{place}: each of checks needs id and kwargs.")
        names, arguments = [part["id"] for part in parts], [part["kwargs"] for part in parts]
    elif "instruction_id_list" in row:
        names, arguments = _list(row, "instruction_id_list", place), _list(row, "kwargs", place)
    elif "answer" in row:
        names, arguments = ["keywords:existence"], [{"keywords": [_text(row, "answer", place)]}]
    else:
        raise DataError(f"{place}: instruction_id_list, checks or answer is missing; there are {', '.join(row)}.")
    if not names or len(names) != len(arguments):
        raise DataError(
            f"{place}: at least one instruction and kwargs for each are needed, got {len(names)} ids and "
            f"{len(arguments)} kwargs."
        )
    for name, given in zip(names, map(_decoded, arguments), strict=True):
        if given is not None and not isinstance(given, dict):
            raise DataError(f"{place}: the kwargs of {name} must be an object, got {given!r}.")
        known = {key: value for key, value in (given or {}).items() if value is not None}
        # A column of numbers with gaps holds 3.0 where 3 was written.
        whole = {key: int(value) for key, value in known.items() if isinstance(value, float) and value.is_integer()}
        yield Instruction(str(name), known | whole)


def _question(
    place: str, key: str, question: str, choices: Sequence[str], true: Sequence[Any], subject: str = ""
) -> Question:
    if not question.strip():
        raise DataError(f"{place}: the question is empty.")
    if len(choices) < 2 or not all(choice.strip() for choice in choices):
        raise DataError(f"{place}: at least two choices with text are needed, got {list(choices)}.")
    inside = [n for n in true if isinstance(n, int) and not isinstance(n, bool) and 0 <= n < len(choices)]
    if not inside or len(inside) < len(true):
        hint = " It is kept back, as it seems: name a split that has its answers." if true in ([None], [-1]) else ""
        hint = " Choices are counted from 0." if true == [len(choices)] else hint
        raise DataError(f"{place}: the right answer must be one of the {len(choices)} choices, got {list(true)}.{hint}")
    return Question(key, question, tuple(choices), tuple(inside), subject)


def _place(answer: Any, choices: Sequence[str]) -> Any:
    """The position of the right answer: a letter's, a number from 0, or that of the choice which it is in full."""
    said = spelled(answer)
    letter = ascii_uppercase.find(said.upper()) if isinstance(said, str) and len(said) == 1 else -1
    if 0 <= letter < len(choices):
        return letter
    if isinstance(answer, str) and not isinstance(said, int) and [*choices].count(answer) == 1:
        return choices.index(answer)
    return said


def _field(row: dict[str, Any], name: str, kind: type, place: str) -> Any:
    if name not in row:
        raise DataError(f"{place}: {name} is missing; there are {', '.join(row) or 'no keys'}.")
    if not isinstance(row[name], kind):
        raise DataError(f"{place}: {name} must be {kind.__name__}, got {row[name]!r}.")
    return row[name]


def _text(row: dict[str, Any], name: str, place: str) -> str:
    value: str = _field(row, name, str, place)
    if not value.strip():
        raise DataError(f"{place}: {name} is empty.")
    return value


def _name(row: dict[str, Any], name: str, place: str) -> str:
    """A text, or a number as one."""
    value = spelled(row.get(name)) if isinstance(row.get(name), float) else row.get(name)
    return str(value) if isinstance(value, int) else _text(row, name, place).strip()


def _list(row: dict[str, Any], name: str, place: str) -> list[Any]:
    value: list[Any] = _field(row | {name: _decoded(row[name])} if name in row else row, name, list, place)
    return value


def _choices(row: dict[str, Any], name: str, place: str) -> list[str]:
    """A list of texts; what is null is empty."""
    return ["" if choice is None else str(choice) for choice in _list(row, name, place)]


def _decoded(value: Any) -> Any:
    """The list or object that a text writes, as JSON or as Python does; anything else as it is."""
    if not isinstance(value, str):
        return value
    try:
        return literal_of(value)
    except ValueError:
        return value
