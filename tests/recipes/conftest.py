"""Fixtures of the recipe tests."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from tests import chat_run, folders
from tests.recipes.running import ROOT, Ended, Recipe
from tests.tiny import forget_accelerator


@pytest.fixture
def recipe(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Recipe]:
    """Runs the `main` of a recipe's module with these command-line arguments, from the project's folder."""
    monkeypatch.chdir(ROOT)

    def run(module: ModuleType, *arguments: str) -> Ended:
        forget_accelerator()
        monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", *arguments])
        capsys.readouterr()
        code, error = 0, ""
        try:
            module.main()
        except SystemExit as ended:
            code, error = (1, str(ended.code)) if isinstance(ended.code, str) else (int(ended.code or 0), "")
        printed = capsys.readouterr()
        return Ended(code, printed.out, error + printed.err)

    yield run
    forget_accelerator()


@pytest.fixture(scope="session")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny BERT without a head, with its tokenizer."""
    return folders.bert(tmp_path_factory.mktemp("models") / "bert")


@pytest.fixture(scope="session")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The configuration of a small chat run, in a folder with its model and its rows; nothing is written there."""
    return chat_run.prepared(tmp_path_factory.mktemp("chat"))
