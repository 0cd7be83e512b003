"""Adversarial rows of an evaluation under way, written batch by batch, so that an interrupted one has them again."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from textadv.measuring.kept_lines import stored
from textadv.values.digests import digest, tensor_bytes
from textadv.values.host.writing import discard, write_tensors

DIGEST = "digest"
Row = dict[str, Tensor]
"""What is kept of one row, by name, on the CPU; see `write_rows` of textadv.measuring.accuracy.adversarial_rows."""


@dataclass
class Shelf:
    """The adversarial rows of one attack by the hash of the row's content: known ones, and where new ones go.

    stem: what its files' names begin with; every process writes files of its own. known: which file holds a row.
    """

    folder: Path
    stem: str
    rank: int
    known: dict[str, Path] = field(default_factory=dict)

    @classmethod
    def found(cls, folder: Path, stem: str, rank: int) -> Shelf:
        """What an earlier evaluation left there."""
        known: dict[str, Path] = {}
        for path in filter(intact, stored(folder, f"{stem}.*.safetensors")):
            with safe_open(path, "pt") as file:
                known |= {name.partition("/")[0]: path for name in file.keys()}  # noqa: SIM118 not a mapping
        return cls(folder, stem, rank, known)

    def take(self, digest: str) -> Row | None:
        """The row of this content, or None where it is not there."""
        path = self.known.get(digest)
        if path is None or not path.is_file():
            return None
        with safe_open(path, "pt") as file:
            names = [name for name in file.keys() if name.startswith(f"{digest}/")]  # noqa: SIM118
            return {name.partition("/")[2]: file.get_tensor(name) for name in names}

    def put(self, rows: Mapping[str, Row]) -> None:
        """Keeps these rows, in one file."""
        number = 0
        while (path := self.folder / f"{self.stem}.{self.rank}.{number}.safetensors").exists():
            number += 1
        tensors = {f"{digest}/{name}": value for digest, row in rows.items() for name, value in row.items()}
        write_tensors(path, tensors, {DIGEST: _digest(tensors)})


def _digest(tensors: Mapping[str, Tensor]) -> str:
    """Of names, shapes, types and numbers."""
    named = sorted(tensors.items())
    return digest(
        part
        for name, value in named
        for part in (f"{name} {tuple(value.shape)} {value.dtype}".encode(), tensor_bytes(value))
    )


def intact(path: Path) -> bool:
    """Whether a shelf's file is as it was written."""
    try:
        with safe_open(path, "pt") as file:
            told = (file.metadata() or {}).get(DIGEST)
            return bool(told == _digest({name: file.get_tensor(name) for name in file.keys()}))  # noqa: SIM118
    except (OSError, ValueError, SafetensorError):
        return False


def cleared(files: Iterable[Path]) -> list[str]:
    """Removes the files that are not as they were written; a sentence for each. For one process."""
    told = []
    for path in files:
        if not intact(path):
            discard(path)
            told.append(f"{path.parent.name}/{path.name} was not as it was written; its rows are attacked again")
    return told
