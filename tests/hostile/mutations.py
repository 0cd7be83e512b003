"""What the fuzz tests draw: files with parts flipped, cut, doubled and exchanged, and values of every odd kind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

Edit = tuple[int, str, int, bytes]

PARTS = [
    b"",
    b"\x00",
    b"\xff",
    b"\xed\xa0\xbd",
    b"\xef\xbb\xbf",
    b"\xff\xfe",
    b"\\ud83d",
    b"\r",
    b"\n",
    b"\t",
    b'"',
    b"'",
    b",",
    b";",
    b":",
    b"{",
    b"}",
    b"[",
    b"]",
    b"&a ",
    b"*a",
    b"!!int ",
    b"!!timestamp ",
    b"- ",
    b"# ",
    b"<<: ",
    b"|",
    b">",
    b"%",
    b"null",
    b"NaN",
    b"1e999",
    b"-1",
    b"0",
    b"99999999999999999999",
    b"true",
    b"1" * 400,
    b"[" * 80,
    b'{"a":' * 80,
    b"\\",
    b"\x1b[31m",
    "\u202e".encode(),
    "\U0001f600".encode(),
    b"text",
    b"label",
    b"\x80" * 9,
    b"PK\x03\x04",
    b"\x1f\x8b\x08",
]
KINDS = ["insert", "replace", "delete", "double", "flip", "cut", "move"]

edits = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(KINDS), st.integers(1, 64), st.sampled_from(PARTS)),
    min_size=1,
    max_size=6,
)


def edited(content: bytes, changes: list[Edit]) -> bytes:
    """The content after the edits; places are counted modulo its length."""
    for place, kind, length, part in changes:
        at = place % (len(content) + 1)
        before, held, after = content[:at], content[at : at + length], content[at + length :]
        content = {
            "insert": before + part + held + after,
            "replace": before + part + after,
            "delete": before + after,
            "double": before + held + held + after,
            "flip": before + bytes(byte ^ (1 << length % 8) for byte in held[:1]) + held[1:] + after,
            "cut": before,
            "move": after + before + held,
        }[kind]
    return content


ODD: list[Any] = [
    None,
    True,
    False,
    0,
    1,
    -1,
    3,
    2**31,
    2**63,
    -(2**63),
    10**30,
    10**300,
    10**400,
    0.0,
    -0.0,
    0.5,
    1.5,
    1e308,
    -1e308,
    1e-320,
    float("inf"),
    float("-inf"),
    float("nan"),
    "",
    " ",
    "a",
    "0",
    "1",
    "-1",
    "1/0",
    "8/255",
    "1e3",
    "nan",
    "inf",
    "null",
    "true",
    "\x00",
    "\ud83d",
    "\x1b[31m",
    "a/b",
    "../..",
    "/",
    ".",
    "~",
    "a" * 300,
    "files",
    "builtin:reviews",
    "builtin:shapes",
    "pgd",
    "fgsm",
    "l2",
    "linf",
    "embeddings",
    "hidden",
    "pixels",
    "all-linear",
    [],
    [[]],
    [None],
    [1, 1],
    ["a", "a"],
    [{}],
    ["a", 1],
    {},
    {"a": 1},
    {"name": "pgd"},
    {"name": None},
    {"name": []},
    {"name": "nothing"},
    {"kind": "linear"},
    {1: 2},
    {None: 1},
]
NAMES: list[Any] = [
    "name",
    "kind",
    "steps",
    "radius",
    "task",
    "output",
    "model",
    "attack",
    "",
    "a.b",
    0,
    None,
    True,
    "\ud83d",
]

FRAGMENTS = [
    "{% for m in messages %}",
    "{% endfor %}",
    "{% if m.role == 'user' %}",
    "{% else %}",
    "{% endif %}",
    "{{ m.content }}",
    "{{ messages[0].content | trim }}",
    "{{ messages[-1]['content'] + 'x' }}",
    "{{ bos_token }}",
    "{{ eos_token }}",
    "{% break %}",
    "{% set a = 'x' * 9 %}",
    "{{ a * 10 ** 9 }}",
    "{{ range(10 ** 9) }}",
    "{{ range(5) | list }}",
    "{% generation %}",
    "{% endgeneration %}",
    "{{ raise_exception('no') }}",
    "{{ strftime_now('%Y') }}",
    "{{ messages | tojson }}",
    "{{ 1 // 0 }}",
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}",
    "{% macro f(x) %}",
    "{% endmacro %}",
    "{{ f(1) }}",
    "<think>",
    "</think>",
    "{% set n = namespace(a=0) %}",
    "{% set n.a = n.a + 1 %}",
    "{{ '\\ud83d' }}",
    "{{ m }}",
    "text ",
    "\x00",
    "\u202e",
    "{% include 'x' %}",
    "{{ m.content[::-1] }}",
    "{{ loop.index }}",
    "{# c #}",
    "{%",
    "}}",
    "{{ m.content.format(1) }}",
    "\n",
]

CHANGES = ["value", "drop", "add", "rename", "graft"]
odd = st.sampled_from(ODD)
changes = st.lists(
    st.tuples(
        st.integers(0, 10**6), st.sampled_from(["value", "drop", "add", "rename", "graft"]), odd, st.sampled_from(NAMES)
    ),
    min_size=1,
    max_size=5,
)


def places(value: Any) -> list[tuple[Any, Any]]:
    """Every key or index in nested mappings and lists, with what holds it."""
    found: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, part in list(inner):
        found += [(value, key), *places(part)]
    return found


def changed(value: Any, wanted: list[tuple[int, str, Any, Any]]) -> Any:
    """The nested value after the changes, in place."""
    for number, kind, drawn, name in wanted:
        other = copy.deepcopy(drawn)
        there = places(value)
        if not there:
            return other
        holder, key = there[number % len(there)]
        if kind == "value":
            holder[key] = other
        elif kind == "drop":
            holder.pop(key)
        elif kind == "graft":
            source, part = there[(number // 7) % len(there)]
            holder[key] = source[part] if not isinstance(source[part], dict | list) else dict.fromkeys([name], 1)
        elif isinstance(holder, dict):
            holder[name] = other if kind == "add" else holder.pop(key)
        else:
            holder.append(other)
    return value


def examples(count: int) -> Callable[[Any], Any]:
    """So many examples, the same ones each time, none of them timed."""
    return settings(
        max_examples=count,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
