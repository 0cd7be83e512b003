"""Values as YAML text: what its scalars look like, and how they are written without what acts on a terminal."""

from __future__ import annotations

import re
from typing import Any

import yaml

from textadv.values.host.printable import acts

CORE = "tag:yaml.org,2002:"
# The scalars of YAML 1.2. The parser's own rules are those of YAML 1.1, which read `no` as false and 1e-3 as text.
SCALARS = {
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?(?:0|[1-9][0-9]*)", "-+0123456789"),
    "float": (
        r"[-+]?(?:[0-9]+\.[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+0123456789.",
    ),
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "merge": (r"<<", "<"),
}


class _Dumper(yaml.SafeDumper):
    """Quotes text that YAML 1.1 or 1.2 would read as something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text_node(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    """Text in quotes where it holds what acts on a terminal or a page, for `write_yaml` to write out."""
    return dumper.represent_scalar(f"{CORE}str", text, style='"' if any(map(acts, text)) else None)


_Dumper.add_representer(str, _text_node)
for _tag, (_form, _first) in SCALARS.items():
    _Dumper.add_implicit_resolver(f"{CORE}{_tag}", re.compile(f"(?:{_form})$"), list(_first))


def write_yaml(data: Any) -> str:
    """YAML text that reads as `data`, without a character that acts on a terminal or a page."""
    text = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=110)
    # All that is left of these stands in double quotes, see `_text_node`.
    return "".join(letter if letter == "\n" or not acts(letter) else _escaped(letter) for letter in str(text))


def _escaped(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02X}" if number < 0x100 else f"\\u{number:04X}" if number < 0x10000 else f"\\U{number:08X}"
