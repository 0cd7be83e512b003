"""Files as programs write them -> text, and text -> rows of fields: compression, encodings, separators, JSON's forms.

What is plain is read, what is not is a DataError that begins with what is wrong; callers put key and file before it.
"""

from __future__ import annotations

import bz2
import codecs
import csv
import gzip
import io
import json
import lzma
import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from textadv.values.errors import DataError
from textadv.values.host.reading import (
    FREE_BYTES,
    PLACE,
    HostileError,
    json_of,
    largest_file,
    parsed,
    require_bounded,
    size,
)

PACKED = (".gz", ".bz2", ".xz", ".zst")
SEPARATORS = {",": "a comma", ";": "a semicolon", "\t": "a tab", "|": "a bar"}


def _zstd(packed: io.BytesIO) -> Any:
    import pyarrow

    return pyarrow.CompressedInputStream(pyarrow.PythonFile(packed, "r"), "zstd")


_UNPACK = (
    (re.compile(rb"\x1f\x8b"), gzip.open),
    (re.compile(rb"BZh[1-9]1AY&SY"), bz2.open),
    (re.compile(rb"\xfd7zXZ\x00"), lzma.open),
    (re.compile(rb"\x28\xb5\x2f\xfd"), _zstd),
)
_CHUNK = 2**20
# How files begin that hold no text, and what to do with them.
_OTHERS = {
    b"PK\x03\x04": "is a zip archive, as workbooks of Excel are. Unpack it, or save the sheet as CSV UTF-8.",
    b"PAR1": "is a parquet file. Name it .parquet.",
    b"ARROW1": "is a file of Arrow. Write it as parquet.",
    b"\x89HDF": "is a file of HDF5. Write it as parquet.",
    b"SQLite": "is a database of SQLite. Write the table as parquet or csv.",
    b"\xd0\xcf\x11\xe0": "is a workbook of Excel. Save the sheet as CSV UTF-8.",
    b"7z\xbc\xaf": "is a 7z archive. Unpack it.",
    b"Rar!": "is a rar archive. Unpack it.",
}
_MARKED = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # begins with the mark of UTF-16
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_SAID = re.compile(r'"?sep=(.)"?\r?\n')
_WRAPPED = re.compile(r'"(?:[^"]|"")*"')


def suffix_of(path: Path) -> str:
    """The ending that says what a file holds, in lower case: ".csv" of a.csv and of a.CSV.gz."""
    packed = path.suffix.lower() in PACKED
    return (Path(path.stem) if packed else path).suffix.lower()


def content_of(path: Path) -> bytes:
    """The bytes of a file, unpacked where gzip, bz2, xz or zstd packed it.

    Raises OSError, or DataError if it is broken, too large, or unpacks to far more than texts do.
    """
    # A device may never end, and says nothing of its size.
    most = largest_file() if path.is_file() else FREE_BYTES
    if path.stat().st_size > most:
        raise DataError(f"has {size(path.stat().st_size)}, and at most {size(most)} are read at once. Split the file.")
    with path.open("rb") as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise DataError(f"has more than {size(most)}, which are read at most. Split the file.")
    unpack = next((unpack for mark, unpack in _UNPACK if mark.match(content)), None)
    try:
        return content if unpack is None else _unpacked(io.BytesIO(content), unpack)
    except HostileError as error:
        raise DataError(f"cannot be unpacked: {error}. Repair the file, or unpack it yourself.") from error


def _unpacked(packed: io.BytesIO, unpack: Any) -> bytes:
    """The content, as long as it is not many times as long as what was read for it."""
    parts, length = [], 0
    with parsed(), unpack(packed) as file:
        while part := file.read(_CHUNK):
            parts.append(part)
            length += len(part)
            require_bounded(packed.tell(), length)
    return b"".join(parts)


