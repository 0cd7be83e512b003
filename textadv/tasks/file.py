"""Configurations as files: reading with overrides, writing, comparing, and the JSON Schema for editors."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import or_
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from textadv.config.errors import Read, explained, fields_at, shown
from textadv.config.run import RunSection
from textadv.config.types import ConfigError, Formerly, Section
from textadv.config.yaml import LONGEST, read_yaml
from textadv.tasks.registry import DEFAULT, PACKAGES, schema
from textadv.values.host.printable import not_utf8, shortened
from textadv.values.host.reading import size
from textadv.values.host.yaml_text import write_yaml

# Setting one of these replaces the whole component: its other keys belong to the component that the file names.
_COMPONENT = re.compile(
    r"(objective|attack|selection\.attack|evaluation\.(attacks|edits)\.[^.]+|evaluation\.elicitation\.attack)\.name|mixing\.(ratio|radius)_schedule\.kind"
)


def _read(path: Path) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            content = file.read(4 * LONGEST + 1)
        if len(content) > 4 * LONGEST:
            raise ConfigError([f"configuration file {path} has more than {size(4 * LONGEST)}. Name a configuration."])
        text = content.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError([f"configuration file {path} does not exist (looked in {Path.cwd()})."]) from error
    except UnicodeDecodeError as error:
        raise ConfigError([f"configuration file {path} is not UTF-8 text: {error}."]) from error
    except OSError as error:
        raise ConfigError([f"configuration file {path} cannot be read: {error.strerror}."]) from error
    data = read_yaml(text, str(path))
    if data is None:
        raise ConfigError([f"configuration file {path} is empty. It needs at least output, model.name and data.name."])
    if not isinstance(data, dict):
        raise ConfigError([f"configuration file {path} must hold `key: value` lines, got {shown(data)}."])
    return data


def _split(override: str) -> tuple[tuple[str, ...], Any]:
    """The path and the value of `attack.steps=5`."""
    told = not_utf8(override)
    if told is not None:
        raise ConfigError([f"override {shortened(override)} {told}"])
    key, equals, text = override.partition("=")
    path = tuple(key.strip().split("."))
    if not equals or not all(path):
        raise ConfigError([f"override {override!r} must have the form key=value, for example attack.steps=5."])
    return path, read_yaml(text, f"the value of override {override!r}")


def _schema_of(raw: Mapping[Any, Any]) -> type[RunSection]:
    """The schema of the task that the key `task` names, or else of the default."""
    task = raw.get("task")
    return schema(task if isinstance(task, str) and task in PACKAGES else DEFAULT)


def _with(node: Any, path: tuple[str, ...], value: Any, done: tuple[str, ...], raw: Any) -> Any:
    """A copy of `node`, which stands at `done` in `raw`, with `value` at `path` below it."""
    if not path:
        return value
    if node is None:
        node = {}
    if not isinstance(node, dict):
        raise ConfigError(
            [f"{'.'.join(done)} is {shown(node)} and no section, so an override cannot set {'.'.join((*done, *path))}."]
        )
    key, *rest = path
    known = {str(name): name for name in node}
    fields = fields_at(done, Read(raw, _schema_of(raw)))
    default = fields[key].default if rest and key in fields else None
    below = node.get(known.get(key, key))
    if below is None and isinstance(default, dict):
        below = {name: section.model_dump() for name, section in default.items()}
    return {**node, known.get(key, key): _with(below, tuple(rest), value, (*done, key), raw)}


def _overridden(raw: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration with the overrides, and the overrides by dotted key."""
    done: dict[tuple[str, ...], tuple[Any, str]] = {}
    for override in overrides:
        path, value = _split(override)
        done.pop(path, None)
        if _COMPONENT.fullmatch(".".join(path)):
            raw = _with(raw, path[:-1], {path[-1]: value}, (), raw)
            again = [(key, kept) for key, (kept, _) in done.items() if key[: len(path) - 1] == path[:-1] != key]
        else:
            again = [(path, value)]
        for key, kept in again:
            raw = _with(raw, key, kept, (), raw)
        done[path] = (value, override)
    return raw, {".".join(path): text for path, (_, text) in done.items()}


def _sections_filled(raw: dict[str, Any]) -> dict[str, Any]:
    """Every section that is left out or left empty as an empty one, so that errors name the keys that it needs; but
    for those that may be null."""
    filled, read = dict(raw), Read(raw, _schema_of(raw))
    for name, info in fields_at((), read).items():
        left = filled.get(name) is None and (name in raw or info.is_required()) and info.default is not None
        if left and fields_at((name,), read):
            filled[name] = {}
    return filled


