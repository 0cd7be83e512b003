"""Half characters: found by the reader of every file, with row and place, or replaced where that is asked for."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.chats import CHATML, chat_tokenizer, turns
from tests.hostile.bombs import picture
from textadv.config.types import ConfigError
from textadv.data import DataError, Examples, encode, load_chats, load_image_splits, load_splits, reviews_tokenizer
from textadv.data.benchmarks import read_instructed
from textadv.data.characters import mended, unbroken
from textadv.data.chat_template import encode_answered, encode_prompt
from textadv.data.rendering import Template
from textadv.measuring.judges.openai_compatible import _content
from textadv.measuring.judges.refusal import load_xstest
from textadv.measuring.judges.validation import load_labelled
from textadv.tasks.chat.asked import benign_prompts, questions
from textadv.tasks.file import load_config
from textadv.values.batch import Role

CUT = "cut \ud83d here"
MENDED = "cut \ufffd here"
WHOLE = [
    "plain",
    "\U0001f600 é",
    "日本",
    "\ufffd",
    "\x00",
    "\u202e",
    "\udbff\udfff".encode("utf-16", "surrogatepass").decode("utf-16"),
]


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="ascii")
    return path


def rows_with(place: int, name: str, value: object) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"text": f"row {n}", "pair": "p", "label": ["bad", "good"][n % 2]} for n in range(12)]
    rows[place][name] = value
    return rows


def read(folder: Path, rows: list[dict[str, Any]], **options: Any) -> Any:
    return load_splits(
        "files",
        train=write_jsonl(folder / "train.jsonl", rows),
        test=write_jsonl(folder / "test.jsonl", rows_with(0, "text", "t")),
        validation=write_jsonl(folder / "validation.jsonl", rows_with(0, "text", "v")),
        **options,
    )


# ---- what a half is


@pytest.mark.parametrize("text", WHOLE)
def test_texts_that_are_whole_stay_the_very_same(text: str) -> None:
    for value in (text, [text, {"a": text}], {text: [text]}, Examples((text,), None, (0,), (0,))):
        assert unbroken(value, "x") is value and unbroken(value, "x", "replace") is value
    assert mended(text) is text


@pytest.mark.parametrize(
    ("text", "wanted"),
    [(CUT, MENDED), ("\ud83d\ude00", "\U0001f600"), ("\ude00\ud83d", "\ufffd\ufffd"), ("\udcff", "\ufffd")],
)
def test_halves_are_replaced_and_pairs_joined(text: str, wanted: str) -> None:
    assert mended(text) == wanted and wanted.encode()
    given = {"a": [text, 3, (text, None)]}
    assert unbroken(given, "x", "replace") == {"a": [wanted, 3, (wanted, None)]}
    with pytest.raises(DataError, match="^x has half of a character") as error:
        unbroken(given, "x")
    str(error.value).encode()


# ---- rows of texts


@pytest.mark.parametrize(("name", "key"), [("text", "data.text"), ("pair", "data.text_pair")])
def test_a_text_is_named_by_row_and_place(tmp_path: Path, name: str, key: str) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path, rows_with(7, name, CUT), text_pair="pair")
    told = str(error.value)
    assert told.startswith(f"{key}: row 7 (counted from 0) of {tmp_path / 'train.jsonl'} has half of a character")
    assert r"\ud83d) at character 4, in 'cut \ud83d here'" in told and "set data.surrogates: replace" in told
    told.encode()


def test_a_text_is_replaced_where_that_is_asked_for(tmp_path: Path) -> None:
    splits = read(tmp_path, rows_with(7, "text", CUT), surrogates="replace")
    assert splits.train.texts[7] == MENDED and splits.train.texts[:7] == tuple(f"row {n}" for n in range(7))
    assert splits.notes == ("data.text: half characters stand as U+FFFD in 1 train rows (data.surrogates: replace).",)
    assert read(tmp_path, rows_with(7, "text", "x"), surrogates="replace").notes == ()


def test_a_column_that_is_not_read_may_hold_halves(tmp_path: Path) -> None:
    assert read(tmp_path, rows_with(7, "other", CUT)).train.texts[7] == "row 7"


def test_a_label_is_named_and_replaced(tmp_path: Path) -> None:
    rows = rows_with(3, "label", "good \ud83d")
    rows += rows_with(5, "label", "good \ud83d")
    with pytest.raises(DataError, match=r"^data.label: row 3 \(counted from 0\) of .*train.jsonl has half"):
        read(tmp_path, rows)
    assert read(tmp_path, rows, surrogates="replace").labels == ("bad", "good", "good \ufffd")


def test_two_labels_that_would_become_one_are_an_error(tmp_path: Path) -> None:
    rows = rows_with(3, "label", "good \ud83d") + rows_with(3, "label", "good \ud83e")
    with pytest.raises(DataError, match="they are one. Rename them"):
        read(tmp_path, rows, surrogates="replace")
    with pytest.raises(DataError, match="they are one. Rename them"):
        read(
            tmp_path, rows_with(3, "label", "good \ud83d") + rows_with(4, "label", "good \ufffd"), surrogates="replace"
        )


def test_a_folder_of_a_class_whose_name_is_no_text(tmp_path: Path) -> None:
    for split in ("train", "validation", "test"):
        for name in (b"plain", b"odd\xff"):
            folder = tmp_path / split / name.decode("utf-8", "surrogateescape")
            folder.mkdir(parents=True)
            (folder / "a.png").write_bytes(picture())
    with pytest.raises(DataError, match=r"^data.label: row 0 .* has half of a character .*\\udcff"):
        load_image_splits("files", path=str(tmp_path))
    assert load_image_splits("files", path=str(tmp_path), surrogates="replace").labels == ("odd\ufffd", "plain")


# ---- chats

ASKED = {"role": "user", "content": "ask"}
CHATS: dict[str, tuple[Role, dict[str, Any]]] = {
    "a prompt": (Role.UTILITY, {"prompt": CUT, "response": "r"}),
    "a response": (Role.UTILITY, {"prompt": "p", "response": CUT}),
    "a message": (
        Role.UTILITY,
        {"messages": [{"role": "user", "content": CUT}, {"role": "assistant", "content": "r"}]},
    ),
    "an answer": (Role.UTILITY, {"messages": [ASKED, {"role": "assistant", "content": CUT}]}),
    "a part": (Role.BORDERLINE, {"prompt": [{"type": "text", "text": CUT}], "response": "r"}),
    "a turn of ShareGPT": (
        Role.UTILITY,
        {"messages": [{"from": "human", "value": CUT}, {"from": "gpt", "value": "r"}]},
    ),
    "a list as text": (Role.UTILITY, {"messages": json.dumps([ASKED, {"role": "assistant", "content": CUT}])}),
    "a system text": (Role.UTILITY, {"prompt": "p", "response": "r", "system": CUT}),
    "an input": (Role.UTILITY, {"instruction": "p", "output": "r", "input": CUT}),
    "a thought": (Role.UTILITY, {"messages": [ASKED, {"role": "assistant", "content": "r", "reasoning_content": CUT}]}),
    "a target": (Role.ADVERSARIAL, {"prompt": "p", "target": CUT, "safe": "s"}),
    "a list of targets": (Role.ADVERSARIAL, {"prompt": "p", "target": ["t", CUT], "safe": "s"}),
    "a safe answer": (Role.ADVERSARIAL, {"prompt": "p", "target": "t", "safe": CUT}),
}


@pytest.mark.parametrize("what", CHATS)
def test_chats(tmp_path: Path, what: str) -> None:
    role, row = CHATS[what]
    plain = json.loads(json.dumps(row).replace(json.dumps(CUT)[1:-1], "plain").replace(r"\\ud83d", ""))
    rows = [{**plain, "prompt": f"p{n}"} if "prompt" in plain else plain for n in range(4)]
    path = write_jsonl(tmp_path / "chats.jsonl", [*rows, row])
    with pytest.raises(DataError, match=r"^data.\w+: row 4 \(counted from 0\) of .*chats.jsonl.* has half") as error:
        load_chats(role, train=path, validation_fraction=0)
    str(error.value).encode()
    splits = load_chats(role, train=path, validation_fraction=0, surrogates="replace")
    last = splits.train[-1]
    assert MENDED in json.dumps([*last.messages, dict(last.answers)], ensure_ascii=False)
    assert "1 train rows" in splits.notes[0]


def test_a_chat_from_a_list_in_csv(tmp_path: Path) -> None:
    written = json.dumps([ASKED, {"role": "assistant", "content": CUT}])
    with (tmp_path / "c.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["messages"], [written]])
    with pytest.raises(DataError, match="row 0"):
        load_chats(Role.UTILITY, train=tmp_path / "c.csv", validation_fraction=0)
    found = load_chats(Role.UTILITY, train=tmp_path / "c.csv", validation_fraction=0, surrogates="replace")
    assert found.train[0].answers["response"] == MENDED


# ---- files of the evaluation

FILES: dict[str, tuple[dict[str, Any], Callable[..., Any]]] = {
    "arc": ({"id": "1", "prompt": CUT, "choices": ["a", "b"], "answer_idx": 0}, lambda *a: questions("arc_x", *a)),
    "arc, a choice": (
        {"id": "1", "prompt": "q", "choices": ["a", CUT], "answer_idx": 0},
        lambda *a: questions("arc_x", *a),
    ),
    "mmlu": ({"question": CUT, "subject": "s", "choices": ["a", "b"], "answer": 0}, lambda *a: questions("mmlu_x", *a)),
    "mmlu, choices as text": (
        {"question": "q", "subject": "s", "choices": json.dumps(["a", CUT]), "answer": 0},
        lambda *a: questions("mmlu_x", *a),
    ),
    "lab": ({"prompt": CUT, "choices": ["a", "b"], "answer": "a"}, lambda *a: questions("lab_x", *a)),
    "truthfulqa": (
        {"question": "q", "mc1_targets": {CUT: 1, "b": 0}, "mc2_targets": {"a": 1, "b": 0}},
        lambda *a: questions("truthfulqa_mc1", *a),
    ),
    "truthfulqa, mc2": (
        {"question": "q", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {CUT: 1, "b": 0}},
        lambda *a: questions("truthfulqa_mc2", *a),
    ),
    "instructions": ({"prompt": CUT, "answer": "x"}, read_instructed),
    "instructions, arguments": (
        {"prompt": "p", "checks": [{"id": "keywords:existence", "kwargs": {"keywords": [CUT]}}]},
        read_instructed,
    ),
    "benign prompts": ({"prompt": CUT}, lambda *a: benign_prompts("b", *a)),
    "xstest": ({"prompt": CUT, "type": "t", "label": "safe"}, load_xstest),
    "xstest among benign prompts": ({"prompt": CUT, "type": "t", "label": "safe"}, lambda *a: benign_prompts("b", *a)),
    "a judge's validation": ({"prompt": "p", "completion": CUT, "final_label": "2_full_refusal"}, load_labelled),
}


@pytest.mark.parametrize("what", FILES)
def test_files_of_the_evaluation(tmp_path: Path, what: str) -> None:
    row, reader = FILES[what]
    path = write_jsonl(tmp_path / "rows.jsonl", [row])
    with pytest.raises(DataError, match=r"half of a character.*set data.surrogates: replace") as error:
        reader(path, "error")
    assert str(path) in str(error.value)
    reader(path, "replace")


def test_a_completion_that_is_no_text(tmp_path: Path) -> None:
    row = {"prompt": "p", "completion": 3, "final_label": "2_full_refusal"}
    with pytest.raises(DataError, match="row 0 .* has 3, which is not text"):
        load_labelled(write_jsonl(tmp_path / "rows.jsonl", [row]))


# ---- templates, and what comes without a file


def test_a_template_that_writes_a_half() -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = "{{ '\\ud83d' }}" + CHATML
    with pytest.raises(DataError, match="^the chat template of x writes what has half of a character"):
        encode_prompt(Template(tokenizer, name="the chat template of x"), turns("y"))
    assert Template(tokenizer, surrogates="replace").render(turns("y"), generation=True).startswith("\ufffd")


@pytest.mark.parametrize("texts", [("a", CUT), ("a", 3), ("a", None), ("a", b"b"), ("a", ["b"])])
def test_texts_given_from_python(texts: Any) -> None:
    with pytest.raises(DataError, match=r"^the text of row 7 "):
        encode(Examples(texts, None, (0, 1), (4, 7)), reviews_tokenizer(), 32)
    with pytest.raises(DataError, match=r"^the second text of row 7 "):
        encode(Examples(("a", "b"), texts, (0, 1), (4, 7)), reviews_tokenizer(), 32)


def test_chats_given_from_python() -> None:
    with pytest.raises(DataError, match=r"^message 0 \(user\) has half of a character"):
        encode_prompt(chat_tokenizer("chatml"), turns(CUT))
    with pytest.raises(DataError, match=r"^the answer has half of a character"):
        encode_answered(chat_tokenizer("chatml"), turns("x"), CUT)


def test_an_answer_of_a_server_is_mended() -> None:
    assert _content(json.dumps({"choices": [{"message": {"content": CUT}}]}).encode()) == MENDED


def test_a_configuration_and_its_overrides(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("output: 'runs/x'\nmodel: {name: \"\\udcff\"}\n")
    with pytest.raises(ConfigError, match=r"model.name \(line 2\) holds half of a character"):
        load_config(tmp_path / "a.yaml")
    with pytest.raises(ConfigError, match="half of a character|not allowed|not UTF-8"):
        load_config(None, ["output=runs/\udcff"])
