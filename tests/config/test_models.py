"""Models on a command line: a path, or a name and a path; a path may hold "=", and no two are called the same."""

from __future__ import annotations

from pathlib import Path

import pytest

from textadv.config.models import named_model, named_models, named_runs
from textadv.config.types import ConfigError


@pytest.mark.parametrize(
    ("argument", "name", "path"),
    [
        ("runs/mine/merged", "runs/mine/merged", "runs/mine/merged"),
        ("org/model", "org/model", "org/model"),
        ("ours=runs/mine/merged", "ours", "runs/mine/merged"),
        ("TRADES, beta 6 (old)=org/model", "TRADES, beta 6 (old)", "org/model"),
        ("größer=org/model", "größer", "org/model"),
        ("ours=runs/lr=0.1/merged", "ours", "runs/lr=0.1/merged"),
        ("runs/lr=0.1/merged", "runs/lr=0.1/merged", "runs/lr=0.1/merged"),
        ("./lr=0.1", "./lr=0.1", "./lr=0.1"),
        ("/abs/a=b=c", "/abs/a=b=c", "/abs/a=b=c"),
        (" ours =org/model", "ours", "org/model"),
    ],
)
def test_a_name_stands_before_the_first_sign_and_is_no_path(argument: str, name: str, path: str) -> None:
    assert named_model(argument) == (name, path)


def test_what_exists_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert named_model("lr=0.1") == ("lr", "0.1")
    (tmp_path / "lr=0.1").mkdir()
    assert named_model("lr=0.1") == ("lr=0.1", "lr=0.1")
    assert named_model("slow=lr=0.1") == ("slow", "lr=0.1")


@pytest.mark.parametrize(
    "argument", ["=runs/mine", "ours=", "ours= ", "a:b=org/model", "_=x", "a\x1b[31m=x", "=", ".=x"]
)
def test_what_is_neither_is_refused_in_one_sentence(argument: str) -> None:
    with pytest.raises(ConfigError) as error:
        named_model(argument)
    (line,) = error.value.lines
    assert line.startswith("--model ") and "NAME=PATH" in line and "\x1b" not in line


def test_a_long_name_is_refused_and_shown_in_part() -> None:
    with pytest.raises(ConfigError, match="at most 60 characters") as error:
        named_model(f"{'a' * 5000}=org/model")
    assert len(str(error.value)) < 300


@pytest.mark.parametrize(
    "arguments",
    [
        ["a=one", "a=two"],
        ["runs/a", "runs/a"],
        ["runs/a", "runs a=two"],
        ["a b=one", "a_b=two"],
        ["Ours=one", "ours=two"],
        ["runs/a.b", "runs/a_b"],
    ],
)
def test_two_of_one_name_or_file_are_refused(arguments: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        named_models(arguments)
    (line,) = error.value.lines
    assert all(argument in line for argument in arguments) and "NAME=PATH" in line


@pytest.mark.parametrize("arguments", [["cat=a", "cat-1=b"], ["Cat-12=a", "cat=b"], ["runs/a", "runs/a-3"]])
def test_a_name_is_not_that_of_another_ones_second_process(arguments: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        named_models(arguments)
    (line,) = error.value.lines
    assert all(argument in line for argument in arguments) and "NAME=PATH" in line


def test_a_name_is_not_one_that_results_have_already() -> None:
    with pytest.raises(ConfigError, match="initial=x: results call the weights that a run starts from initial"):
        named_models(["initial=x"])


def test_a_path_that_is_no_file_name_is_refused_in_short() -> None:
    with pytest.raises(ConfigError, match="at most 200 characters, and this has 304") as error:
        named_models(["runs" + "/a" * 150])
    assert len(str(error.value)) < 400


def test_runs_have_no_files_to_share() -> None:
    assert [name for name, _ in named_runs(["runs/pgd", "runs/pgd-2", "runs/initial"])] == ["pgd", "pgd-2", "initial"]


def test_numbers_alone_are_no_clash() -> None:
    assert [name for name, _ in named_models(["cat-1=a", "cat-2=b", "cat 3=c"])] == ["cat-1", "cat-2", "cat 3"]


def test_different_names_of_one_model_are_no_clash() -> None:
    assert named_models(["a=runs/x", "b=runs/x", "runs/x"]) == [("a", "runs/x"), ("b", "runs/x"), ("runs/x", "runs/x")]


def test_runs_are_called_by_their_folder_unless_named() -> None:
    assert named_runs(["runs/pgd", "old=runs/trades/"]) == [("pgd", "runs/pgd"), ("old", "runs/trades/")]
    with pytest.raises(ConfigError, match="run a/pgd and run b/pgd would be called alike"):
        named_runs(["a/pgd", "b/pgd"])
    assert [name for name, _ in named_runs(["a/pgd", "second=b/pgd"])] == ["pgd", "second"]
