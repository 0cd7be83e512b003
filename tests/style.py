"""Checks of one source file for tests/test_style.py: each yields every offending place as `file:line what is wrong`."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "textadv"

# Who may import what, as patterns of layers ("" is textadv/__init__.py). Names of textadv bind the library only.
ONLY_IN: dict[str, set[str]] = {
    "transformers": {"models", "data"},
    "datasets": {"data", "measuring"},
    "evaluate": {"measuring"},
    "matplotlib": {"report"},
    "pickle": set(),
    "dill": set(),
    "pydantic": {"config", "measuring", "tasks"},
    f"{PACKAGE}.config": {"config", "tasks", "runs", ""},
}
# Outside the library nobody imports those; but what the laboratory's model is made of is no matter of a user.
LABORATORY = {"transformers": "scripts/lab/"}
FORBIDDEN_LITERALS = {"weights_only": False, "allow_pickle": True, "trust_remote_code": True}
SEEDING = re.compile(
    r"^(torch\.(cuda\.|random\.|mps\.)?(manual_seed(_all)?|seed(_all)?)|((np|numpy)\.)?random\.seed|(.*\.)?set_seed)$"
)

Check = Callable[["Source"], Iterator[str]]


class Source(NamedTuple):
    """One Python file: its path from the root, its text and its syntax tree."""

    path: str
    text: str
    tree: ast.Module

    def at(self, node: ast.AST, message: str) -> str:
        return f"{self.path}:{getattr(node, 'lineno', 1)} {message}"

    @property
    def layer(self) -> str:
        """textadv/attacks/parts/balls.py -> attacks, textadv/values/batch.py -> values, textadv/__init__.py -> "" ."""
        first = self.path.split("/")[1].removesuffix(".py")
        return "" if first == "__init__" else first

    @property
    def module(self) -> str:
        return self.path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def parse(path: str, text: str) -> Source:
    return Source(path, text, ast.parse(text, filename=path))


def sources(*folders: str) -> list[Source]:
    paths = [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]
    return [parse(path.relative_to(ROOT).as_posix(), path.read_text(encoding="utf-8")) for path in paths]


# ---- what a file imports, calls and defines


def imports(source: Source) -> Iterator[tuple[ast.stmt, str]]:
    """Each imported name in full, function bodies included: `import a.b` gives a.b, `from a import b` gives a.b."""
    package = source.module if source.path.endswith("__init__.py") else source.module.rpartition(".")[0]
    parts = package.split(".")
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Import):
            yield from ((node, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            origin = [*(parts[: len(parts) - node.level + 1] if node.level else []), *filter(None, [node.module])]
            yield from ((node, ".".join([*origin, alias.name])) for alias in node.names)


def dotted(node: ast.expr) -> str:
    """`a.b.c` for an attribute chain of names, with `?` where it starts from anything else."""
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    return node.id if isinstance(node, ast.Name) else "?"


def functions(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def function_length(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines from `def` to the end, without the docstring."""
    docstring = node.body[0] if ast.get_docstring(node) is not None else None
    skipped = docstring.end_lineno - docstring.lineno + 1 if docstring and docstring.end_lineno else 0
    return (node.end_lineno or node.lineno) - node.lineno + 1 - skipped


# ---- checks of one file


def restricted_imports(source: Source) -> Iterator[str]:
    in_library = source.path.startswith(f"{PACKAGE}/")
    for node, name in imports(source):
        parts = name.split(".")
        owner = ".".join(parts[: 2 if parts[0] == PACKAGE else 1])
        for pattern, layers in ONLY_IN.items():
            if in_library:
                allowed = any(fnmatchcase(source.layer, layer) for layer in layers)
            else:
                allowed = parts[0] == PACKAGE or source.path.startswith(LABORATORY.get(owner, " "))
            if fnmatchcase(owner, pattern) and not allowed:
                who = ", ".join(sorted(f"{PACKAGE}/{layer or '__init__'}" for layer in layers)) or "nothing"
                yield source.at(node, f"imports {owner}, which {who} may import")


