"""The files of prompts and questions that a run names to measure a chat model on, beside its streams."""

from __future__ import annotations

from textadv.config.types import ConfigError
from textadv.data.benchmarks import QUESTION_READERS, Question
from textadv.data.characters import Surrogates
from textadv.data.tables import read_files
from textadv.measuring.judges.refusal import load_xstest, prompt_texts


def benign_prompts(name: str, path: str, surrogates: Surrogates = "error") -> tuple[str, ...]:
    """The prompts of a file that a model should answer: of an XSTest file the safe ones, otherwise all.

    Raises DataError where the file has no column `prompt`, or a row of it no text.
    """
    key = f"evaluation.over_refusal.{name}"
    table = read_files([path], None, key)
    if "type" in table.columns:
        return tuple(prompt.text for prompt in load_xstest(path, surrogates) if prompt.safe)
    return tuple(prompt_texts(table, key, surrogates))


def questions(name: str, path: str, surrogates: Surrogates) -> tuple[Question, ...]:
    """The questions of a file, in the format that its name begins with.

    Raises ConfigError where it begins with none, and DataError as the reader does.
    """
    reader = next((found for prefix, found in QUESTION_READERS.items() if name.startswith(prefix)), None)
    if reader is None:
        raise ConfigError(
            [
                f"evaluation.questions.{name}: the name must begin with the format of the file, one of "
                f"{', '.join(QUESTION_READERS)}."
            ]
        )
    return reader(path, surrogates=surrogates)
