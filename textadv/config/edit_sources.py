"""What the sections of attacks by edits make their attacks from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeVar

from textadv.config.types import ConfigError

if TYPE_CHECKING:
    from torch import nn

    from textadv.attacks.edits import MaskedModel, TextEncoder, WordTable
    from textadv.data import Examples

Read = TypeVar("Read")


@dataclass(frozen=True)
class EditSources:
    """What attacks are made from: files, each read once, and the training rows with the names of their classes.

    models: every model among the files, to be put on a device.
    """

    train: Examples
    labels: Sequence[str]
    _known: dict[tuple[str, str], Any] = field(default_factory=dict, repr=False)

    @property
    def models(self) -> tuple[nn.Module, ...]:
        return tuple(found.model for (kind, _), found in self._known.items() if kind in ("masked_lm", "encoder"))

    @property
    def notes(self) -> tuple[str, ...]:
        """What was left out of the tables, a sentence for each that held bad rows."""
        tables = (found for (kind, _), found in self._known.items() if kind in ("table", "wordnet"))
        return tuple(table.note for table in tables if table.note is not None)

    def table(self, path: str) -> WordTable:
        """The synonym table in this file."""
        from textadv.attacks.edits import read_synonyms

        return self._once("table", path, read_synonyms)

    def wordnet(self, path: str) -> WordTable:
        """The synonyms in this folder of WordNet's files."""
        from textadv.attacks.edits import read_wordnet

        return self._once("wordnet", path, read_wordnet)

    def masked_lm(self, path: str) -> MaskedModel:
        """The masked language model in this folder."""
        from textadv.attacks.edits import load_masked_model

        return self._once("masked_lm", path, load_masked_model)

    def encoder(self, path: str | None) -> TextEncoder | None:
        """The encoder in this folder; None without one."""
        from textadv.attacks.edits import load_text_encoder

        return None if path is None else self._once("encoder", path, load_text_encoder)

    def _once(self, kind: str, path: str, read: Callable[[str], Read]) -> Read:
        """Raises ConfigError in terms of the key `kind` where it cannot be read."""
        if (kind, path) not in self._known:
            try:
                self._known[kind, path] = read(path)
            except ValueError as error:
                # Loading tells of model.name, which is another model than the one that this key names.
                told = str(error).removeprefix("model.name: ").removeprefix("model.name ")
                raise ConfigError([f".{kind}: {told}"]) from error
        found: Read = self._known[kind, path]
        return found
