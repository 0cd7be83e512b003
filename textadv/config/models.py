"""Models as a command line gives them: a path or Hub id, or `NAME=PATH` where tables are to call it otherwise."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from textadv.config.types import ConfigError
from textadv.values.host.printable import printable

# A name is no path: whatever stands before the first "=" and is none of these makes the whole argument a path.
NAME = re.compile(r"[^\W_][\w .,+()-]*")
LONGEST = 60
LONGEST_FILE = 200
INITIAL = "initial"


class NamedModel(NamedTuple):
    """One model. name: what tables, logs and files call it. path: a folder or Hub id."""

    name: str
    path: str

    @property
    def line(self) -> str:
        """That says which model is attacked."""
        return f"model:  {self.path}" if self.name == self.path else f"model:  {self.name} ({self.path})"


def named_model(argument: str, option: str = "--model") -> NamedModel:
    """The model of an argument: `NAME=PATH`, or a path, which is its own name.

    What exists is a path, also with "=" in it; so is an argument with a "/" before its first "=". Of `NAME=PATH` the
    path may hold further "=". option: how errors call it. Raises ConfigError where the name or the path is missing, or
    the name is too long.
    """
    name, sign, path = argument.partition("=")
    if not sign or "/" in name or "\\" in name or os.path.exists(argument):
        return NamedModel(argument, argument)
    name = name.strip()
    if not NAME.fullmatch(name) or not path.strip():
        raise ConfigError(
            [
                f"{option} {_shown(argument)} must be a folder, a Hub id, or NAME=PATH with a name of letters, digits, "
                "spaces and . , + ( ) _ - that begins with a letter or digit. Where it is a path that holds =, no such "
                "folder is there."
            ]
        )
    if len(name) > LONGEST:
        raise ConfigError([f"{option} {_shown(argument)}: a name has at most {LONGEST} characters. Shorten it."])
    return NamedModel(name, path)


def named_models(arguments: Sequence[str], option: str = "--model") -> list[NamedModel]:
    """The models of all arguments, in order, whose names differ, also as files are named after them.

    Raises ConfigError as `named_model`, and where two would be called the same, or one as something else is.
    """
    found = _distinct([named_model(argument, option) for argument in arguments], arguments, option)
    files = {_as_file(model.name): argument for model, argument in zip(found, arguments, strict=True)}
    for called, argument in files.items():
        # So the answers that a second process writes are called.
        whose = re.sub(r"-[0-9]+$", "", called)
        if called == INITIAL:
            why = f": results call the weights that a run starts from {INITIAL}"
        elif len(called) > LONGEST_FILE:
            why = f": its answers need a file name of at most {LONGEST_FILE} characters, and this has {len(called)}"
        elif whose != called and whose in files:
            why = f" and {option} {_shown(files[whose])} would share files: -NUMBER stands for a further process"
        else:
            continue
        raise ConfigError([f"{option} {_shown(argument)}{why}. Name it otherwise, as NAME=PATH."])
    return found


def named_runs(arguments: Sequence[str]) -> list[NamedModel]:
    """The same for the folders of finished runs: one without a name is called by the last part of its path."""
    found = [named_model(argument, "run") for argument in arguments]
    short = [run._replace(name=Path(run.path).name or run.path) if run.name == run.path else run for run in found]
    return _distinct(short, arguments, "run")


def _distinct(found: list[NamedModel], arguments: Sequence[str], option: str) -> list[NamedModel]:
    taken: dict[str, str] = {}
    for model, argument in zip(found, arguments, strict=True):
        called = _as_file(model.name)
        if called in taken:
            raise ConfigError(
                [
                    f"{option} {_shown(taken[called])} and {option} {_shown(argument)} would be called alike in tables "
                    "and files. Name one of them otherwise, as NAME=PATH."
                ]
            )
        taken[called] = argument
    return found


def _as_file(name: str) -> str:
    """As files are named after it, where capitals may not count."""
    return re.sub(r"[^a-z0-9-]+", "_", name.lower())


def _shown(text: str) -> str:
    told = printable(text)
    return told if len(told) <= 2 * LONGEST else f"{told[: 2 * LONGEST]}..."
