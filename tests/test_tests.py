"""The tests themselves: every file says in a line what it is about, and every function has its types."""

from __future__ import annotations

import ast

import pytest

from tests.shapes_stated import Function, parameters
from tests.style import Source, functions, parse, sources

# The hooks of a framework that reads annotations while it runs, and refuses those of `from __future__`.
NOT_HERE = "# type: ignore[no-untyped-def]  # "


def untold(source: Source) -> list[str]:
    """The file, where it has no docstring."""
    first = (ast.get_docstring(source.tree) or "").partition("\n")[0]
    return [] if first else [source.at(source.tree, "does not say in its first line what it is about")]


def untyped(source: Source) -> list[str]:
    """The functions whose parameters or result have no type."""
    return [source.at(node, f"{node.name} lacks types: {', '.join(missing)}") for node, missing in _untyped(source)]


def _untyped(source: Source) -> list[tuple[Function, list[str]]]:
    lines, found = source.text.splitlines(), []
    for node in functions(source.tree):
        missing = [each.arg for each in parameters(node) if each.annotation is None]
        missing = [name for name in missing if name not in ("self", "cls")]
        missing += ["its result"] if node.returns is None else []
        if missing and NOT_HERE not in lines[node.lineno - 1]:
            found.append((node, missing))
    return found


def test_every_file_says_what_it_is_about_and_every_function_has_its_types() -> None:
    files = sources("tests")
    assert len(files) > 100
    places = [place for source in files for place in [*untold(source), *untyped(source)]]
    assert not places, "\n" + "\n".join(places)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('"""About."""\ndef test_it(one: int, *more: int) -> None: ...', []),
        ("def test_it() -> None: ...", ["tests/x.py:1 does not say in its first line what it is about"]),
        ('"""About."""\ndef test_it(): ...', ["tests/x.py:2 test_it lacks types: its result"]),
        ('"""About."""\ndef test_it(one, *, two) -> None: ...', ["tests/x.py:2 test_it lacks types: one, two"]),
        ('"""About."""\nclass A:\n    def f(self, **more) -> None: ...', ["tests/x.py:3 f lacks types: more"]),
        (f'"""About."""\ndef hook(state):  {NOT_HERE}it says why\n    ...', []),
        (
            '"""About."""\ndef hook(state):  # type: ignore\n    ...',
            ["tests/x.py:2 hook lacks types: state, its result"],
        ),
    ],
)
def test_the_checks_see_what_they_are_for(text: str, told: list[str]) -> None:
    source = parse("tests/x.py", text)
    assert [*untold(source), *untyped(source)] == told
