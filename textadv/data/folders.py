"""The files of a user's folder, none of them missed in silence."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from textadv.values.errors import DataError


def files_below(folder: Path, key: str) -> list[Path]:
    """Every file in the folder and in the folders in it, sorted; links to folders are not followed.

    key: the configuration's, for the message. Raises DataError where a folder cannot be listed: its files would be
    missing without a word.
    """

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{key}: {error.filename} cannot be read: {error.strerror}. Give yourself the rights to read it, or take "
            "it out of the folder."
        ) from error

    found = [Path(place) / name for place, _, names in os.walk(folder, onerror=refuse) for name in names]
    return sorted(path for path in found if path.is_file())


def is_hidden(file: Path, folder: Path, marks: tuple[str, ...]) -> bool:
    """Whether the name of a file, or of a folder around it below `folder`, begins with one of the marks."""
    return any(part.startswith(marks) for part in file.relative_to(folder).parts)


def endings_text(files: Iterable[Path]) -> str:
    """How many files have which ending, in words."""
    counts = Counter(file.suffix.lower() or "no ending" for file in files)
    return ", ".join(f"{count} with {ending}" for ending, count in sorted(counts.items()))
