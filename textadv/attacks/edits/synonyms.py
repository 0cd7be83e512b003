"""Tables of words that may stand for each other: from files, with bad rows left out and named, and from WordNet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from textadv.values.digests import digest
from textadv.values.errors import DataError
from textadv.values.host.printable import shortened
from textadv.values.host.reading import HostileError, parsed

NAMED = 5
PARTS_OF_SPEECH = ("noun", "verb", "adj", "adv")
_BLANK = re.compile(r"[ \t\r\n]*")


@dataclass(frozen=True)
class WordTable:
    """Word -> words that may stand for it, nearest first. It prints itself by its name and a hash of what it holds.

    words: in lower case. bad: what was left out when it was read, a sentence each, by line.
    """

    name: str
    words: Mapping[str, tuple[str, ...]] = field(repr=False)
    bad: tuple[str, ...] = field(default=(), repr=False, compare=False)
    hash: str = field(init=False, default="")

    def __post_init__(self) -> None:
        held = (f"{word}\t{others}\n".encode() for word, others in sorted(self.words.items()))
        object.__setattr__(self, "hash", digest(held)[:12])

    def __hash__(self) -> int:
        return hash((self.name, self.hash))

    def of(self, word: str) -> tuple[str, ...]:
        """What may stand for this word, in any case; nothing where the table does not know it."""
        return self.words.get(word.lower(), ())

    @property
    def note(self) -> str | None:
        """A sentence on what was left out, with the first of it; None where nothing was."""
        if not self.bad:
            return None
        more = ", ..." if len(self.bad) > NAMED else ""
        return f"{self.name}: {len(self.bad)} rows were left out: {'; '.join(self.bad[:NAMED])}{more}"


class BadRowError(Exception):
    """What is wrong with a row."""


def read_synonyms(path: Path | str) -> WordTable:
    """The table in a file: a .json object of word -> list of words, or lines of words between tabs, the first of which
    the others may stand for.

    Rows that cannot be used are left out and named by line in `bad`. Raises DataError where there is no such file, it
    is no such table, or no row can be used.
    """
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"The synonym table {path} cannot be read: {shortened(error)}. Give a .json object of word -> list of "
            "words, or a text file of words between tabs, in UTF-8."
        ) from error
    rows = _json_rows(text, path) if path.suffix.lower() == ".json" else _tab_rows(text)
    words: dict[str, tuple[str, ...]] = {}
    bad = []
    for line, word, others in rows:
        try:
            key, own = _checked(word, others)
            if key in words and words[key] != own:
                raise BadRowError(f"{shortened(word, 30)!r} stands there a second time with other words")
            words[key] = own
        except BadRowError as error:
            bad.append(f"line {line}: {error}")
    table = WordTable(path.name, {word: own for word, own in words.items() if own}, tuple(bad))
    if not table.words:
        raise DataError(
            f"The synonym table {path} holds no row that can be used" + (f" ({bad[0]})." if bad else ".") + " Give a "
            ".json object of word -> list of words, or a text file of words between tabs."
        )
    return table


def _checked(word: Any, others: Any) -> tuple[str, tuple[str, ...]]:
    """The row's word in lower case and what may stand for it, each once and without the word; else BadRowError."""
    if not isinstance(word, str) or not word.strip():
        raise BadRowError("has no word")
    if not word.isprintable():
        raise BadRowError(f"{shortened(word, 30)!r} is no word that can be printed")
    if not isinstance(others, list):
        raise BadRowError(f"{shortened(word, 30)!r} has {shortened(json.dumps(others), 30)}, not a list of words")
    odd = [one for one in others if not isinstance(one, str) or not one.strip()]
    if odd:
        raise BadRowError(f"{shortened(word, 30)!r} has {shortened(json.dumps(odd[0]), 30)} among its words")
    if any("\ud800" <= letter <= "\udfff" for one in others for letter in one):
        raise BadRowError("has half of a character")
    acting = [one for one in others if not one.strip().isprintable()]
    if acting:
        raise BadRowError(f"{shortened(word, 30)!r} has {shortened(json.dumps(acting[0]), 30)} among its words")
    key = word.strip().lower()
    return key, tuple(one for one in dict.fromkeys(one.strip() for one in others) if one.lower() != key)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Numbers and lines as editors count them: a form feed or U+2028 within a line ends none."""
    return enumerate(text.split("\n"), start=1)


def _tab_rows(text: str) -> Iterator[tuple[int, Any, Any]]:
    """Line number, word and words; empty lines and comments (#) are passed over."""
    for number, line in _lines(text):
        if line.strip() and not line.startswith("#"):
            word, *others = line.split("\t")
            yield number, word, others or None


def _json_rows(text: str, path: Path) -> Iterator[tuple[int, Any, Any]]:
    """Line number, key and value of each entry of a JSON object, so that a bad one is known by its line."""
    decoder = json.JSONDecoder()
    at, line, counted = _after(text, 0), 1, 0

    def refuse(what: str, place: int) -> DataError:
        return DataError(
            f"The synonym table {path}, line {text.count(chr(10), 0, place) + 1}: {what}. It must be one object of "
            'word -> list of words, such as {"good": ["fine", "decent"]}.'
        )

    def decoded(place: int) -> tuple[Any, int]:
        try:
            with parsed(json.JSONDecodeError):
                return decoder.raw_decode(text, place)
        except json.JSONDecodeError as error:
            raise refuse(shortened(error.msg), error.pos) from error
        except HostileError as error:
            raise refuse(shortened(error), place) from error

    if text[at : at + 1] != "{":
        raise refuse("no object begins", at)
    at = _after(text, at + 1)
    while text[at : at + 1] != "}":
        line, counted = line + text.count("\n", counted, at), at
        key, at = decoded(at)
        at = _after(text, at)
        if text[at : at + 1] != ":":
            raise refuse("a colon is missing", at)
        value, at = decoded(_after(text, at + 1))
        yield line, key, value
        at = _after(text, at)
        if text[at : at + 1] == ",":
            at = _after(text, at + 1)
        elif text[at : at + 1] != "}":
            raise refuse("a comma is missing", at)
    if text[_after(text, at + 1) :]:
        raise refuse("something follows the object", at + 1)


def _after(text: str, at: int) -> int:
    """The place of the next sign that is no blank."""
    found = _BLANK.match(text, at)
    return found.end() if found else at


def read_wordnet(folder: Path | str) -> WordTable:
    """Word -> the single words that share a sense with it, from a folder of WordNet's database files (data.noun, ...).

    Those of the first senses in the files come first. Lines that are no synset are left out and named. Raises DataError
    where the folder holds no such file.
    """
    folder = Path(folder)
    files = [folder / f"data.{part}" for part in PARTS_OF_SPEECH if (folder / f"data.{part}").is_file()]
    if not files:
        raise DataError(
            f"{folder} holds none of WordNet's files (dict/data.noun, dict/data.verb, dict/data.adj, dict/data.adv). "
            "Give the folder `dict` of a WordNet 3 database."
        )
    words: dict[str, dict[str, None]] = {}
    bad = []
    for file in files:
        for number, line in _lines(file.read_text(encoding="utf-8", errors="replace")):
            if line.startswith("  ") or not line.strip():
                continue
            try:
                synset = _synset(line)
            except BadRowError as error:
                bad.append(f"{file.name} line {number}: {error}")
                continue
            for word in synset:
                words.setdefault(word.lower(), {}).update(
                    dict.fromkeys(other for other in synset if other.lower() != word.lower())
                )
    return WordTable(f"WordNet {folder.name}", {key: tuple(own) for key, own in words.items() if own}, tuple(bad))


def _synset(line: str) -> list[str]:
    """The single words of a synset: offset, file, part of speech, count in hexadecimal, then word, number, word ..."""
    parts = line.split()
    try:
        count = int(parts[3], 16)
        words = [parts[4 + 2 * n] for n in range(count)]
    except (IndexError, ValueError) as error:
        raise BadRowError("is no synset") from error
    # An adjective may say where it stands, as in "galore(ip)".
    bare = (word.partition("(")[0] for word in words)
    return [word for word in bare if word and "_" not in word]
