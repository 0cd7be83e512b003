"""What `model.name` can name: a folder or a Hub id whose weights are safetensors, loaded without noise."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from transformers.utils import logging

from textadv.models.places import ModelError

UNUSABLE = (Exception,)
"""What loading a model, a tokenizer or a processor raises where there is nothing usable: a damaged file can make it
raise anything."""
_PLAIN = (OSError, ValueError, RuntimeError, ImportError)
LONGEST_REASON = 600

PICKLED_WEIGHTS = "pytorch_model*.bin"
# PEFT and this package use the names that every release of transformers 5 knows.
RENAMED = r"`\w*gradient_checkpointing\w*` is deprecated"


def reason(error: Exception) -> str:
    """What an error of a library says, with its kind where it would not be understood without, and not too long."""
    told = f"{error}" if isinstance(error, _PLAIN) and f"{error}".strip() else f"{type(error).__name__}: {error}"
    return told if len(told) <= LONGEST_REASON else f"{told[:LONGEST_REASON]}..."


@contextmanager
def quiet() -> Iterator[None]:
    """Keeps transformers' reports and bars off the screen; `LoadedModel.initialised` says what matters of them."""
    level, bar = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", RENAMED, FutureWarning)
            yield
    finally:
        logging.set_verbosity(level)
        if bar:
            logging.enable_progress_bar()


def is_path(name: str) -> bool:
    """Whether a name cannot be a Hub id, which is one word or two with a slash between."""
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name


def require_folder(name: str) -> None:
    """Raises ModelError where a path names no folder, before the Hub complains of it as a malformed id."""
    if is_path(name) and not Path(name).is_dir():
        raise ModelError(
            f"model.name: there is no folder {name} (looked in {Path.cwd()}). Correct it, or give a Hub id."
        )


def require_safetensors(name: str, kind: str) -> None:
    """Raises ModelError where a folder holds its weights as a pickle alone, which can run code when it is read.

    kind: the transformers class that others load it with.
    """
    folder = Path(name)
    if not folder.is_dir() or any(folder.glob("*.safetensors")):
        return
    pickled = sorted(path.name for path in folder.glob(PICKLED_WEIGHTS))
    if pickled:
        raise ModelError(
            f"model.name {name!r} holds its weights as {pickled[0]}, a pickle, which can run code when it is read and "
            "is not read here. Where you trust it, convert it: "
            f"python -c \"from transformers import {kind} as M; M.from_pretrained('{name}').save_pretrained('{name}')\""
        )
