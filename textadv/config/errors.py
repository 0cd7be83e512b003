"""What is wrong with a configuration, said in the user's own keys: one line per problem, with the remedy."""

from __future__ import annotations

import difflib
import re
import reprlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from textadv.config.types import ConfigError

Path = tuple[str | int, ...]


class Read(NamedTuple):
    """A configuration as read, which says which objective, attack or schedule a section is, and the run's schema."""

    raw: object
    schema: type[BaseModel]


_REQUIREMENTS = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be greater than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "finite_number": "must be a finite number",
    "int_type": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "may hold only letters, digits, - and _",
    "literal_error": "must be {expected}",
    "union_tag_invalid": "must be one of {expected_tags}",
    "list_type": "must be a list",
    "dict_type": "must be a section of keys",
    "model_type": "must be a section of keys",
    "model_attributes_type": "must be a section of keys",
    "too_short": "must not be empty",
}

_BOUNDS = ("ge", "gt", "le", "lt")

# Which key of a section says which of several sections it is.
_KINDS = ("name", "kind")


def dotted(path: Path) -> str:
    """The path as the user writes it, for example evaluation.radii[1]."""
    return "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in path).lstrip(".")


def shown(value: object) -> str:
    """The value as a configuration file would hold it, shortened."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    short = reprlib.Repr()
    short.maxstring = short.maxother = 80
    return short.repr(value)


def _models(annotation: Any) -> list[type[BaseModel]]:
    """Every section that a type may hold."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models(part)]


