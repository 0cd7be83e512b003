"""Half characters: the lone surrogates that cut texts hold (`"\\ud83d"`, half an emoji), and that no tokenizer takes.

JSON and Python can write them, UTF-8 cannot. Every text that is read goes through `unbroken`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

from textadv.values.errors import DataError
from textadv.values.host.printable import printable

Surrogates = Literal["error", "replace"]
"""What to do with half characters: name the row, or put U+FFFD, the sign for what cannot be read, in their place."""

_HALF = re.compile("[\ud800-\udfff]")
_AROUND = 20

T = TypeVar("T")


def unbroken(value: T, where: str, surrogates: Surrogates = "error") -> T:
    """`value`, a text or lists, mappings and dataclasses of texts, without half characters; itself if it has none.

    where: what errors begin with: the configuration key, the row and its place. Raises DataError where there is one and
    `surrogates` is "error".
    """
    text = next(_texts_with_half(value), None)
    if text is None:
        return value
    if surrogates == "replace":
        mended_value: T = _all_mended(value)
        return mended_value
    found = _HALF.search(text)
    assert found is not None
    around = text[max(0, found.start() - _AROUND) : found.end() + _AROUND]
    raise DataError(
        f"{where} has half of a character (a lone surrogate, {printable(found[0])}) at character {found.start()}, in "
        f"'{printable(around)}', and no tokenizer takes it. Correct or remove it, or set data.surrogates: replace, "
        "which puts U+FFFD in its place."
    )


def mended(text: str) -> str:
    """`text` with two halves that belong together joined, and U+FFFD in the place of every other half."""
    return text if _HALF.search(text) is None else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _texts_with_half(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        if not value.isascii() and _HALF.search(value):
            yield value
        return
    for part in _parts(value):
        yield from _texts_with_half(part)


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, Mapping):
        yield from value.keys()
        yield from value.values()
    elif isinstance(value, (list, tuple)):
        yield from value
    elif is_dataclass(value) and not isinstance(value, type):
        yield from (vars(value)[field.name] for field in fields(value))


def _all_mended(value: Any) -> Any:
    if isinstance(value, str):
        return mended(value)
    if isinstance(value, Mapping):
        return {_all_mended(key): _all_mended(part) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(_all_mended, value))
    if isinstance(value, (list, tuple)):
        return type(value)(map(_all_mended, value))
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: _all_mended(vars(value)[field.name]) for field in fields(value)})
    return value


def replaced_note(key: str, counts: Mapping[str, int]) -> list[str]:
    """A sentence for the report on the rows of each split in which half characters were replaced; none where none."""
    told = ", ".join(f"{count} {role}" for role, count in counts.items() if count)
    return [f"{key}: half characters stand as U+FFFD in {told} rows (data.surrogates: replace)."] if told else []
