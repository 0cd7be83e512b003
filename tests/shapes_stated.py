"""Reads from the source which public functions, methods and fields on tensors state no shape in their docstrings."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from typing import NamedTuple

from tests.style import Source, dotted, imports

# The letters of a shape, the same everywhere; other extents are words: (B, channels, height, width).
LETTERS = {
    "B": "rows of a batch",
    "S": "positions",
    "D": "hidden size",
    "V": "vocabulary",
    "C": "classes",
    "K": "candidates, or places of a row where something is decided",
    "N": "decisions, or rows of no batch",
    "T": "tokens of an answer",
    "G": "tokens of an answer's opening",
    "P": "positions of a prefix",
}
EXTENT = r"(?:\.\.\.|\d+|[A-Z]\d?|[a-z_]+)(?: [-+*/] (?:\d+|[A-Z]\d?|[a-z_]+))?"
SHAPE = re.compile(rf"(?<![\w.\])])\((?P<extents>|\.\.\.|{EXTENT},|{EXTENT}(?:, {EXTENT})+)\)")
ELSEWHERE = re.compile(r"\b[Ss]ee `Attack`")
ANY = re.compile(r"\bany shape\b")
LIKE = re.compile(r"\b(shaped as|shapes? of|(of )?the same shape|in its shape|broadcastable)\b", re.IGNORECASE)
# What carries tensors and says their shapes itself.
TENSORS = {"Tensor", "ndarray"}
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Stated(NamedTuple):
    """How often a text states a shape, and the letters that it does so with."""

    times: int
    letters: set[str]


def stated(text: str) -> Stated:
    """The shapes in a text: `(B, S, D)`, `(N,)`, `()`, `(...)`, or in words: any shape, the shape of."""
    text = re.sub(r"\s+", " ", text)
    shapes = [found["extents"] for found in SHAPE.finditer(text)]
    shapes = [shape for shape in shapes if not shape or re.search(r"[A-Z]|\.\.\.|\bheight, width\b", shape)]
    letters = {letter for shape in shapes for letter in re.findall(r"[A-Z]", shape)}
    # Of any shape: what goes in as what comes out.
    return Stated(len(shapes) + len(LIKE.findall(text)) + 2 * len(ANY.findall(text)), letters)


def aliases(sources: list[Source]) -> dict[str, set[str]]:
    """By module, the names in it that stand for containers of tensors, as `State = tuple[Tensor, ...]`."""
    found: dict[str, set[str]] = {}
    for source in sources:
        given = [node for node in source.tree.body if isinstance(node, ast.Assign)]
        given = [node for node in given if isinstance(node.value, ast.Subscript) and on_tensors(node.value)]
        given = [node for node in given if dotted(node.value.value) != "Callable"]
        found[source.module] = {target.id for node in given for target in node.targets if isinstance(target, ast.Name)}
    for source in sources:
        for _, name in imports(source):
            module, _, last = name.rpartition(".")
            found[source.module] |= {last} & found.get(module, set())
    return found


def on_tensors(annotation: ast.expr | None, others: set[str] = frozenset()) -> bool:
    """Whether an annotation names a tensor, in containers and in quotes too, or one of the other names."""
    if annotation is None:
        return False
    for node in ast.walk(annotation):
        match node:
            case ast.Constant(value=str(quoted)):
                names = set(re.findall(r"\w+", quoted))
            case ast.Name(id=name) | ast.Attribute(attr=name):
                names = {name}
            case _:
                continue
        if names & (TENSORS | others):
            return True
    return False


def parameters(function: Function) -> Iterator[ast.arg]:
    own = function.args
    yield from (*own.posonlyargs, *own.args, *own.kwonlyargs, *filter(None, [own.vararg, own.kwarg]))


def line_of(name: str, docstring: str) -> str:
    """What the docstring says of one field: from `name:`, or from `other, name:`, to the line of the next fields."""
    head = re.compile(r"(?:^\s*|(?<=[.;] ))[a-z_]\w*(?:,\s+[a-z_]\w*)*: ", re.MULTILINE)
    heads = list(head.finditer(docstring))
    ends = [*[found.start() for found in heads[1:]], len(docstring)][: len(heads)]
    said = [docstring[at.end() : end] for at, end in zip(heads, ends, strict=True) if name in re.findall(r"\w+", at[0])]
    return " ".join(text.split("\n\n")[0] for text in said)


def unstated(source: Source, others: set[str] = frozenset()) -> Iterator[str]:
    """Every public function, method and field on tensors that states no shape, or takes and returns and states one."""
    for node, after in zip(source.tree.body, [*source.tree.body[1:], ast.Pass()], strict=True):
        if isinstance(node, ast.Assign) and isinstance(node.value, ast.Subscript) and on_tensors(node.value):
            said = ast.unparse(after) if isinstance(after, ast.Expr) else ""
            yield from _of_text(source, node, f"the type {ast.unparse(node.targets[0])}", said, 1)
        if isinstance(node, Function) and not node.name.startswith("_"):
            yield from _of_function(source, node, node.name, "", others)
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from _of_class(source, node, others)


def _of_class(source: Source, owner: ast.ClassDef, others: set[str]) -> Iterator[str]:
    docstring = ast.get_docstring(owner) or ""
    for node in owner.body:
        if isinstance(node, Function) and (not node.name.startswith("_") or node.name.startswith("__")):
            said = docstring if node.name in ("__init__", "__call__") else line_of(node.name, docstring)
            yield from _of_function(source, node, f"{owner.name}.{node.name}", said, others)
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
            if not name.startswith("_") and on_tensors(node.annotation, others):
                said = line_of(name, docstring)
                yield from _of_text(source, node, f"the field {owner.name}.{name}", said, 1)


def _of_function(source: Source, node: Function, name: str, said: str, others: set[str]) -> Iterator[str]:
    taken = any(on_tensors(each.annotation, others) for each in parameters(node))
    returned = on_tensors(node.returns, others)
    if taken or returned:
        yield from _of_text(source, node, name, said + (ast.get_docstring(node) or ""), taken + returned)


def _of_text(source: Source, node: ast.AST, name: str, text: str, wanted: int) -> Iterator[str]:
    found = stated(text)
    wanted = 0 if ELSEWHERE.search(text) and name.endswith(".__call__") else wanted
    if found.times < wanted:
        what = "no shape" if not found.times else "the shapes it takes or those it returns, not both"
        yield source.at(node, f"{name} states {what}")
    unknown = sorted(found.letters - LETTERS.keys())
    if unknown:
        yield source.at(node, f"{name} has a shape with {', '.join(unknown)}: take {', '.join(LETTERS)} or a word")