def _holds_any_key(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(_holds_any_key(part) for part in get_args(annotation))


def _holds_list(annotation: Any) -> bool:
    return get_origin(annotation) is list or any(_holds_list(part) for part in get_args(annotation))


def _chosen(models: list[type[BaseModel]], node: object) -> list[type[BaseModel]]:
    """Of several sections those that the name or kind in `node` stands for; all where it stands for none."""
    if len(models) < 2 or not isinstance(node, Mapping):
        return models
    return [model for model in models if _stands_for(model, node)] or models


def _stands_for(model: type[BaseModel], node: Mapping[Any, Any]) -> bool:
    """Whether the name or kind in `node` is the section's; without any, the section of several names is meant."""
    for kind in _KINDS:
        names = get_args(model.model_fields[kind].annotation) if kind in model.model_fields else ()
        if (node[kind] in names) if kind in node else len(names) > 1:
            return True
    return False


def fields_at(path: Path, read: Read) -> dict[str, FieldInfo]:
    """The valid keys of the section at `path`; empty where there is a list, no section, or one whose keys are free."""
    models: list[type[BaseModel]] = [read.schema]
    free_key = listed = False
    node: Any = read.raw
    for key in path:
        if isinstance(key, int):
            node = node[key] if isinstance(node, list) and key < len(node) else None
            listed, models = False, _chosen(models, node)
            continue
        node = node.get(key) if isinstance(node, Mapping) else None
        if free_key:
            free_key, models = False, _chosen(models, node)
            continue
        annotations = [m.model_fields[str(key)].annotation for m in models if key in m.model_fields]
        free_key = any(_holds_any_key(annotation) for annotation in annotations)
        listed = any(_holds_list(annotation) for annotation in annotations)
        found = [m for annotation in annotations for m in _models(annotation)]
        models = found if free_key else _chosen(found, node)
    return {} if free_key or listed else {name: info for m in models for name, info in m.model_fields.items()}


def _all_keys(annotation: Any, prefix: str = "") -> Iterator[str]:
    """Every dotted key of the schema without those below keys of the user's choice and in lists of sections."""
    for model in _models(annotation):
        for name, info in model.model_fields.items():
            yield prefix + name
            if not _holds_any_key(info.annotation) and not _holds_list(info.annotation):
                yield from _all_keys(info.annotation, f"{prefix}{name}.")


def _nearest(path: Path, keys: list[str], read: Read) -> str | None:
    """The dotted key that was probably meant by the unknown `path`."""
    key, section = str(path[-1]), path[:-1]
    near = difflib.get_close_matches(key, keys, n=1)
    if near:
        return dotted((*section, near[0]))
    elsewhere = [name for name in _all_keys(read.schema) if name.rsplit(".", 1)[-1] == key and name != dotted(path)]
    return elsewhere[0] if elsewhere else None


def _models_around(path: Path, read: Read) -> list[type[BaseModel]]:
    """Every section that could stand at `path`, whatever stands there."""
    named = path[:-1] if path and isinstance(path[-1], int) else path
    info = fields_at(named[:-1], read).get(str(named[-1])) if named else None
    if info is None and len(named) > 1:
        # Below a key of the user's choice the section is what the key around it holds.
        around = fields_at(named[:-2], read).get(str(named[-2]))
        info = around if around is not None and _holds_any_key(around.annotation) else None
    return [] if info is None else _models(info.annotation)


def _owners(path: Path, read: Read) -> list[str]:
    """The names (or kinds) with which the section around `path` would have that key."""
    section = dotted(path[:-1])
    models = _models_around(path[:-1], read)
    return [
        f"{section}.{kind}: {model.model_fields[kind].default}"
        for model in models
        for kind in _KINDS
        if len(models) > 1 and path[-1] in model.model_fields and kind in model.model_fields
    ]


def _unknown(path: Path, read: Read, source: str) -> str:
    keys = list(fields_at(path[:-1], read))
    owners = _owners(path, read)
    near = _nearest(path, keys, read)
    meant = f": did you mean {near}?" if near else "."
    if owners:
        meant = f": it belongs to {' and '.join(owners)}."
    where = f"Valid keys of {dotted(path[:-1])}" if len(path) > 1 else "Valid top-level keys"
    return f"unknown key {dotted(path)} in {source}{meant} {where}: {', '.join(keys)}."


def _path(loc: Path, read: Read, kind: str) -> Path:
    """Where a problem is in the user's file: pydantic's place without the names of its own types."""
    path: list[str | int] = []
    node: Any = read.raw
    for i, key in enumerate(loc):
        listed = isinstance(node, list) and isinstance(key, int) and key < len(node)
        if listed or (isinstance(node, Mapping) and key in node):
            node = node[key]
        elif not (kind == "missing" and i == len(loc) - 1):
            continue
        path.append(key)
    return tuple(path)


def _meaning(path: Path, read: Read) -> str:
    """What the key at `path` sets, as a closing remark, or nothing for a key without a description."""
    named = path[:-1] if isinstance(path[-1], int) else path
    info = fields_at(named[:-1], read).get(str(named[-1]))
    return f" ({info.description})" if info is not None and info.description else ""


def _rule_lines(problem: ConfigError, path: Path, value: object, read: Read) -> list[str]:
    """The lines of a rule of the schema, in the user's keys."""
    lines = []
    for line in problem.lines:
        if line.startswith("must "):
            lines.append(f"{dotted(path)} {line}, got {shown(value)}.{_meaning(path, read)}")
            continue
        # The rules of an attack call it attack, wherever it stands.
        named = path[:2] == ("evaluation", "attacks") or path == ("evaluation", "minimum_radius", "attack")
        measuring = named or fields_at(path, read).get("restarts")
        text = re.sub(r"\battack\.(?=\w)", f"{dotted(path)}.", line) if measuring else line
        lines.append(f"{text} {_no_attack(read)}" if text.startswith("attack.steps must be") else text)
    return lines


def _no_attack(read: Read) -> str:
    """How a run of this task is trained without an attack: not every task has objective.name."""
    plain = "objective.name: clean" if "name" in fields_at(("objective",), read) else "mixing.ratio: 0"
    return f"To train without an attack set {plain}."


def _requirement(kind: str, context: Mapping[str, Any], message: str) -> str:
    """What pydantic's problem `kind` asks of a value, as the rest of a sentence that starts with the key."""
    if kind not in _REQUIREMENTS:
        return message
    if kind == "too_short" and context.get("min_length", 1) > 1:
        return f"must hold at least {context['min_length']}"
    whole = {name: int(context[name]) for name in _BOUNDS if name in context and context[name] == int(context[name])}
    return _REQUIREMENTS[kind].format(**{**context, **whole})


def _value_line(path: Path, value: object, what: str, read: Read) -> str:
    """The line for a value that is not what the schema asks for."""
    line = f"{dotted(path)} {what}, got {shown(value)}."
    near = difflib.get_close_matches(str(value), re.findall(r"'([^']*)'", what), n=1)
    if near:
        line += f" Did you mean {near[0]}?"
    if what == _REQUIREMENTS["string_type"] and isinstance(value, (bool, int, float)):
        line += " Put quotes around it."
    kinds = [key for key in _KINDS if key in fields_at(path, read)]
    if kinds and isinstance(value, str):
        line += f" Write {dotted(path)}.{kinds[0]}: {value}."
    return line


def _source(key: str, source: str, overrides: dict[str, str]) -> str:
    """What holds `key`: the last override of it, of a section around it or of a key below it, or else the file."""
    key = re.sub(r"\[\d+\]", "", key)
    for given, text in reversed(overrides.items()):
        if f"{given}.".startswith(f"{key}.") or f"{key}.".startswith(f"{given}."):
            return f"the override {text}"
    return source


def _lines(problem: Mapping[str, Any], read: Read, source: str, overrides: dict[str, str]) -> list[str]:
    """The lines for one problem as pydantic describes it."""
    kind, loc, value, context = problem["type"], problem["loc"], problem["input"], problem.get("ctx", {})
    path = _path(loc, read, kind)
    if kind == "invalid_key":
        return [f"{dotted(path[:-1]) or source} has the key {loc[-1]}, which is no text. Correct or remove it."]
    if kind == "extra_forbidden":
        return [_unknown(path, read, _source(dotted(path), source, overrides))]
    if kind == "missing":
        return [f"{dotted(path)} is missing in {source}.{_meaning(path, read)}"]
    if kind == "value_error" and isinstance(context.get("error"), ConfigError):
        return _rule_lines(context["error"], path, value, read)
    if kind == "union_tag_not_found":
        key = context["discriminator"].strip("'")
        choices = ", ".join(str(model.model_fields[key].default) for model in _models_around(path, read))
        return [
            f"{dotted(path)}.{key} is missing in {_source(dotted(path), source, overrides)}. Choose one of {choices}."
        ]
    what = _requirement(kind, context, problem["msg"])
    if not path:
        return [f"{source} {what}, got {shown(value)}."]
    if loc[-1:] == ("[key]",):
        return [f"{dotted(path[:-1])}: the key {shown(value)} {what}."]
    if kind == "union_tag_invalid":
        key = context["discriminator"].strip("'")
        return [_value_line((*path, key), value[key], what, read)]
    return [_value_line(path, value, what, read) + _meaning(path, read)]


def explained(error: ValidationError, read: Read, source: str, overrides: dict[str, str]) -> ConfigError:
    """All problems that validation found, as one error.

    read: what was validated. source: the file's name. overrides: dotted key -> the override's text.
    """
    lines = [line for problem in error.errors() for line in _lines(problem, read, source, overrides)]
    return ConfigError(list(dict.fromkeys(lines)))
