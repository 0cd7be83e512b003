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
UNREAD = "which can run code when it is read and is not read here."

PICKLED_WEIGHTS = "pytorch_model*.bin"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
# What trainers leave beside weights.
NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
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
    """Raises ModelError where a path names a file or nothing, before the Hub complains of it as a malformed id."""
    if Path(name).is_file():
        if Path(name).suffix.lower() in PICKLES:
            safe = Path(name).with_name("model.safetensors")
            raise ModelError(
                f"model.name {name!r} is a pickle, {UNREAD} Name the folder that holds it. {converted(name, safe)}"
            )
        raise ModelError(f"model.name {name!r} is a file. Name the folder that holds it, with its config.json.")
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
            f"model.name {name!r} holds its weights as {pickled[0]}, a pickle, {UNREAD} "
            "Where you trust it, convert it: "
            f"python -c \"from transformers import {kind} as M; M.from_pretrained('{name}').save_pretrained('{name}')\""
        )
    refuse_pickles(name, folder, "model.safetensors")


def refuse_pickles(name: str, folder: Path, safe: str) -> None:
    """Raises ModelError where a folder, which has no file `safe`, holds weights as a pickle of any name."""
    found = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in PICKLES and file.is_file())
    pickled = next((file for file in found if not file.startswith(NO_WEIGHTS)), None)
    if pickled is not None:
        remedy = converted(str(folder / pickled), folder / safe)
        raise ModelError(f"model.name {name!r} holds its weights as {pickled}, a pickle, {UNREAD} {remedy}")


def converted(pickled: str, safe: Path) -> str:
    """How a file of weights is converted by whoever trusts it."""
    return (
        'Where you trust it, convert it: python -c "import torch; from safetensors.torch import save_file; '
        f"save_file(torch.load('{pickled}', weights_only=True), '{safe}')\""
    )