def text_of(content: bytes) -> str:
    """The text of a file in UTF-8, or with the byte order mark of UTF-16 or UTF-32; line ends as they are."""
    encoding = next((name for mark, name in _MARKED if content.startswith(mark)), "utf-8")
    other = next((told for mark, told in _OTHERS.items() if content.startswith(mark)), None)
    if other is not None:
        raise DataError(other)
    if encoding == "utf-8" and b"\x00" in content[:4096]:
        raise DataError("holds zero bytes, as UTF-16 without a byte order mark does. Convert it to UTF-8.")
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        raise DataError(
            f"is not {encoding.upper()} ({error.reason} at byte {error.start}). Convert it to UTF-8; what programs on "
            "Windows wrote is often cp1252: iconv -f cp1252 -t utf-8 (of other scripts cp1251, gb18030, cp932 or the "
            "like: look at the texts afterwards)."
        ) from error


# ---- fields


def fields_of(text: str, usual: str, width: int | None) -> list[list[str]]:
    """The rows of a text of separated fields.

    usual: the separator that the ending promises. Fields between tabs are taken as they stand, a quote there is a
        quote, unless the header or doubled quotes show that they were quoted; others may be quoted, with line breaks.
    width: how many fields a row has; None: as many as the first.

    Another separator is taken where the usual one gives no even rows of two fields and that one alone does. Excel's
    first line "sep=;" is heeded. Raises DataError where quotes do not fit or two separators do.
    """
    said = _SAID.match(text)
    if said:
        return _quoted(text[said.end() :], said[1])
    rows, broken = None, None
    try:
        rows = _plain(text) if usual == "\t" else _quoted(text, usual)
    except DataError as error:
        broken = error
    if rows is not None and _even(rows, width) and not (usual == "\t" and _was_quoted(rows)):
        return rows
    head = text.partition("\n")[0]
    others = {other: _try(text, other) for other in SEPARATORS if other in head and (other != usual or usual == "\t")}
    fitting = {other: found for other, found in others.items() if found is not None and _even(found, width)}
    if len(fitting) > 1 and usual not in fitting:
        raise DataError(f"may be separated by {' or by '.join(SEPARATORS[sign] for sign in fitting)}. Use commas.")
    if fitting:
        return fitting.get(usual) or next(iter(fitting.values()))
    if broken is not None:
        raise broken
    assert rows is not None
    single = bool(rows) and len(rows[0]) == 1
    return next((found for found in others.values() if found is not None and single), rows)


def _plain(text: str) -> list[list[str]]:
    ends = "\r" if "\n" not in text else "\n"
    rows = [line.rstrip("\r").split("\t") for line in text.split(ends)]
    return [row for row in rows if row != [""]]


def _quoted(text: str, separator: str) -> list[list[str]]:
    head = text.partition("\n")[0]
    spaced = 0 < head.count(separator) == head.count(f"{separator} ")
    limit = csv.field_size_limit(sys.maxsize)
    try:
        lines = io.StringIO(text, newline="")
        rows = [row for row in csv.reader(lines, delimiter=separator, strict=True, skipinitialspace=spaced) if row]
    except csv.Error as error:
        raise DataError(f"cannot be read as .csv, separated by {_called(separator)}: {error}. Repair it.") from error
    finally:
        csv.field_size_limit(limit)
    several = bool(rows) and len(rows[0]) > 1
    return [row for row in rows if not (several and len(row) == 1 and not row[0].strip())]


def _called(separator: str) -> str:
    return SEPARATORS.get(separator, repr(separator))


def _try(text: str, separator: str) -> list[list[str]] | None:
    """The rows, or None where the quotes do not fit; those of tabs are then plain characters."""
    try:
        return _quoted(text, separator)
    except DataError:
        return _plain(text) if separator == "\t" else None


def _even(rows: list[list[str]], width: int | None) -> bool:
    """Whether every row has the same number of fields: `width`, or at least two."""
    sizes = {len(row) for row in rows}
    return len(sizes) == 1 and (min(sizes) > 1 if width is None else sizes == {width})


def _was_quoted(rows: list[list[str]]) -> bool:
    """Whether quotes around fields were put there by a writer: around all names, or with others inside doubled."""
    fields = [field for row in rows for field in row if field.startswith('"')]
    if not all(map(_WRAPPED.fullmatch, fields)):
        return False
    return all(name.startswith('"') for name in rows[0]) or any('""' in field[1:-1] for field in fields)


def require_once(names: Sequence[str]) -> None:
    """Raises DataError, to stand behind the name of the file, where two columns have one name."""
    if len(set(names)) < len(names):
        raise DataError(f"has the columns {', '.join(names)}, but each name may occur once. Rename them.")


