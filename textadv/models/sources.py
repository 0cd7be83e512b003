"""What `model.name` can name: a folder or a Hub id whose weights are safetensors, loaded without noise."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError
from transformers.utils import logging

from textadv.values.errors import ModelError

UNUSABLE = (Exception,)
"""What loading or saving a model, a tokenizer or a processor raises where its files are not as they should be.

A configuration with a value of the wrong kind, or of no known one, ends as anything in transformers' code, and what is
written in Rust raises an Exception of no kind.
"""

UNREAD = "which can run code when it is read and is not read here."
PICKLED_WEIGHTS = "pytorch_model*.bin"
PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib")
# What trainers leave beside weights.
NO_WEIGHTS = ("training_args", "optimizer", "scheduler", "scaler", "rng_state")
# What stands in the place of a file that Git LFS has not fetched.
POINTER = b"version https://git-lfs"
TOKENIZING = ("tokenizer*", "vocab*", "merges*", "*.model", "*.tiktoken")
TOKENIZER_REMEDY = (
    "Correct or download again its tokenizer files (tokenizer.json, tokenizer_config.json and those beside them), or "
    "save the model's tokenizer there anew: tokenizer.save_pretrained."
)
TOLD = 400
# PEFT and this package use the names that every release of transformers 5 knows.
RENAMED = r"`\w*gradient_checkpointing\w*` is deprecated"


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


def told(error: Exception) -> str:
    """What an error of other code says: one line of bounded length that ends with a full stop.

    Where the text alone says little ("'added_tokens'"), its kind stands before it.
    """
    text = " ".join(str(error).split())
    if not isinstance(error, OSError | ValueError | RuntimeError | ImportError | SafetensorError):
        text = f"{type(error).__name__}: {text}"
    text = text if len(text) <= TOLD else f"{text[: TOLD - 3].rstrip()}..."
    return text if text.endswith((".", "!", "?")) else f"{text}."


def is_path(name: str) -> bool:
    """Whether a name cannot be a Hub id, which is one word or two with a slash between."""
    return name.startswith((".", "~", os.sep)) or name.count("/") > 1 or "\\" in name


def require_folder(name: str, file: str = "config.json") -> None:
    """Raises ModelError where a path names no folder, or a folder holds no `file`, before transformers complains of it
    as a malformed id or an unknown architecture."""
    folder = Path(name)
    if folder.is_file():
        if folder.suffix.lower() in PICKLES:
            safe = folder.with_name("model.safetensors")
            raise ModelError(
                f"model.name {name!r} is a pickle, {UNREAD} Name the folder that holds it. {converted(name, safe)}"
            )
        raise ModelError(f"model.name {name!r} is a file. Name the folder that holds it, with its config.json.")
    if not folder.is_dir():
        if is_path(name):
            raise ModelError(
                f"model.name: there is no folder {name} (looked in {Path.cwd()}). Correct it, or give a Hub id."
            )
        return
    if not (folder / file).is_file():
        inside = sorted(path.parent.name for path in folder.glob(f"*/{file}"))
        remedy = "Name the folder that the model was saved in, or a Hub id."
        if inside:
            remedy = f"Folders in it do: {', '.join(inside[:5])}. Name one of them, such as {folder / inside[-1]}."
        raise ModelError(f"model.name {name!r} is a folder without {file}, so it holds no model. {remedy}")


def require_tokenizer(name: str) -> None:
    """Raises ModelError where a folder holds no file of a tokenizer: transformers would make one without a word, or ask
    for sentencepiece."""
    folder = Path(name)
    if folder.is_dir() and not any(path for kind in TOKENIZING for path in folder.glob(kind)):
        raise ModelError(
            f"model.name {name!r} is a folder without a tokenizer (tokenizer.json, vocab.txt or the like). Save the "
            "model's tokenizer beside it: tokenizer.save_pretrained."
        )


def require_safetensors(name: str, kind: str) -> None:
    """Raises ModelError where a folder holds its weights as a pickle alone, which can run code when it is read, or as
    pointers to files that were not fetched.

    kind: the transformers class that others load it with.
    """
    folder = Path(name)
    for path in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        require_fetched(name, path)
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


def require_fetched(name: str, path: Path) -> None:
    """Raises ModelError where a file of model.name `name` is none, or the pointer that Git LFS leaves in its place."""
    if not path.is_file():
        raise ModelError(f"model.name {name!r}: its {path.name} is no file. Download the model again.")
    with path.open("rb") as file:
        if file.read(len(POINTER)) != POINTER:
            return
    raise ModelError(
        f"model.name {name!r}: its {path.name} is a pointer of Git LFS ({path.stat().st_size} bytes) and not the "
        "weights. Fetch them with git lfs pull, or download the model again."
    )
