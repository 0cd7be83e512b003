"""Files -> named columns."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

from textadv.data.classes import shortened
from textadv.data.spellings import spelled
from textadv.data.text_files import SEPARATORS, content_of, fields_of, json_columns, require_once, suffix_of, text_of
from textadv.values.errors import DataError
from textadv.values.host.phases import each
from textadv.values.host.reading import FREE_BYTES, PLACE, HostileError, json_of, parsed, require_bounded

USUAL_SEPARATOR = {".csv": ",", ".tsv": "\t"}
JSON_LINES = {".json": False, ".jsonl": True, ".ndjson": True}
SUFFIXES = (*USUAL_SEPARATOR, *JSON_LINES, ".parquet")
UNREAD = {
    ".zip": "Unpack it, and name what is in it.",
    ".tar": "Unpack it, and name what is in it.",
    ".tgz": "Unpack it, and name what is in it.",
    ".psv": "Name it .csv: separators are found.",
    ".tab": "Name it .tsv.",
    ".feather": "Write it as parquet.",
    ".pkl": "Write it as parquet: opening a pickle runs what it holds.",
    **dict.fromkeys((".pickle", ".pt", ".joblib"), "Write it as parquet: opening a pickle runs what it holds."),
    ".txt": "Name it after what it holds: .csv for fields between separators, .jsonl for objects, one a line.",
    ".xlsx": "Save the sheet as CSV UTF-8.",
    ".xls": "Save the sheet as CSV UTF-8.",
    ".arrow": "Write it as parquet.",
}
LONG_NAME = 60
MOST_COLUMNS = 100_000
ROWS_AT_ONCE = 4096
MARK = "\ufeff"


@dataclass(frozen=True)
class Table:
    """Columns of equal length.

    place: what to call the source in a message.
    class_names: per column, the class names that the source itself declares (Hub data sets and their parquet files do).
    """

    place: str
    columns: dict[str, list[Any]]
    class_names: Mapping[str, tuple[str, ...]]

    def __len__(self) -> int:
        return max((len(values) for values in self.columns.values()), default=0)

    def column(self, name: str, key: str, remedy: str | None = None, header: str | None = None) -> list[Any]:
        """The values of column `name`; DataError where there is none, naming the config key `key` that names it.

        remedy: what to do where no key names it. header: the key that names columns where the file does not.
        """
        if name in self.columns:
            return self.columns[name]
        if remedy is not None:
            raise DataError(f"{key}: {self.without(name)} {remedy}")
        near = get_close_matches(name, list(self.columns), n=1)
        hint = f"Set {key} to one of them{f', or {header} where it has no header' if header else ''}."
        if self.headless:
            naming = f"name the columns in {header}" if header else "give it a row with the names of the columns"
            hint = f"Its first row looks like data: {naming}."
        if near:
            hint = f"Set {key}: {near[0]}."
        sign = next((sign for column in self.columns for sign in SEPARATORS if name in column.split(sign)), None)
        if sign is not None:
            hint = (
                f"They look separated by {SEPARATORS[sign]}. Write commas; or, where data.name is a folder, set "
                "data.name: files and name the files, whose separators are found."
            )
        elif len(self.columns) == 1:
            (only,) = self.columns
            other = next((other for other in re.findall(r"\W+", only) if name in only.split(other)), None)
            hint = hint if other is None else f"They look separated by {other!r}. Write commas."
        raise DataError(f"{key}: {self.without(name)} {hint}")

    def without(self, name: str) -> str:
        """That there is no column `name`, and which ones there are."""
        return f"no column {name!r} in {self.place}; there are {shortened(self.columns)}."

    @property
    def headless(self) -> bool:
        """Whether the names look like a row of data: a number, a long text, or a value of their own column."""
        return any(
            len(name) > LONG_NAME or isinstance(spelled(name), (int, float)) or name in values
            for name, values in self.columns.items()
        )


class _Columns(NamedTuple):
    """The columns of one file, and the class names that it declares, by column."""

    values: dict[str, list[Any]]
    class_names: dict[str, tuple[str, ...]]


def read_files(
    paths: Sequence[str | Path], columns: Sequence[str] | None, key: str, used: Set[str] | None = None
) -> Table:
    """The rows of all files, one after the other. `columns` names the columns of csv and tsv files without a header.

    used: the columns that are read; where every file has these, one may lack others, None in its rows. By default all
        files have the same.

    What a file of another separator, compression or encoding is read as, see `text_files`. Class names are those that
    every file declares.
    Raises DataError, naming the config key `key`, for a file that is missing, unreadable or of an unknown kind.
    """
    named = each(f"reading {key}", map(Path, paths), len(paths), "files")
    parts = [(path, _read_file(path, columns, key)) for path in named]
    first_path, first = parts[0]
    for path, part in parts[1:]:
        if list(part.values) != list(first.values) and (
            used is None or not used <= first.values.keys() & part.values.keys()
        ):
            raise DataError(
                f"{key}: the files do not have the same columns: {first_path} has {', '.join(first.values)}; "
                f"{path} has {', '.join(part.values)}. Give them the same header."
            )
        for name in part.class_names.keys() & first.class_names.keys():
            if part.class_names[name] != first.class_names[name]:
                raise DataError(
                    f"{key}: the files declare other classes of {name}: {first_path} has "
                    f"{shortened(first.class_names[name])}; {path} has {shortened(part.class_names[name])}. Write them "
                    "with the same class names, in the same order."
                )
    names = list(dict.fromkeys(name for _, part in parts for name in part.values))
    sizes = [max((len(values) for values in part.values.values()), default=0) for _, part in parts]
    joined = {
        name: [
            value
            for (_, part), size in zip(parts, sizes, strict=True)
            for value in part.values.get(name, [None] * size)
        ]
        for name in names
    }
    declared = {
        name: names for name, names in first.class_names.items() if all(name in p.class_names for _, p in parts)
    }
    return Table(", ".join(str(path) for path, _ in parts), joined, declared)


def _read_file(path: Path, columns: Sequence[str] | None, key: str) -> _Columns:
    suffix = suffix_of(path)
    if path.is_dir():
        whole = f", or set {_naming(key)} to a data set's folder" if _naming(key) else ""
        raise DataError(f"{key}: {path} is a folder. Name the files in it{whole}.")
    if suffix not in SUFFIXES:
        known, more = ", ".join(sorted(SUFFIXES)), UNREAD.get(suffix, "")
        if suffix == ".arrow" and _naming(key):
            more = f"Set {_naming(key)} to the folder that datasets saved it in, or write it as parquet."
        raise DataError(f"{key}: {path} has no known extension; use one of {known}. {more}".rstrip())
    if not path.is_file():
        raise DataError(f"{key}: there is no file {path} (looked in {Path.cwd()}). Correct {key}.")
    try:
        if suffix == ".parquet":
            table = parquet_table(path)
            with parsed():
                return _Columns(dict(table.to_pydict()), declared_classes(table.schema.metadata))
        text = text_of(content_of(path))
        if suffix in JSON_LINES:
            return _Columns(json_columns(text, JSON_LINES[suffix]), {})
        width = None if columns is None else len(columns)
        return _Columns(_headed(fields_of(text, USUAL_SEPARATOR[suffix], width), columns), {})
    except DataError as error:
        raise DataError(f"{key}: {path} {error}") from error
    except HostileError as error:
        raise DataError(f"{key}: {path} cannot be read as {suffix}: {error}. Repair the file.") from error
    except OSError as error:
        raise DataError(f"{key}: {path} cannot be read: {error.strerror}.") from error


def _naming(key: str) -> str:
    """The key that names the data set whose part stands at `key`, as data.name for data.train; "" where none does."""
    section, _, part = key.rpartition(".")
    return f"{section}.name" if key.startswith("data.") and part in ("train", "validation", "test") else ""


def _headed(rows: list[list[str]], columns: Sequence[str] | None) -> dict[str, list[Any]]:
    """Rows of fields as columns; the names are `columns`, or else the first row."""
    names, body = (list(columns), rows) if columns is not None else (rows[0] if rows else [], rows[1:])
    if len(names) > MOST_COLUMNS:
        raise DataError(
            f"has {len(names):,} columns, and at most {MOST_COLUMNS:,} are read. Leave out those that are not needed."
        )
    names = [name.strip().strip(MARK).strip() for name in names]
    for number, row in enumerate(body):
        if len(row) != len(names):
            raise DataError(
                f"cannot be read: row {number} (counted from 0) has {len(row)} fields, {', '.join(names)} are "
                f"{len(names)}{' (set by data.columns)' if columns is not None else ''}. Repair the file; a text that "
                "holds the separator needs quotes around it."
            )
        if row == names and len(names) > 1:
            raise DataError(
                f"cannot be read: row {number} (counted from 0) repeats the names of the columns, {', '.join(names)}. "
                + ("Remove that row." if columns is None else "Leave data.columns out, or remove that row.")
            )
    if columns is not None and body and {field.strip() for field in body[0]} & set(names):
        raise DataError(
            f"has a header, {shortened(body[0])}, and data.columns is for files without one. Leave data.columns out."
        )
    found = [(name, [row[place] for row in body]) for place, name in enumerate(names)]
    found = [(name, values) for name, values in found if name or any(map(str.strip, values))]
    require_once([name for name, _ in found])
    return dict(found)


# ---- parquet


def parquet_table(path: str | Path) -> Any:
    """The `pyarrow.Table` of a parquet file, categories (dictionaries) as their values.

    Raises DataError where it is none, or becomes far more than texts and images do.
    """
    try:
        with parsed():
            table = _plain_table(Path(path))
    except HostileError as error:
        raise DataError(f"cannot be read as .parquet: {error}. Repair the file.") from error
    require_once(table.column_names)
    return table


def _plain_table(path: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    packed, length, batches = path.stat().st_size, 0, []
    with pyarrow.parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=_rows_at_once(file.metadata)):
            batches.append(batch)
            # Nothing is stored of values that are missing, and each is a value here.
            length += batch.nbytes + PLACE * max(sum(map(_values, batch.columns)), batch.num_rows)
            require_bounded(packed, length)
        table = pyarrow.Table.from_batches(batches, schema=file.schema_arrow)
    for place, field in enumerate(table.schema):
        if pyarrow.types.is_dictionary(field.type):
            plain = table.column(place).cast(field.type.value_type)
            table = table.set_column(place, field.name, plain)
    table.validate(full=True)
    return table


def _values(column: Any) -> int:
    """How many values an array of Arrow is in Python, those inside lists and structures counted too."""
    from pyarrow import types

    kind = column.type
    if types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind):
        return len(column) + _values(column.flatten())
    if types.is_struct(kind):
        return len(column) + sum(map(_values, column.flatten()))
    return len(column)


def _rows_at_once(metadata: Any) -> int:
    """How many rows stay within bounds whatever is in them: each value may be a whole column chunk, repeated."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    chunks = [group.column(place).total_uncompressed_size for group in groups for place in range(group.num_columns)]
    return min(max(FREE_BYTES // max(*chunks, 1, 1), 1), ROWS_AT_ONCE)


def declared_classes(metadata: Mapping[bytes, bytes] | None) -> dict[str, tuple[str, ...]]:
    """The class names, by column, that `datasets` writes into the metadata of a parquet file."""
    try:
        written: Any = json_of((metadata or {}).get(b"huggingface", b"{}"))
    except ValueError:
        return {}
    for key in ("info", "features"):
        written = written.get(key) if isinstance(written, dict) else None
    features = written if isinstance(written, dict) else {}
    kinds = {name: kind for name, kind in features.items() if isinstance(kind, dict)}
    kinds = {name: inner if isinstance(inner := kind.get("feature"), dict) else kind for name, kind in kinds.items()}
    named = {name: kind.get("names") for name, kind in kinds.items() if kind.get("_type") == "ClassLabel"}
    lists = {name: names for name, names in named.items() if isinstance(names, list)}
    return {name: tuple(names) for name, names in lists.items() if all(isinstance(one, str) for one in names)}
