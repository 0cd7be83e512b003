"""Adversarial rows of an evaluation under way, written batch by batch, so that an interrupted one has them again."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

Row = dict[str, Tensor]
"""What is kept of one row, by name, on the CPU; see `write_rows` of textadv.evaluation.adversarial_rows."""


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
        for path in sorted(folder.glob(f"{stem}.*.safetensors")):
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
        self.folder.mkdir(parents=True, exist_ok=True)
        number = 0
        while (path := self.folder / f"{self.stem}.{self.rank}.{number}.safetensors").exists():
            number += 1
        save_whole(path, {f"{digest}/{name}": value for digest, row in rows.items() for name, value in row.items()}, {})


def save_whole(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a safetensors file that is there in full or not at all."""
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    save_file(dict(tensors), part, dict(metadata))
    os.replace(part, path)
