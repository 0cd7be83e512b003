"""CoNLL files -> rows of words and tags: a word a line, its tag last, an empty line between sentences."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from textadv.data.tables import Table
from textadv.data.text_files import content_of, text_of
from textadv.values.errors import DataError
from textadv.values.host.reading import HostileError

DOCUMENT = "-DOCSTART-"
BLANKS = re.compile(r"[ \t\r]+")
OTHERS = (".csv", ".xml", ".zip", ".tar", ".tgz", ".pkl", ".xlsx", ".xls", ".feather", ".arrow")


def read_conll(paths: Sequence[str | Path], words: str, tags: str, key: str) -> Table:
    """The sentences of all files, one after the other, as the columns `words` and `tags`.

    Columns stand apart by blanks or tabs: the word is the first, the tag the last. Lines that begin with -DOCSTART- are
    passed over. Where lines have tabs, a word may hold blanks; a no-break space is of the word everywhere.

    Raises DataError, naming the configuration key `key`, the file and the line, for what is no such file.
    """
    columns: dict[str, list[list[str]]] = {words: [], tags: []}
    for path in map(Path, paths):
        try:
            for sentence in _sentences(_text(path)):
                columns[words].append([word for word, _ in sentence])
                columns[tags].append([tag for _, tag in sentence])
        except DataError as error:
            raise DataError(f"{key}: {path} {error}") from error
    return Table(", ".join(map(str, paths)), dict(columns), {})


def _text(path: Path) -> str:
    if path.is_dir():
        raise DataError("is a folder. Name the files in it, or set data.name to a data set's folder.")
    if path.suffix.lower() in OTHERS:
        raise DataError(
            "is no CoNLL file (a word a line, its tag last). Write it so, or as .jsonl or .parquet with a list of "
            "words and a list of tags in each row."
        )
    if not path.is_file():
        raise DataError(f"is not there (looked in {Path.cwd()}). Correct the name.")
    try:
        return text_of(content_of(path))
    except HostileError as error:
        raise DataError(f"cannot be read: {error}. Repair the file.") from error
    except OSError as error:
        raise DataError(f"cannot be read: {error.strerror}.") from error


def _sentences(text: str) -> list[list[tuple[str, str]]]:
    """The words and tags of each sentence."""
    found: list[list[tuple[str, str]]] = [[]]
    tabbed, width, numbered = None, None, True
    lines = text.replace("\r\n", "\n").split("\n") if "\n" in text else text.split("\r")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            found.append([])
            continue
        if line.startswith(DOCUMENT):
            continue
        tabbed = "\t" in line if tabbed is None else tabbed
        fields = line.rstrip(" ").split("\t") if tabbed else BLANKS.split(line.strip(" \t\r"))
        if width is not None and len(fields) != width:
            raise DataError(
                f"has {len(fields)} columns in line {number} and {width} before it. Give every word the same columns, "
                "apart by blanks or by tabs throughout."
            )
        width = len(fields)
        if width < 2:
            raise DataError(
                f"has one column in line {number}, {fields[0][:60]!r}: a CoNLL file has a word a line and its tag "
                "last. Name another file."
            )
        found[-1].append((fields[0], fields[-1].strip()))
        numbered = numbered and fields[0] == str(len(found[-1]))
    rows = [sentence for sentence in found if sentence]
    if not rows:
        raise DataError("holds no word. Name a file that has some.")
    if numbered and sum(map(len, rows)) > 1:
        raise DataError(
            "numbers the words in its first column, as CoNLL-U does, and the word must be the first. Take that column "
            "out."
        )
    return rows
