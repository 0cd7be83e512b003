"""Data sets of the Hub, and folders that `datasets` reads, -> named columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textadv.data.examples import DataError
from textadv.data.tables import Table
from textadv.reading import HostileError, parsed

SAVED = ("dataset_dict.json", "state.json")


def read_hub(name: str, config: str | None, wanted: Mapping[str, str | None]) -> dict[str, Table]:
    """The splits of a data set, by role (train, validation, test); slices as "train[:10%]" are allowed.

    name: on the Hub, or a folder of files, or one that `datasets` saved.
    wanted: the split to take for each role, or None for the split of the role's own name, where there is one that no
        other role takes. A role without a split is left out.
    Raises DataError for an unknown data set or split.
    """
    found = hub_rows(name, config, wanted)
    return {role: Table(place, *_read_columns(rows, place)) for role, (place, rows) in found.items()}


def hub_rows(name: str, config: str | None, wanted: Mapping[str, str | None]) -> dict[str, tuple[str, Any]]:
    """As `read_hub`, with what the split is called and the `datasets.Dataset` itself in place of its columns."""
    loaded = _loaded(name, config)
    found = {}
    for role, split in wanted.items():
        if split is None and (role not in loaded or role in wanted.values()):
            continue
        chosen = split or role
        if chosen in loaded:
            rows = loaded[chosen]
        elif chosen.partition("[")[0] in loaded:
            rows = _sliced(name, config, loaded, chosen)
        else:
            raise DataError(f"data.{role}: {name} has no split {chosen!r}; there are {', '.join(loaded)}.")
        found[role] = (f"{name}, split {chosen}", rows)
    return found


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
            return datasets.load_dataset(name, config)
        saved = datasets.load_from_disk(name)
    except Exception as error:  # what a builder raises at a damaged file is anything
        generated = isinstance(error, datasets.exceptions.DatasetGenerationError)
        cause = error.__cause__ if generated and error.__cause__ is not None else error
        raise DataError(
            f"data.name: the data set {name!r} (data.config: {config}) cannot be loaded: {cause} "
            "Check the name and the network, or use data.name: files."
        ) from error
    return saved if isinstance(saved, datasets.DatasetDict) else {"train": saved}


def _sliced(name: str, config: str | None, loaded: Mapping[str, Any], chosen: str) -> Any:
    """The rows of a slice of a split, such as train[:10%]."""
    import datasets

    try:
        with parsed():
            if not _saved(name):
                return datasets.load_dataset(name, config, split=chosen)
            sizes = {split: len(rows) for split, rows in loaded.items()}
            parts = datasets.ReadInstruction.from_spec(chosen).to_absolute(sizes)
            return loaded[parts[0].splitname].select(range(parts[0].from_ or 0, parts[0].to))
    except HostileError as error:
        raise DataError(f"data: {chosen!r} of {name} cannot be read: {error} Write it as train[:10%].") from error


def _read_columns(rows: Any, place: str) -> tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]]:
    try:
        with parsed():
            return _columns(rows)
    except HostileError as error:
        raise DataError(f"data: {place} cannot be read: {error} Repair its files.") from error


def _columns(rows: Any) -> tuple[dict[str, list[Any]], dict[str, tuple[str, ...]]]:
    import datasets

    declared = {
        column: tuple(feature.names)
        for column, feature in rows.features.items()
        if isinstance(feature, datasets.ClassLabel)
    }
    return {column: list(rows[column]) for column in rows.column_names}, declared
