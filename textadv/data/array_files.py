"""Arrays of npz files, none of which is made before it is known how large it becomes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from zipfile import ZipFile, ZipInfo

import numpy as np
from numpy.lib import format as npy

from textadv.values.errors import DataError
from textadv.values.host.reading import HostileError, parsed, require_bounded, size

ENDING = ".npy"
_HEADERS = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
_LONGEST_HEADER = 2**16


@dataclass(frozen=True)
class Arrays:
    """The arrays of an npz file by name, each read when it is asked for; see `opened_arrays`."""

    path: Path
    key: str
    entries: dict[str, ZipInfo]

    def __iter__(self) -> Iterator[str]:
        return iter(self.entries)

    def __contains__(self, name: object) -> bool:
        return name in self.entries

    def __getitem__(self, name: str) -> np.ndarray:
        """The array of this name, of any shape."""
        with _said(self.path, self.key), ZipFile(self.path) as file:
            entry = self.entries[name]
            _require_fitting(file, entry)
            with file.open(entry) as content:
                return np.asarray(npy.read_array(content, allow_pickle=False))


def opened_arrays(path: Path, key: str) -> Arrays:
    """The arrays of an npz file, none of them read yet.

    Raises DataError, beginning with `key`, where it is none or becomes far larger than packed images do; and later, as
    an array is asked for, where that would run code or its header says another size than it has.
    """
    with _said(path, key), ZipFile(path) as file:
        entries = [entry for entry in file.infolist() if not entry.is_dir()]
        # Entries may share what they are unpacked from, so the file's own size counts.
        require_bounded(path.stat().st_size, sum(entry.file_size for entry in entries))
    return Arrays(path, key, {entry.filename.removesuffix(ENDING): entry for entry in entries})


@contextmanager
def _said(path: Path, key: str) -> Iterator[None]:
    try:
        with parsed():
            yield
    except HostileError as error:
        raise DataError(
            f"{key}: {path} cannot be read as an npz file of plain arrays: {str(error).rstrip('. ')}. Arrays of "
            "objects would run what they hold: store numbers, images of one size, and names as texts."
        ) from error


def _require_fitting(file: ZipFile, entry: ZipInfo) -> None:
    """HostileError where the header of an array says another size than the array has."""
    with file.open(entry) as content:
        version = npy.read_magic(content)
        header = _HEADERS.get(version)
        if header is None:
            raise HostileError(f"{entry.filename} is written in version {version} of npy, and 1.0 and 2.0 are read")
        shape, _, dtype = header(content, max_header_size=_LONGEST_HEADER)
        if dtype.hasobject:
            raise HostileError(f"{entry.filename} holds objects, which can run code when they are read")
        said, there = math.prod(shape) * dtype.itemsize, entry.file_size - content.tell()
        if min(shape, default=0) < 0 or said != there:
            raise HostileError(f"{entry.filename} says that it holds {size(said)}, and holds {size(there)}")
