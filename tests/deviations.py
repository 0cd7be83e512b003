"""What docstrings state under "Deviations", cut into clauses, beside the tests that each clause is held to."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

HERE = Path(__file__).parent
PACKAGE = HERE.parent / "textadv"
# In the place of a test: the clause only gives the reason for the one before, or names where others are stated.
WORDS = WHY, ELSEWHERE = "why", "elsewhere"
Table = Mapping[str, Sequence[tuple[str, ...]]]
"""`module.Name` -> for each clause how it begins, and its tests (`folder/file.test`) or one of the words above."""


def table(text: str, folder: str = "") -> Table:
    """The table in a text: `module.Name` on a line of its own, below it `  opening | test`, and `  + test` for more.

    folder: of tests that name none.
    """
    found: dict[str, list[tuple[str, ...]]] = {}
    name = ""
    for line in filter(str.strip, text.splitlines()):
        opening, _, test = (part.strip() for part in line.partition("|"))
        if not line.startswith(" "):
            name = opening
            found[name] = []
        elif opening.startswith("+ "):
            found[name][-1] += (_placed(opening[2:], folder),)
        else:
            found[name].append((opening, _placed(test, folder)))
    return found


def _placed(test: str, folder: str) -> str:
    return test if test in (WHY, ELSEWHERE) or "/" in test or not folder else f"{folder}/{test}"


def clauses(doc: str) -> list[str]:
    """The parts of the paragraph between full stops and semicolons, those in brackets left aside."""
    told = re.search(r"\bDeviations?\b[^:.]*:\s(.*?)(?:\n\s*\n|\Z)", doc, flags=re.S)
    if told is None:
        return []
    found, depth, part = [], 0, ""
    for sign in f"{' '.join(told.group(1).split())} ":
        depth += (sign == "(") - (sign == ")")
        if sign == " " and depth == 0 and part[-1:] in (".", ";"):
            found.append(part[:-1])
            part = ""
        else:
            part += sign
    return [one for one in [*found, part.strip()] if one]


def documented(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Name and docstring of the module and of every class and function in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef):
            yield getattr(node, "name", ""), ast.get_docstring(node) or ""


def stated(*places: str) -> dict[str, list[str]]:
    """`module.Name` -> the clauses of every docstring in these files and folders of the package that has some."""
    found = {}
    for place in places:
        path = PACKAGE / place
        for file in sorted(path.rglob("*.py")) if path.is_dir() else [path]:
            for name, doc in documented(ast.parse(file.read_text(encoding="utf-8"))):
                if parts := clauses(doc):
                    found[f"{file.stem}.{name}".rstrip(".")] = parts
    return found


def exists(test: str) -> bool:
    """Whether there is a function of this name in the file of tests."""
    file, _, name = test.rpartition(".")
    path = HERE / f"{file}.py"
    return path.is_file() and bool(re.search(rf"^def {name}\(", path.read_text(encoding="utf-8"), flags=re.M))


def unheld(table: Table, found: Mapping[str, Sequence[str]]) -> list[str]:
    """A line for every clause without a test, every line of the table without a clause, and every test that is none."""
    lines = [f"{name} is in the table and states nothing" for name in table.keys() - found.keys()]
    for name, parts in found.items():
        rows = table.get(name, ())
        if len(rows) != len(parts):
            lines.append(f"{name} states {len(parts)} clauses, the table has {len(rows)}: {parts}")
        for (opening, *tests), part in zip(rows, parts, strict=False):
            if not part.startswith(opening):
                lines.append(f"{name}: the table has {opening!r}, the docstring {part!r}")
            lines += [f"{name}: there is no test {test}" for test in tests if test not in WORDS and not exists(test)]
        if rows and rows[0][1] == WHY:
            lines.append(f"{name}: nothing comes before the reason {rows[0][0]!r}")
    return sorted(lines)