# ---- JSON


def json_columns(text: str, lines: bool) -> dict[str, list[Any]]:
    """The columns of a JSON text: one object per row, a line each or in a list, or an object that holds the columns.

    lines: whether the ending promises lines, so that one object is a row. Of objects those are read that pandas writes
    (by column, by row, split), and a list of rows under any key, as the rows of the Hub's viewer are. Lists of messages
    without a name are the column messages.
    Raises DataError for anything else, and HostileError where rows of ever other keys would make a huge table.
    """
    try:
        content = json_of(text, once=True)
    except DataError:
        if not lines:
            raise
        content = _line_objects(text)
    except json.JSONDecodeError as error:
        if not lines and error.msg != "Extra data":
            raise DataError(f"cannot be read as .json: {error}. Repair the file.") from error
        content = _line_objects(text)
    if isinstance(content, dict):
        content = [content] if lines else rows_of(content)
    if isinstance(content, list) and content and all(map(_is_objects, content)):
        return {"messages": content}
    if not isinstance(content, list) or not all(isinstance(row, dict) for row in content):
        raise DataError("does not hold one object per row, in a list or one a line. Write it so.")
    names = dict.fromkeys(name for row in content for name in row)
    require_bounded(len(text), PLACE * len(names) * len(content))
    return {name: [row.get(name) for row in content] for name in names}


def _line_objects(text: str) -> list[Any]:
    rows = []
    for number, line in enumerate(text.split("\n"), start=1):
        try:
            rows += [json_of(line, once=True)] if line.strip() else []
        except DataError as error:
            raise DataError(f"cannot be read as .jsonl: line {number} {error}") from error
        except json.JSONDecodeError as error:
            raise DataError(f"cannot be read as .jsonl: line {number} is no JSON: {error}. Repair it.") from error
    return rows


def _is_objects(value: object) -> bool:
    """Whether this is a list of objects."""
    return isinstance(value, list) and bool(value) and all(isinstance(entry, dict) for entry in value)


def rows_of(content: dict[str, Any]) -> Any:
    """The rows of an object that holds a whole table; the object itself where it holds none."""
    parts = list(content.values())
    objects = bool(parts) and all(isinstance(part, dict) for part in parts)
    inner = content.get("data")
    if isinstance(inner, dict) and not (objects and len(parts) > 1):
        return rows_of(inner)
    if isinstance(inner, list) and "columns" in content and all(isinstance(row, list) for row in inner):
        require_once([str(name) for name in content["columns"]])
        return [dict(zip(content["columns"], row, strict=False)) for row in inner]
    rows = _listed_rows(content)
    if rows is not None:
        return rows
    if objects and _by_row(content):
        return parts
    if objects:
        return [{name: part.get(key) for name, part in content.items()} for key in parts[0]]
    if parts and all(isinstance(part, list) and len(part) == len(parts[0]) for part in parts):
        return [dict(zip(content, row, strict=True)) for row in zip(*parts, strict=True)]
    return content


def _listed_rows(content: dict[str, Any]) -> list[dict[str, Any]] | None:
    """The one list of rows that an object holds, as they are or as the Hub's viewer wraps them; None: none is."""
    tables = [key for key, part in content.items() if _is_objects(part)]
    if len(tables) > 1 and len(tables) == len(content):
        raise DataError(f"holds several tables ({', '.join(tables)}). Write each into a file of its own.")
    alone = sum(isinstance(part, list) for part in content.values()) == 1
    key = next((key for key in tables if alone or key in ("data", "rows")), None)
    if key is None:
        return None
    rows: list[dict[str, Any]] = content[key]
    viewed = all("row_idx" in row and isinstance(row.get("row"), dict) for row in rows)
    return [row["row"] for row in rows] if viewed else rows


def _by_row(content: dict[str, dict[str, Any]]) -> bool:
    """Whether objects in an object are rows under their names: numbers, or more of them than they have values."""
    first = next(iter(content.values()))
    counted = all(key.isdigit() for key in first)
    return all(key.isdigit() for key in content) or (not counted and len(content) > len(first))