def parse_config(
    raw: Mapping[str, Any], overrides: Sequence[str] = (), source: str = "the configuration"
) -> RunSection:
    """The checked configuration of a mapping such as a YAML file holds, with dotted overrides.

    raw: sections and keys as in a configuration file. overrides: for example "attack.steps=5"; setting a component's
    name, such as objective.name=trades, drops the component's other keys that `raw` holds. source: how errors call
    `raw`. Raises ConfigError with one line per problem.
    """
    merged, given = _overridden(dict(raw), overrides)
    if str(merged.get("task", DEFAULT)) not in PACKAGES:
        raise ConfigError([f"task must be one of {', '.join(PACKAGES)}, got {shown(merged['task'])}."])
    filled = _sections_filled(merged)
    kind = _schema_of(filled)
    try:
        return kind.model_validate(filled)
    except ValidationError as error:
        raise explained(error, Read(filled, kind), source, given) from error


def load_config(path: str | Path | None, overrides: Sequence[str] = ()) -> RunSection:
    """The checked configuration of a YAML file with dotted overrides; without a path, of the overrides alone.

    Raises ConfigError, as `parse_config` does, also where the file is missing, empty or not YAML.
    """
    if path is None:
        return parse_config({}, overrides, "the overrides")
    return parse_config(_read(Path(path)), overrides, str(path))


def written_config(path: str | Path) -> RunSection:
    """The configuration that a run wrote of itself, which holds every key that there was then.

    A key that has come since, and decides what was done in one way before, has that value and not today's default.
    Raises ConfigError as `load_config` does.
    """
    found = load_config(path)
    return _as_written(found, _read(Path(path)))


def _as_written(value: Any, raw: Any) -> Any:
    """The value that `raw` was parsed to, keys that are missing in `raw` as they were formerly."""
    if isinstance(value, list) and isinstance(raw, list):
        return [_as_written(one, other) for one, other in zip(value, raw, strict=True)]
    if isinstance(value, dict) and isinstance(raw, dict):
        return {key: _as_written(one, raw.get(key)) for key, one in value.items()}
    if not isinstance(value, Section) or not isinstance(raw, dict):
        return value
    changed = {}
    for name, info in type(value).model_fields.items():
        former = next((mark for mark in info.metadata if isinstance(mark, Formerly)), None)
        if name in raw:
            changed[name] = _as_written(getattr(value, name), raw[name])
        elif former is not None:
            changed[name] = former.value
    return value.model_copy(update=changed)


def dump_config(config: RunSection) -> str:
    """YAML text with every key of the configuration, defaults included; reading it gives an equal configuration."""
    return write_yaml(config.model_dump())


def _leaves(value: Any, prefix: str) -> dict[str, Any]:
    """The values of nested mappings by dotted key."""
    if not isinstance(value, dict) or not value:
        return {prefix: value}
    leaves: dict[str, Any] = {}
    for key, below in value.items():
        leaves |= _leaves(below, f"{prefix}.{key}" if prefix else str(key))
    return leaves


def _named_alike(one: Any, other: Any) -> bool:
    """Whether these are lists of sections that have the same names in the same order."""
    names = [
        [part.get("name") if isinstance(part, dict) else None for part in value] if isinstance(value, list) else []
        for value in (one, other)
    ]
    return names[0] == names[1] != [] and None not in names[0]


def config_difference(old: RunSection, new: RunSection) -> list[str]:
    """One line per key that differs, such as "attack.steps: 3 -> 5".

    Lists of sections are compared key by key, "objective.parts[0].away: 0.5 -> 0.2", where they name the same parts.
    checkpoint.resume, checkpoint.overwrite and tracking are left out: a run may go on with other values of them.
    """
    before, after = _leaves(old.model_dump(), ""), _leaves(new.model_dump(), "")
    for key in [key for key in before if _named_alike(before[key], after.get(key))]:
        for leaves in (before, after):
            for place, part in enumerate(leaves.pop(key)):
                leaves |= _leaves(part, f"{key}[{place}]")
    free = ("checkpoint.resume", "checkpoint.overwrite")
    keys = [key for key in {**before, **after} if key not in free and not key.startswith("tracking.")]

    def side(leaves: dict[str, Any], key: str) -> str:
        return shown(leaves[key]) if key in leaves else "(not set)"

    return [
        f"{key}: {side(before, key)} -> {side(after, key)}"
        for key in keys
        if key not in before or key not in after or before[key] != after[key]
    ]


def json_schema() -> dict[str, Any]:
    """The JSON Schema of a configuration file, with the meaning and unit of every key, for editors."""
    any_run: Any = reduce(or_, map(schema, PACKAGES))
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **TypeAdapter(any_run).json_schema(),
        "title": "Configuration of a textadv run",
    }


def schema_text() -> str:
    """The text of config.schema.json."""
    return json.dumps(json_schema(), indent=2, ensure_ascii=False) + "\n"
