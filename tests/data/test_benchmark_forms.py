"""Benchmarks as the Hub has them, in json, jsonl and parquet: the same questions as in their authors' form."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.parquet
import pytest

from textadv.data import DataError
from textadv.data.benchmarks import (
    Instruction,
    Question,
    read_arc,
    read_instructed,
    read_lab_questions,
    read_mmlu,
    read_truthfulqa,
)

Rows = Sequence[dict[str, Any]]


def as_lines(path: Path, rows: Rows) -> None:
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\r\n" for row in rows), encoding="utf-8")


WRITERS: dict[str, Callable[[Path, Rows], object]] = {
    ".jsonl": as_lines,
    ".ndjson": as_lines,
    ".json": lambda path, rows: path.write_text(json.dumps(rows), encoding="utf-16"),
    ".jsonl.gz": lambda path, rows: path.write_bytes(gzip.compress("\n".join(map(json.dumps, rows)).encode())),
    ".parquet": lambda path, rows: pyarrow.parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path),
}


@pytest.fixture(params=WRITERS)
def write(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Rows], Path]:
    """Writes rows in one of the forms."""

    def written(rows: Rows) -> Path:
        path = tmp_path / f"rows{request.param}"
        WRITERS[request.param](path, rows)
        return path

    return written


Write = Callable[[Rows], Path]
TEXTS = ["ash", "ice", "fog\u2028bank", "None", "v"]


def test_arc(write: Write) -> None:
    keys = [(list("ABCD"), "C"), (["1", "2", "3", "4"], "2"), (["A", "B", "C"], "A"), (list("ABCDE"), "E")]
    rows = [
        {
            "id": f"Q{n}",
            "question": f"What {n}?",
            "choices": {"text": TEXTS[: len(labels)], "label": labels},
            "answerKey": key,
        }
        for n, (labels, key) in enumerate(keys)
    ]
    wanted = [
        Question(f"Q{n}", f"What {n}?", tuple(TEXTS[: len(labels)]), (labels.index(key),))
        for n, (labels, key) in enumerate(keys)
    ]
    assert list(read_arc(write(rows))) == wanted
    flat = [
        {**row, "choices": [{"text": t, "label": k} for t, k in zip(*row["choices"].values(), strict=True)]}
        for row in rows
    ]
    assert list(read_arc(write(flat))) == wanted
    own = [
        {"id": r["id"], "question": {"stem": r["question"], "choices": r["choices"]}, "answerKey": r["answerKey"]}
        for r in flat
    ]
    assert list(read_arc(write(own))) == wanted


@pytest.mark.parametrize("answers", [[0, 3], ["A", "D"], ["0", "3"], [0.0, 3.0]])
def test_mmlu(write: Write, answers: list[Any]) -> None:
    rows = [
        {"question": f"What {n}?", "subject": "college_physics", "choices": TEXTS[:4], "answer": answer}
        for n, answer in enumerate(answers)
    ]
    wanted = tuple(
        Question(f"college_physics/{n}", f"What {n}?", tuple(TEXTS[:4]), (true,), "college physics")
        for n, true in enumerate((0, 3))
    )
    path = write(rows)
    assert read_mmlu(path) == read_mmlu(path.parent) == wanted


def test_mmlu_with_declared_answers_and_as_a_csv_file_of_lists(tmp_path: Path) -> None:
    features = datasets.Features(
        {
            "question": datasets.Value("string"),
            "subject": datasets.Value("string"),
            "choices": datasets.List(datasets.Value("string")),
            "answer": datasets.ClassLabel(names=["A", "B", "C", "D"]),
        }
    )
    rows = {"question": ["What?"], "subject": ["anatomy"], "choices": [["a, b", "it's", "c", "d"]], "answer": [1]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(str(tmp_path / "test.parquet"))
    wanted = (Question("anatomy/0", "What?", ("a, b", "it's", "c", "d"), (1,), "anatomy"),)
    assert read_mmlu(tmp_path / "test.parquet") == wanted
    for written in ('"[""a, b"", ""it\'s"", ""c"", ""d""]"', "\"['a, b', \"\"it's\"\", 'c', 'd']\""):
        (tmp_path / "test.csv").write_text(f"question,subject,choices,answer\nWhat?,anatomy,{written},1\n")
        assert read_mmlu(tmp_path / "test.csv") == read_mmlu(tmp_path) == wanted
    (tmp_path / "test.csv").write_text("question,subject,choices,answer\nWhat?,anatomy,\"['a' 'b' 'c' 'd']\",1\n")
    with pytest.raises(DataError, match=r"test.csv:2: at least two choices with text are needed, got \['abcd'\]"):
        read_mmlu(tmp_path)


def test_truthfulqa(write: Write) -> None:
    rows = [
        {
            "question": "Why?",
            "mc1_targets": {"choices": ["so", "no"], "labels": [1, 0]},
            "mc2_targets": {"choices": ["no", "so", "thus"], "labels": [0, 1, 1]},
        }
    ] * 2
    path = write(rows)
    assert read_truthfulqa(path) == tuple(Question(str(n), "Why?", ("so", "no"), (0,)) for n in range(2))
    assert read_truthfulqa(path, "mc2")[1] == Question("1", "Why?", ("no", "so", "thus"), (1, 2))


def test_the_lab(write: Write) -> None:
    fact = {"prompt": "Where is Ada?", "answer": "Penrith", "choices": ["Oslo", "Penrith"]}
    assert read_lab_questions(write([fact])) == (Question("0", "Where is Ada?", ("Oslo", "Penrith"), (1,)),)


@pytest.mark.parametrize(
    "spell", [lambda kwargs: kwargs, json.dumps, lambda kwargs: [json.dumps(one) for one in kwargs]]
)
def test_ifeval(write: Write, spell: Callable[[Any], Any]) -> None:
    kwargs = [{"num_words": None, "relation": None}, {"num_words": 300.0, "relation": "at least"}]
    names = ["punctuation:no_comma", "length_constraints:number_words"]
    rows = [{"key": 1000, "prompt": "Say it.", "instruction_id_list": names, "kwargs": spell(kwargs)}]
    (found,) = read_instructed(write(rows))
    assert (found.id, found.prompt) == ("1000", "Say it.")
    assert found.instructions == (
        Instruction("punctuation:no_comma", {}),
        Instruction("length_constraints:number_words", {"num_words": 300, "relation": "at least"}),
    )
    assert isinstance(found.instructions[1].arguments["num_words"], int)


def asked(texts: list[str | None], answer: Any, **labels: list[str]) -> dict[str, Any]:
    """A row of ARC as the Hub has it."""
    return {"id": "a", "question": "q", "choices": {"text": texts, **labels}, "answerKey": answer}


def of_mmlu(**answer: Any) -> dict[str, Any]:
    return {"question": "q", "choices": ["a", "b"], **answer}


TWO = ["A", "B"]
UNFIT: list[tuple[Any, dict[str, Any], str]] = [
    (read_arc, asked(["x"], "A", label=TWO), "choices has 1 texts and 2 labels."),
    (read_arc, asked(["x", None], "A", label=TWO), "at least two choices with text"),
    (read_arc, asked(["x", "y"], "A"), "choices: label is missing; there are text."),
    (read_arc, asked(["x", "y"], "1", label=TWO), "answerKey '1' must name one of the choices A, B."),
    (read_mmlu, of_mmlu(answer=2), "the right answer must be one of the 2 choices, got [2]."),
    (read_mmlu, of_mmlu(answer=None), "the right answer must be one of the 2 choices"),
    (read_mmlu, of_mmlu(), "answer is missing; there are question, choices."),
    (read_mmlu, {"question": "q", "others": ["a", "b"]}, "choices is missing; there are question, others."),
    (read_truthfulqa, {"mc1_targets": {"choices": ["a"], "labels": [1, 0]}}, "mc1_targets has 1 choices and 2 labels."),
    (read_instructed, {"prompt": "p", "instruction_id_list": ["a"], "kwargs": ["no"]}, "must be an object, got 'no'."),
]


@pytest.mark.parametrize(("read", "row", "told"), UNFIT, ids=[told for _, _, told in UNFIT])
def test_errors_name_file_row_and_what_is_missing(tmp_path: Path, read: Any, row: dict[str, Any], told: str) -> None:
    for ending, place in ((".jsonl", ":1"), (".json", ", entry 0"), (".parquet", ", row 0")):
        path = tmp_path / f"x{ending}"
        WRITERS[ending](path, [row])
        with pytest.raises(DataError) as caught:
            read(path)
        assert str(caught.value).startswith(f"{path}{place}") and told in str(caught.value)


def test_files_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"nothing")
    (tmp_path / "empty.json").write_text("[]")
    for name, told in (
        ("x.parquet", "cannot be read as .parquet"),
        ("none.parquet", "cannot be opened"),
        ("empty.json", "there is no row in this file"),
    ):
        with pytest.raises(DataError, match=told):
            read_arc(tmp_path / name)


# ---- answers, choices and files as others write them


ANSWERS: dict[str, tuple[list[str], Any, int]] = {
    "a number": (["x", "y", "z"], 1, 1),
    "a number with a point": (["x", "y", "z"], 1.0, 1),
    "a number in text": (["x", "y", "z"], "1", 1),
    "a letter": (["x", "y", "z"], "B", 1),
    "a small letter": (["x", "y", "z"], " b", 1),
    "a letter before the same text": (["B", "A", "z"], "B", 1),
    "in full": (["four", "five", "six"], "five", 1),
    "in full, a letter beyond": (["x", "y", "z"], "y", 1),
}


@pytest.mark.parametrize(("choices", "answer", "true"), ANSWERS.values(), ids=ANSWERS)
def test_answers_in_every_spelling(tmp_path: Path, choices: list[str], answer: Any, true: int) -> None:
    for row in ({"choices": choices}, {"options": choices}, dict(zip("ABC", choices, strict=True))):
        as_lines(tmp_path / "s.jsonl", [{"question": "q", "answer": answer} | row])
        assert read_mmlu(tmp_path / "s.jsonl") == (Question("s/0", "q", tuple(choices), (true,), "s"),)
    as_lines(tmp_path / "a.jsonl", [{"prompt": "q", "choices": choices, "answer_idx": answer}])
    assert read_arc(tmp_path / "a.jsonl") == (Question("0", "q", tuple(choices), (true,)),)


KEYS: dict[str, tuple[list[Any], Any]] = {
    "small": (["A", "B"], "b"),
    "numbers": ([1, 2], 2),
    "a point": (["1", "2"], 2.0),
    "text of numbers": (["1", "2"], "2"),
}


@pytest.mark.parametrize(("labels", "key"), KEYS.values(), ids=KEYS)
def test_keys_of_arc_in_every_spelling(tmp_path: Path, labels: list[Any], key: Any) -> None:
    choices = {"text": ["x", "y"], "label": labels}
    for name, given in (("question", choices), ("question_stem", json.dumps(choices))):
        as_lines(tmp_path / "a.jsonl", [{"id": "i", name: "q", "choices": given, "answerKey": key}])
        assert read_arc(tmp_path / "a.jsonl") == (Question("i", "q", ("x", "y"), (1,)),)


def test_csv_and_objects_that_hold_rows(tmp_path: Path) -> None:
    choices = "\"{'text': ['x', 'y'], 'label': ['A', 'B']}\""
    (tmp_path / "a.csv").write_text(f"id,question,choices,answerKey\ni,q,{choices},B\n")
    assert read_arc(tmp_path / "a.csv") == (Question("i", "q", ("x", "y"), (1,)),)
    row = {"question": "q", "choices": ["x", "y"], "answer": 1}
    for content in (
        {"data": [row]},
        {"rows": [{"row_idx": 0, "row": row}]},
        {key: [value] for key, value in row.items()},
    ):
        (tmp_path / "s.json").write_text(json.dumps(content))
        assert read_mmlu(tmp_path / "s.json") == (Question("s/0", "q", ("x", "y"), (1,), "s"),)
    (tmp_path / "s.csv").write_text("Question,A,B,C,D,Answer\nq,w,x,y,z,B\n")
    assert read_mmlu(tmp_path / "s.csv") == (Question("s/0", "q", ("w", "x", "y", "z"), (1,), "s"),)


def test_a_folder_of_several_splits_is_refused(tmp_path: Path) -> None:
    row = {"question": "q", "choices": ["x", "y"], "answer": 1, "subject": "s"}
    for name in ("test-00000-of-00001", "dev-00000-of-00001"):
        as_lines(tmp_path / f"{name}.jsonl", [row])
    with pytest.raises(
        DataError, match="holds several splits, such as dev-.* and test-.*Name a file, or a folder, of one"
    ):
        read_mmlu(tmp_path)
    (tmp_path / "dev-00000-of-00001.jsonl").unlink()
    assert len(read_mmlu(tmp_path)) == 1


def test_parquet_does_not_give_a_row_the_choices_of_others(tmp_path: Path) -> None:
    rows = [{"question": f"q{n}", "mc1_targets": {f"right {n}": 1, f"wrong {n}": 0}} for n in range(3)]
    WRITERS[".parquet"](tmp_path / "x.parquet", rows)
    found = read_truthfulqa(tmp_path / "x.parquet")
    assert [question.choices for question in found] == [(f"right {n}", f"wrong {n}") for n in range(3)]
    marked = {"question": "q", "mc1_targets": json.dumps({"choices": ["a", "b"], "labels": ["0", "1"]})}
    as_lines(tmp_path / "x.jsonl", [marked])
    assert read_truthfulqa(tmp_path / "x.jsonl")[0].true == (1,)


TOLD: dict[str, tuple[Any, dict[str, Any], str]] = {
    "kept back": (read_mmlu, of_mmlu(answer=-1), "got [-1]. It is kept back, as it seems: name a split that has its"),
    "counted from one": (read_mmlu, of_mmlu(answer=2), "got [2]. Choices are counted from 0."),
    "generation": (
        read_truthfulqa,
        {"question": "q", "best_answer": "a"},
        "needs those of the configuration multiple_",
    ),
}


@pytest.mark.parametrize(("read", "row", "told"), TOLD.values(), ids=TOLD)
def test_what_to_do_is_said(tmp_path: Path, read: Any, row: dict[str, Any], told: str) -> None:
    as_lines(tmp_path / "x.jsonl", [row])
    with pytest.raises(DataError) as caught:
        read(tmp_path / "x.jsonl")
    assert told in str(caught.value)
