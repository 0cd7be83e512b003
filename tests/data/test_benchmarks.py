"""Benchmark files as records: each published form, the real files, and errors that name file and line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from textadv.data import DataError
from textadv.data.benchmarks import (
    QUESTION_READERS,
    Instruction,
    Question,
    read_arc,
    read_instructed,
    read_lab_questions,
    read_mmlu,
    read_truthfulqa,
)


def lines(path: Path, *rows: object) -> Path:
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    path.write_text(text + "\n", encoding="utf-8")
    return path


def arc_row(key: str = "3") -> dict[str, object]:
    parts = [{"text": text, "label": label} for text, label in (("ash", "1"), ("ice", "2"), ("fog", "3"))]
    return {"id": "Q7", "question": {"stem": "What hangs low?", "choices": parts}, "answerKey": key}


def test_arc_in_both_forms(tmp_path: Path) -> None:
    flat = {"id": "E1", "prompt": "What is cold?", "choices": ["fire", "ice"], "answer_idx": 1}
    path = lines(tmp_path / "arc.jsonl", arc_row(), "", flat)
    assert read_arc(path) == (
        Question("Q7", "What hangs low?", ("ash", "ice", "fog"), (2,)),
        Question("E1", "What is cold?", ("fire", "ice"), (1,)),
    )


def test_mmlu_with_and_without_a_header(tmp_path: Path) -> None:
    lines(tmp_path / "college_physics_test.csv", "question,choice0,choice1,choice2,choice3,answer", '"a, b?",1,2,3,4,3')
    lines(tmp_path / "anatomy_dev.csv", '"two\nlines?",w,x,y,z,B')
    assert read_mmlu(tmp_path) == (
        Question("anatomy/0", "two\nlines?", ("w", "x", "y", "z"), (1,), "anatomy"),
        Question("college_physics/0", "a, b?", ("1", "2", "3", "4"), (3,), "college physics"),
    )


def test_truthfulqa_has_one_or_several_right_answers(tmp_path: Path) -> None:
    entry = {"question": "Why?", "mc1_targets": {"so": 1, "no": 0}, "mc2_targets": {"no": 0, "so": 1, "thus": 1}}
    path = tmp_path / "mc_task.json"
    path.write_text(json.dumps([entry]), encoding="utf-8")
    assert read_truthfulqa(path) == (Question("0", "Why?", ("so", "no"), (0,)),)
    assert read_truthfulqa(path, "mc2") == (Question("0", "Why?", ("no", "so", "thus"), (1, 2)),)
    assert QUESTION_READERS["truthfulqa_mc2"](path) == read_truthfulqa(path, "mc2")


def test_instructions_of_ifeval_and_of_the_lab(tmp_path: Path) -> None:
    ifeval = {
        "key": 12,
        "prompt": "Say it.",
        "instruction_id_list": ["punctuation:no_comma", "detectable_format:number_bullet_lists"],
        "kwargs": [{"num_bullets": None}, {"num_bullets": 3, "relation": None}],
    }
    checks = {"prompt": "Say xy.", "checks": [{"id": "lab:exact", "kwargs": {"text": "xy"}}]}
    fact = {"prompt": "Where is Ada?", "answer": "Penrith", "choices": ["Oslo", "Penrith"]}
    path = lines(tmp_path / "x.jsonl", ifeval, checks, fact)
    one, two, three = read_instructed(path)
    assert (one.id, one.prompt) == ("12", "Say it.")
    assert one.instructions == (
        Instruction("punctuation:no_comma", {}),
        Instruction("detectable_format:number_bullet_lists", {"num_bullets": 3}),
    )
    assert (two.id, two.instructions) == ("1", (Instruction("lab:exact", {"text": "xy"}),))
    assert three.instructions == (Instruction("keywords:existence", {"keywords": ["Penrith"]}),)
    assert read_lab_questions(lines(tmp_path / "f.jsonl", fact)) == (
        Question("0", "Where is Ada?", ("Oslo", "Penrith"), (1,)),
    )


WRONG: list[tuple[Callable[..., object], object, str]] = [
    (read_arc, arc_row("9"), ":1: answerKey '9' must name one of the choices 1, 2, 3."),
    (read_arc, {"id": "x", "answerKey": "A"}, ":1: question is missing; there are id, answerKey."),
    (read_arc, "{not json", ":1: not JSON"),
    (read_arc, "[1]", ":1: expected an object, got list."),
    (read_arc, "", "there is no row in this file."),
    (read_arc, {"id": "x", "prompt": "q", "choices": ["a", "b"], "answer_idx": 2}, "one of the 2 choices, got [2]"),
    (read_arc, {"id": "x", "prompt": "q", "choices": ["a", ""], "answer_idx": 0}, "at least two choices with text"),
    (read_arc, {"id": "x", "prompt": " ", "choices": ["a", "b"], "answer_idx": 0}, ":1: prompt is empty."),
    (read_mmlu, "q,a,b,c,A", ":1: expected question, four choices and answer, got 5 fields."),
    (read_mmlu, "q,a,b,c,d,E", ":1: the right answer must be one of the 4 choices"),
    (read_mmlu, "question,a,b,c,d,answer", "there is no row in this file."),
    (read_truthfulqa, "{}", ":1: mc1_targets is missing; there are no keys."),
    (read_truthfulqa, '[{"question": "q"}]', ", entry 0: mc1_targets is missing; there are question."),
    (read_truthfulqa, '[{"question": "q", "mc1_targets": {"a": 1, "b": 1}}]', "2 right answers out of 2"),
    (read_instructed, {"prompt": "p"}, ":1: instruction_id_list, checks or answer is missing; there are prompt."),
    (read_instructed, {"prompt": "p", "instruction_id_list": ["a"], "kwargs": []}, "got 1 ids and 0 kwargs."),
    (read_instructed, {"prompt": "p", "checks": [{"id": "a"}]}, ":1: each of checks needs id and kwargs."),
    (read_instructed, {"prompt": "p", "checks": [{"id": "a", "kwargs": 3}]}, "the kwargs of a must be an object"),
    (read_lab_questions, {"prompt": "p", "choices": ["a", "b"], "answer": "c"}, "'c' must be exactly one of"),
]


@pytest.mark.parametrize(("read", "row", "message"), WRONG, ids=[message for _, _, message in WRONG])
def test_errors_say_where_and_what(read: Callable[..., object], row: object, message: str, tmp_path: Path) -> None:
    path = lines(tmp_path / "wrong.txt", row)
    with pytest.raises(DataError) as caught:
        read(path)
    assert message in str(caught.value) and str(path) in str(caught.value)


def test_the_line_is_counted_with_blank_ones(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x\.jsonl:3: answerKey"):
        read_arc(lines(tmp_path / "x.jsonl", arc_row(), "", arc_row("z")))


def test_a_missing_file_and_one_that_is_not_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.jsonl: cannot be opened .* No such file"):
        read_arc(tmp_path / "none.jsonl")
    with pytest.raises(DataError, match="there is no csv file in this folder"):
        read_mmlu(tmp_path)
    (tmp_path / "latin.csv").write_bytes(b"caf\xe9?,a,b,c,d,A\n")
    for read in (read_arc, read_mmlu, read_truthfulqa):
        with pytest.raises(DataError, match="UTF-8"):
            read(tmp_path / "latin.csv")


def test_the_real_files(shared: Path) -> None:
    data = shared / "data"
    assert len(read_arc(data / "arc" / "ARC-Challenge-Test.jsonl")) == 1150
    assert len(read_arc(data / "arc" / "arc_easy_test.jsonl")) == 2376
    questions = read_mmlu(data / "mmlu" / "test")
    assert (len(questions), len({question.subject for question in questions})) == (14042, 57)
    several = read_truthfulqa(data / "truthfulqa" / "mc_task.json", "mc2")
    assert len(several) == 817 and max(len(question.true) for question in several) > 1
    assert len(read_instructed(data / "ifeval" / "input_data.jsonl")) == 540
