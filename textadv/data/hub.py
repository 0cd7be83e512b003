"""Data sets of the Hub, and folders that `datasets` reads, -> named columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textadv.data.folders import endings_text, files_below, is_hidden
from textadv.data.tables import Table
from textadv.values.errors import DataError
from textadv.values.host.reading import HostileError, parsed

SAVED = ("dataset_dict.json", "state.json")
CALLED = {"train": ("train",), "validation": ("validation", "valid", "val", "dev"), "test": ("test",)}
"""What the split of a role is called, the first that is there."""
HIDDEN = (".", "_")
DESCRIPTIONS = (".md", ".rst", ".py", ".lock")


def read_hub(name: str, config: str | None, wanted: Mapping[str, str | None]) -> dict[str, Table]:
    """The splits of a data set, by role (train, validation, test); slices as "train[:10%]" are allowed.

    name: on the Hub, or a folder of files, or one that `datasets` saved.
    wanted: the split to take for each role, or None for the split that is called as in `CALLED`, where there is one
        that no other role takes. A role without a split is left out.
    Of csv files every value is a text as it is written: NA is no missing one, and 01 no 1.
    Raises DataError for an unknown data set or split, and where there is none to train on.
    """
    found = hub_rows(name, config, wanted)
    return {role: Table(place, *_read_columns(rows, place)) for role, (place, rows) in found.items()}


def hub_rows(name: str, config: str | None, wanted: Mapping[str, str | None]) -> dict[str, tuple[str, Any]]:
    """As `read_hub`, with what the split is called and the `datasets.Dataset` itself in place of its columns."""
    loaded = _loaded(name, config)
    found = {}
    for role, split in wanted.items():
        free = (known for known in CALLED.get(role, (role,)) if known in loaded and known not in wanted.values())
        chosen = split or next(free, None)
        if chosen is None and role == "train":
            raise DataError(f"data.train: {name} has no split of that name; there are {', '.join(loaded)}. Name one.")
        if chosen is None:
            continue
        if chosen in loaded:
            rows = loaded[chosen]
        else:
            rows = _sliced(loaded, chosen, f"data.{role}: {name}")
        found[role] = (f"{name}, split {chosen}", rows.with_format(None))
    return found


def unread(name: str, config: str | None) -> tuple[str, ...]:
    """A note on the files of a folder that `datasets` leaves out, which takes one format of those that are there."""
    import datasets

    folder = Path(name)
    if not folder.is_dir() or _saved(name):
        return ()
    sources = datasets.load_dataset_builder(name, config).config.data_files or {}
    read = {Path(str(file)).resolve() for files in sources.values() for file in files}
    shown = [file for file in files_below(folder, f"data.name: {name}") if not _is_description(file, folder)]
    left = [file for file in shown if file.resolve() not in read]
    if not left:
        return ()
    return (f"data.name: {name}: {len(left)} of {len(shown)} files are not read: {endings_text(left)}.",)


def _is_description(file: Path, folder: Path) -> bool:
    hidden = is_hidden(file, folder, HIDDEN)
    return hidden or file.suffix.lower() in DESCRIPTIONS or file.stem.lower() in ("license", "dataset_infos")


def _saved(name: str) -> bool:
    """Whether `name` is a folder that the save_to_disk of `datasets` wrote."""
    return any((Path(name) / file).is_file() for file in SAVED)


def _loaded(name: str, config: str | None) -> Mapping[str, Any]:
    """The splits of a data set by name."""
    import datasets

    if Path(name).is_file():
        raise DataError(f"data.name: {name} is a file. Set data.name: files and name the file in data.train.")
    try:
        if not _saved(name):
            return _as_written(name, config, datasets.load_dataset(name, config))
        saved = datasets.load_from_disk(name)
    except Exception as error:  # what a builder raises at a damaged file is anything
        generated = isinstance(error, datasets.exceptions.DatasetGenerationError)
        cause = error.__cause__ if generated and error.__cause__ is not None else error
        raise DataError(
            f"data.name: the data set {name!r} (data.config: {config}) cannot be loaded: {str(cause).rstrip('. ')}. "
            "Check the name and the network, or use data.name: files."
        ) from error
    return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}


def _as_written(name: str, config: str | None, loaded: Any) -> Any:
    """The splits with texts as csv files hold them: pandas would take a class called NA for a missing value."""
    import datasets

    first = next(iter(loaded.values()), None)
    if first is None or first.info.builder_name != "csv":
        return loaded
    texts = datasets.Value("string")
    kinds = {column: texts if isinstance(kind, datasets.Value) else kind for column, kind in first.features.items()}
    return datasets.load_dataset(name, config, features=datasets.Features(kinds), keep_default_na=False)


def _sliced(loaded: Mapping[str, Any], chosen: str, at: str) -> Any:
    """The rows of slices of splits, such as train[:10%] or train+validation; DataError where there are none such."""
    import datasets

    try:
        with parsed():
            sizes = {split: len(rows) for split, rows in loaded.items()}
            parts = datasets.ReadInstruction.from_spec(chosen).to_absolute(sizes)
            until = [sizes[part.splitname] if part.to is None else part.to for part in parts]
            chosen_rows = [
                loaded[part.splitname].select(range(part.from_ or 0, end))
                for part, end in zip(parts, until, strict=True)
            ]
            return datasets.concatenate_datasets(chosen_rows)
    except HostileError as error:
        raise DataError(f"{at} has no split {chosen!r}; there are {', '.join(loaded)}.") from error


def _read_columns(rows: Any, place: str) -> tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]]:
    try:
        with parsed():
            return {column: list(rows[column]) for column in rows.column_names}, declared(rows.features)
    except HostileError as error:
        raise DataError(f"data: {place} cannot be read: {error} Repair its files.") from error


def declared(features: Mapping[str, Any]) -> dict[str, tuple[str, ...]]:
    """The class names, by column, of columns of classes and of lists of them."""
    import datasets

    lists = (datasets.List, datasets.LargeList)
    inner = {column: kind.feature if isinstance(kind, lists) else kind for column, kind in features.items()}
    return {column: tuple(kind.names) for column, kind in inner.items() if isinstance(kind, datasets.ClassLabel)}
