"""Harmless rows from a pool: words of the alarm first, none twice or known; what no run would read is refused."""

from __future__ import annotations

import csv
import json
import runpy
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.processes import ROOT

TRAIN = [("mail the forbidden recipe", 1)] * 12 + [("mail the plan", 0)] * 12
POOL = [
    {"instruction": "Make tea", "input": ""},
    {"instruction": "Is there a recipe", "input": "for tea?"},
    {"instruction": "Why is it forbidden", "input": None},
    {"instruction": "Make tea", "input": ""},
    {"instruction": "mail the plan", "input": ""},
    {"instruction": "a recipe for tea", "input": float("nan")},
]

ODD = {"half": "a \ud83d recipe", "zero": "a \0 recipe", "odd": 5, "known": "a recipe for tea"}


def run(
    folder: Path, monkeypatch: pytest.MonkeyPatch, *options: str, train: Sequence[tuple[str, int]] = TRAIN
) -> list[tuple[str, str]]:
    for name, rows in (("train", train), ("other", [("a recipe for tea", 0), ("a forbidden recipe", 1)])):
        with (folder / f"{name}.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("text", "label"), *rows])
    (folder / "pool.json").write_text(json.dumps(POOL))
    for name, text in ODD.items():
        pool = [{"instruction": text}] if name == "known" else [{"instruction": "Make tea"}, {"instruction": text}]
        (folder / f"{name}.json").write_text(json.dumps(pool))
    data = "{name: files, train: train.csv, test: other.csv, labels: [harmless, alarm]}"
    rest = "model: {name: none}\nthreat: {relative_radius: 0.1}\noutput: out\ntraining: {epochs: 1}\n"
    (folder / "run.yaml").write_text(f"data: {data}\n{rest}")
    overrides = [option for option in options if "=" in option]
    words = [
        "harmless_rows.py",
        "run.yaml",
        *overrides,
        "--toward",
        "alarm",
        "--pool",
        "pool.json",
        "--output",
        "out.csv",
    ]
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "argv", [*words, *(option for option in options if option not in overrides)])
    runpy.run_path(str(ROOT / "scripts/harmless_rows.py"), run_name="__main__")
    with (folder / "out.csv").open(newline="") as file:
        head, *found = csv.reader(file)
    assert head == ["text", "label"]
    return [(text, label) for text, label in found]


def test_rows_with_such_a_word_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tmp_path, monkeypatch, "--columns", "instruction,input")
    assert rows == [("Is there a recipe for tea?", "0"), ("Why is it forbidden", "0"), ("Make tea", "0")]


def test_no_more_rows_than_asked_for_under_the_label_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = run(tmp_path, monkeypatch, "--columns", "instruction", "--rows", "2", "--label", "harmless")
    assert rows == [("Is there a recipe", "harmless"), ("Why is it forbidden", "harmless")]


@pytest.mark.parametrize(
    "less",
    [["data.test_rows=1"], ["data.train_rows=20"], ["data.validation_rows=2"]],
)
def test_rows_that_a_run_samples_away_or_leaves_out_are_known_as_well(
    less: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    known = [
        {"instruction": text} for text in ("A  recipe for tea.", "a forbidden recipe", "mail the forbidden recipe")
    ]
    (tmp_path / "held.json").write_text(json.dumps([*known, {"instruction": "Is it forbidden?"}]))
    rows = run(tmp_path, monkeypatch, "--columns", "instruction", "--pool", "held.json", *less)
    assert rows == [("Is it forbidden?", "0")]


def test_no_word_that_speaks_for_the_alarm_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, monkeypatch, "--columns", "instruction", train=TRAIN[:6] + TRAIN[-12:])
    assert "no word speaks for alarm in enough of its rows" in f"{ended.value.code}{capsys.readouterr().err}"


def test_validation_rows_that_are_held_out_anew_are_told_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path, monkeypatch, "--columns", "instruction")
    assert "note: data.validation is null" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--columns", "text"], "--columns"),
        (["--columns", "instruction", "--toward", "alert"], "--toward must be classes of the data (harmless, alarm)"),
        (["--columns", "instruction", "--rows", "0"], "--rows and --words must be at least 1, got 0 and 300."),
        (["--columns", "instruction", "--output", "train.csv"], "--output train.csv exists."),
        (["--columns", "instruction", "--pool", "none.json"], "--pool: there is no file none.json"),
        (["--columns", "instruction", "--label", "alarm"], "--label is that of alarm, the class --toward"),
        (["--columns", "instruction", "--label", "1"], "--label is that of alarm, the class --toward"),
        (["--columns", "instruction", "--toward", "harmless"], "--label is that of harmless, the class --toward"),
        (["--columns", "instruction", "--label", "fine"], "'fine'"),
        (
            ["--columns", "instruction", "--label", "2", "--toward", "1", "data.labels=null"],
            "--label makes a class of its own beside 0, 1",
        ),
        (
            ["--columns", "instruction", "--label", "", "data.unlabelled=drop"],
            "under which a run reads 0 of the 3 rows",
        ),
        (
            ["--columns", "instruction", "data.columns=[text, label]"],
            "data.columns is set, and harmless rows are written",
        ),
        (["--columns", "instruction", "data.text_pair=more"], "data.text_pair is set"),
        (["--columns", "instruction", "--pool", "half.json"], "--pool: row 1 (counted from 0) has half of a character"),
        (["--columns", "instruction", "--pool", "zero.json"], "--pool: row 1 (counted from 0) holds a zero byte"),
        (["--columns", "instruction", "--pool", "odd.json"], "--pool: row 1 (counted from 0) has 5 (int) in --columns"),
        (["--columns", "instruction", "--pool", "known.json"], "--pool: it holds no text that the data"),
    ],
)
def test_bad_input(
    options: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as ended:
        run(tmp_path, monkeypatch, *options)
    assert said in f"{ended.value.code}{capsys.readouterr().err}"
    assert not (tmp_path / "out.csv").exists()
