"""Configurations as YAML 1.2, strict: what a text may hold, and how errors say where it does not."""

from __future__ import annotations

import re
from typing import Any

import yaml

from textadv.config.types import ConfigError
from textadv.values.host.printable import shortened
from textadv.values.host.reading import DEEPEST, HostileError, parsed
from textadv.values.host.yaml_text import CORE, SCALARS

LONGEST = 2**18
"""Characters of a configuration."""
MOST_NODES = 20_000
"""Keys and values of a configuration, each alias counted with all that it stands for."""

_PLAIN_TAGS = {"str", "seq", "map", *SCALARS}
_LARGEST_DIGITS = 300


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012 - the parser's interface
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        self._require_flat(self.depth)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def fetch_flow_collection_start(self, kind: Any) -> None:
        # The scanner looks at brackets in advance, and takes time for each pair of them.
        self._require_flat(self.flow_level)
        super().fetch_flow_collection_start(kind)

    def _require_flat(self, depth: int) -> None:
        if depth > DEEPEST:
            told = f"nested more than {DEEPEST} deep: write it flatter"
            raise yaml.composer.ComposerError(None, None, told, self.get_mark())


for _tag, (_form, _first) in SCALARS.items():
    _Loader.add_implicit_resolver(f"{CORE}{_tag}", re.compile(f"(?:{_form})$"), list(_first))


def read_yaml(text: str, source: str) -> Any:
    """What a YAML text holds: text, numbers, truth values, null, lists and mappings of these.

    source: how errors call it. Raises ConfigError where it is not YAML, holds a key twice, a tag of another type, a
    value that its tag does not fit, or more than a configuration needs.
    """
    if len(text) > LONGEST:
        raise ConfigError([f"{source} has {len(text):,} characters, and at most {LONGEST:,} are read. Shorten it."])
    try:
        with parsed(yaml.YAMLError):
            loader = _Loader(text)
            node = loader.get_single_node()
            lines = [] if node is None else _problems(node)
            if not lines:
                return None if node is None else loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise ConfigError([f"{source} is not valid YAML{place}: {error.problem or error.context}."]) from error
    except (yaml.YAMLError, HostileError) as error:
        raise ConfigError([f"{source} is not valid YAML: {error}."]) from error
    raise ConfigError([f"{source}: {line}" for line in lines])


def _problems(node: yaml.Node) -> list[str]:
    """One line for every thing in a document that no configuration holds."""
    lines: list[str] = []
    if _expanded(node, {}, ()) > MOST_NODES:
        lines.append(f"its aliases (*) make more than {MOST_NODES:,} values of it. Write out what you need.")
    else:
        _check(node, "", (), lines)
    return lines


def _expanded(node: yaml.Node, known: dict[int, int], around: tuple[int, ...]) -> int:
    """How many nodes there are where every alias is written out; a node inside itself counts once."""
    if id(node) in around:
        return 1
    if id(node) not in known:
        inner = (*around, id(node))
        parts: list[yaml.Node] = []
        if isinstance(node, yaml.SequenceNode):
            parts = node.value
        elif isinstance(node, yaml.MappingNode):
            parts = [part for pair in node.value for part in pair]
        known[id(node)] = 1 + sum(_expanded(part, known, inner) for part in parts)
    return known[id(node)]


def _check(node: yaml.Node, path: str, around: tuple[yaml.Node, ...], lines: list[str]) -> None:
    """Appends a line for every key that stands twice, every anchor inside itself and every odd tag or value."""
    at = f"{path or 'it'} (line {node.start_mark.line + 1})"
    if node in around:
        lines.append(f"{path} refers to itself. Remove the alias.")
        return
    lines += _odd(node, at)
    inner = (*around, node)
    if isinstance(node, yaml.SequenceNode):
        for i, item in enumerate(node.value):
            _check(item, f"{path}[{i}]", inner, lines)
    if not isinstance(node, yaml.MappingNode):
        return
    seen: dict[str, int] = {}
    for key, value in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            continue  # the parser says where it is
        lines += _odd(key, f"a key of {at}")
        name = f"{path}.{key.value}" if path else str(key.value)
        if key.value in seen:
            lines.append(f"{name} is given twice, in lines {seen[key.value]} and {line}. Keep one.")
        seen[key.value] = line
        _check(value, name, inner, lines)


def _odd(node: yaml.Node, at: str) -> list[str]:
    """What is wrong with one node by itself: its tag, a value that does not fit it, a character that no text needs."""
    tag = node.tag.removeprefix(CORE)
    if tag not in _PLAIN_TAGS:
        # The parser itself says of the others that it does not know them.
        return (
            []
            if node.tag not in _Loader.yaml_constructors
            else [f"{shortened(at)} has the tag !!{shortened(tag)}, which is not read. Write it without."]
        )
    if not isinstance(node, yaml.ScalarNode):
        return [] if tag == ("seq" if isinstance(node, yaml.SequenceNode) else "map") else [_misfit(at, tag, "a list")]
    if tag in SCALARS and not re.fullmatch(_forms(tag), node.value):
        return [_misfit(at, tag, shortened(repr(node.value)))]
    if tag in ("seq", "map"):
        return [_misfit(at, tag, "text")]
    if tag == "int" and len(node.value) > _LARGEST_DIGITS:
        return [f"{shortened(at)} is a number of {len(node.value)} digits. Write a smaller one."]
    bad = next((letter for letter in node.value if letter == "\0" or 0xD800 <= ord(letter) < 0xE000), None)
    if bad is not None:
        kind = "the zero byte" if bad == "\0" else "half of a character (a lone surrogate)"
        return [f"{shortened(at)} holds {kind}, {shortened(bad)}, in {shortened(node.value)}. Remove it."]
    return []


def _forms(tag: str) -> str:
    """What a scalar of the tag looks like; a whole number may be given as a float."""
    return f"{SCALARS['int'][0]}|{SCALARS[tag][0]}" if tag == "float" else SCALARS[tag][0]


def _misfit(at: str, tag: str, value: str) -> str:
    return f"{shortened(at)} has the tag !!{tag}, and {value} is none. Write it without the tag."
