"""How large a stranger's config.json may make a model: about as large as the weights that come with it.

`num_hidden_layers: 1000000000` is a line of text, and building what it asks for takes hours and all memory. What is
counted is what is really built, whatever the keys of an architecture are called.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.modules.module import (
    register_module_buffer_registration_hook,
    register_module_parameter_registration_hook,
)
from transformers.utils import cached_file

from textadv.models.sources import UNUSABLE
from textadv.values.errors import ModelError
from textadv.values.host.reading import json_of

CONFIG_FILE = "config.json"
LARGEST_COUNT = 10_000
"""Layers, heads, experts and the like of one kind. Known models stay below 1,000."""
MOST_TENSORS, MOST_VALUES = 400_000, 2**43
"""What is built where no file of weights tells more."""
TENSORS_EACH, VALUES_EACH = 20, 8
"""How many tensors may be built for each that a file holds, and how many values for each of its bytes (4-bit: 2)."""
FREE_TENSORS, FREE_VALUES = 2_000, 2**26
_COUNT = re.compile(r"(^|_)(layers?|heads?|experts?|depths?|groups?|blocks|stages)$")
_SIZE = re.compile(r"size|dim|length|tokens")


def require_counts(name: str, revision: str | None = None) -> None:
    """Raises ModelError where config.json asks for more layers, heads or experts than any model has.

    name: a folder or a Hub id. What cannot be read is left to the loader, which says why.
    """
    try:
        if Path(name).is_dir():
            path: str | None = str(Path(name) / CONFIG_FILE)
        else:
            path = cached_file(name, CONFIG_FILE, revision=revision)
        written = json_of(Path(str(path)).read_bytes())
    except UNUSABLE:
        return
    for key, value in _counts(written):
        if value > LARGEST_COUNT:
            raise ModelError(
                f"model.name {name!r}: its {CONFIG_FILE} sets {key}: {value:.12g}, and no model has so many (more than "
                f"{LARGEST_COUNT:,} are not built). Correct {CONFIG_FILE}, or download the model again."
            )


def _counts(value: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """Every number that says how many of something there are, in what JSON holds, with its key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _counts(inner, str(name))
    elif isinstance(value, list):
        for inner in value:
            yield from _counts(inner, key)
    elif isinstance(value, int | float) and _COUNT.search(key) and not _SIZE.search(key):
        yield key, value


@contextmanager
def bounded(name: str) -> Iterator[None]:
    """Inside the block a model is not built beyond what its weights can fill, by a generous factor.

    name: a folder, whose safetensors are counted, or a Hub id. Raises ModelError as soon as more is built.
    """
    tensors, values = _allowed(name)
    built = [0, 0]

    def count(module: nn.Module, key: str, value: Tensor | None) -> None:
        if value is None:
            return
        built[0] += 1
        built[1] += value.numel()
        if built[0] > tensors or built[1] > values:
            raise ModelError(
                f"model.name {name!r}: its {CONFIG_FILE} asks for a model that is many times larger than the weights "
                f"beside it (more than {tensors:,} tensors or {values:,} values; building ended at {key} of "
                f"{type(module).__name__}). Correct {CONFIG_FILE}, or download the model again."
            )

    with register_module_parameter_registration_hook(count), register_module_buffer_registration_hook(count):
        yield


def _allowed(name: str) -> tuple[int, int]:
    """How many tensors and values may be built."""
    files = sorted(Path(name).glob("*.safetensors")) if Path(name).is_dir() else []
    held = 0
    try:
        for path in files:
            with safe_open(path, "pt") as file:
                held += len(file.keys())
        size = sum(path.stat().st_size for path in files)
    except (OSError, SafetensorError):
        return MOST_TENSORS, MOST_VALUES
    if not files:
        return MOST_TENSORS, MOST_VALUES
    return FREE_TENSORS + TENSORS_EACH * held, FREE_VALUES + VALUES_EACH * size