def dangerous_calls(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and dotted(node.func) in {"eval", "exec", "builtins.eval", "builtins.exec"}:
            yield source.at(node, f"calls {dotted(node.func)}")


def named_values(node: ast.AST) -> Iterator[tuple[str, ast.expr | None]]:
    """Names with the value that this node gives them: keywords, defaults of parameters, annotated fields."""
    if isinstance(node, ast.Call):
        yield from ((keyword.arg, keyword.value) for keyword in node.keywords if keyword.arg)
    elif isinstance(node, ast.arguments):
        positional = [*node.posonlyargs, *node.args]
        tail = positional[len(positional) - len(node.defaults) :]
        yield from ((arg.arg, default) for arg, default in zip(tail, node.defaults, strict=True))
        yield from ((arg.arg, default) for arg, default in zip(node.kwonlyargs, node.kw_defaults, strict=True))
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
        yield node.target.id, node.value


def unsafe_literals(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        for name, value in named_values(node):
            unsafe = FORBIDDEN_LITERALS.get(name)
            if unsafe is not None and isinstance(value, ast.Constant) and value.value is unsafe:
                yield source.at(value, f"says {name}={unsafe}")


def global_seeding(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.Call) and SEEDING.match(dotted(node.func)):
            yield source.at(node, f"calls {dotted(node.func)}: take a torch.Generator or use textadv.values.randomness")


def epsilon_parameters(source: Source) -> Iterator[str]:
    for node in ast.walk(source.tree):
        if isinstance(node, ast.arg) and node.arg == "epsilon":
            yield source.at(node, "names a parameter epsilon: radius is the size of a ball, eps a numerical constant")


def missing_docstrings(source: Source) -> Iterator[str]:
    if ast.get_docstring(source.tree) is None:
        yield source.at(source.tree, "has no module docstring")
    for node in source.tree.body:
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        if ast.get_docstring(node) is None:
            yield source.at(node, f"{node.name} has no docstring")


def suppressed_bug_rules(source: Source) -> Iterator[str]:
    for number, line in enumerate(source.text.splitlines(), start=1):
        found = re.search(r"#\s*(ruff:\s*)?noqa\b(?P<codes>:[\sA-Z0-9,]+)?", line)
        if found and (found["codes"] is None or re.search(r"F821|B023", found["codes"])):
            yield f"{source.path}:{number} a noqa must name its rules, and F821 and B023 are never ignored"


def loop_variables_after_loop(source: Source) -> Iterator[str]:
    """What pylint calls W0631: a name that only `for` binds, read after the last such loop has ended."""
    for function in functions(source.tree):
        nodes = list(ast.walk(function))
        loops = [node for node in nodes if isinstance(node, ast.For | ast.AsyncFor)]
        ends: dict[str, int] = {}
        bound_by_loops: set[ast.AST] = set()
        for loop in loops:
            for target in ast.walk(loop.target):
                if isinstance(target, ast.Name):
                    bound_by_loops.add(target)
                    ends[target.id] = max(ends.get(target.id, 0), loop.end_lineno or 0)
        others = {arg.arg for arg in nodes if isinstance(arg, ast.arg)}
        names = [node for node in nodes if isinstance(node, ast.Name)]
        others |= {node.id for node in names if isinstance(node.ctx, ast.Store) and node not in bound_by_loops}
        for node in names:
            if isinstance(node.ctx, ast.Load) and node.id in ends.keys() - others and node.lineno > ends[node.id]:
                yield source.at(node, f"reads {node.id} after the loop that binds it")


# ---- what attacks, losses and objectives do not ask

SPACES = {"Embeddings", "Hidden", "Several", "Ablation", "Pixels"}
DIMENSIONS = re.compile(r"[\w.]+\.(dim\(\)|ndim)|len\([\w.]+\.shape\)")
ROOMS_WITHOUT_KINDS = tuple(f"{PACKAGE}/{room}/" for room in ("attacks", "objectives", "values"))
# There it tells matrices from vectors among a model's weights.
OF_WEIGHTS = f"{PACKAGE}/objectives/weights.py"


def branches_by_kind(source: Source) -> Iterator[str]:
    """Questions which space it is, and how many dimensions a tensor has: spaces and decisions answer them."""
    for node in ast.walk(source.tree) if source.path.startswith(ROOMS_WITHOUT_KINDS) else ():
        told = isinstance(node, ast.Call) and dotted(node.func) in ("isinstance", "issubclass")
        told = told or isinstance(node, ast.Compare | ast.MatchClass)
        if told and {part.id for part in ast.walk(node) if isinstance(part, ast.Name)} & SPACES:
            yield source.at(node, "asks which space it is: let the space say what is particular to it")
        sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
        if source.path != OF_WEIGHTS and any(DIMENSIONS.fullmatch(ast.unparse(side)) for side in sides):
            yield source.at(node, "asks for a tensor's dimensions: read Decisions")
