"""How the library is cut: entries, rooms and the arrows between them, the way of a call to the gradient, lines.

    python scripts/shape.py [--before COMMIT ...] [--files]

Prints a Markdown table of this working tree and of each commit beside it. A room is an entry at the top of the library,
a file or a folder; an arrow is one room that imports another, in function bodies too. The spine are the files on the
stack from recipes/adv_finetune.py down to the line that takes the gradient of a perturbation, as the quickstart's
first attacked step of training has it: each tree is run that far, which takes a minute. Files of the library that name
a part which is there already (an attack: Square; an objective: SMART; a task: images; a section of the report:
gradient masking) are those that adding another touches, its own among them; `--files` lists them, and the spine.
"""

from __future__ import annotations

import ast
import io
import json
import os
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from textadv.runs.screen import parser as reader
from textadv.values.host.printable import printable, tell

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "textadv"
LAYERS = re.compile(r"```layers\n(.*?)```", re.DOTALL)
PARTS = {
    "attack": r"\bSquare(Config|Attack)?\b|[\"']square[\"']|\battacks\.square\b",
    "objective": r"\b(Smart\w*|smart)\b",
    "task": r"\bImage(Run|Task|s|Config)\w*|[\"']images[\"']|\b((task|build|config)_images|tasks\.images)\b",
    "section": r"\b(Masking(Flag|Config|Section)?|masking_\w+)\b",
}
WATCH = """
import json, runpy, sys, traceback
sys.path[:0] = [sys.argv[1]]
import torch
plain = torch.autograd.grad
def watched(*args, **named):
    files = [frame.filename for frame in traceback.extract_stack()]
    if "attacks" in files[-2] and any(name.endswith("trainer.py") for name in files) and "objectives" in str(files):
        sys.stdout.write("STACK" + json.dumps(files[:-1]) + "\\n")
        sys.stdout.flush()
        import os
        os._exit(0)
    return plain(*args, **named)
torch.autograd.grad = watched
sys.argv = sys.argv[2:]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


def unpacked(commit: str, folder: Path) -> None:
    """Writes what a commit holds into a folder. Raises SystemExit where git does not know it."""
    done = subprocess.run(["git", "-C", str(ROOT), "archive", commit], capture_output=True, check=False)
    if done.returncode:
        told = f"--before {commit}: {done.stderr.decode().strip()}. Give a commit of this repository."
        raise SystemExit(printable(told))
    with tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")


def library(root: Path) -> dict[str, str]:
    """Path from the root -> text of every Python file of the library."""
    files = sorted((root / PACKAGE).rglob("*.py"))
    return {path.relative_to(root).as_posix(): path.read_text(encoding="utf-8") for path in files}


def module_of(path: str) -> str:
    """textadv/attacks/__init__.py -> textadv.attacks."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def room_of(module: str) -> str:
    """The entry at the top in which a module lies; "" for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imported(text: str, known: frozenset[str]) -> Iterator[str]:
    """The modules of the library that a file imports: of `from a import b` the module b where it is one."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names if name.name in known)
        elif isinstance(node, ast.ImportFrom) and node.module:
            for name in node.names:
                longer = f"{node.module}.{name.name}"
                if longer in known or node.module in known:
                    yield longer if longer in known else node.module


def arrows(files: Mapping[str, str]) -> set[tuple[str, str]]:
    """Which room imports which other one."""
    known = frozenset(map(module_of, files))
    pairs = {(room_of(module_of(path)), room_of(at)) for path, text in files.items() for at in imported(text, known)}
    return {(here, there) for here, there in pairs if here != there and here and there}


def circles(found: set[tuple[str, str]]) -> set[str]:
    """Rooms from which a way of arrows leads back."""

    def reached(start: str) -> set[str]:
        seen: set[str] = set()
        waiting = [start]
        while waiting:
            at = waiting.pop()
            fresh = {there for here, there in found if here == at} - seen
            seen |= fresh
            waiting += fresh
        return seen

    return {room for room, _ in found if room in reached(room)}


def upward(found: set[tuple[str, str]], page: str) -> set[tuple[str, str]]:
    """Arrows from a room to one that the page's list of layers has later."""
    block = LAYERS.search(page)
    steps = [step.split("/") for step in block[1].split("->")] if block else []
    ranks = {name.strip(): rank for rank, names in enumerate(steps) for name in names}
    return {(here, there) for here, there in found if ranks.get(there, -1) > ranks.get(here, len(ranks))}


def spine(root: Path) -> list[str]:
    """The files on the stack when the first gradient of a perturbation is taken, from the recipe down.

    Raises RuntimeError with the end of what the run printed where none was taken.
    """
    with tempfile.TemporaryDirectory() as folder:
        recipe = [
            str(root / "recipes/adv_finetune.py"),
            str(root / "recipes/configs/quickstart.yaml"),
            f"output={folder}/run",
        ]
        settings = os.environ | {"PYTHONPATH": str(root), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, "-c", WATCH, str(root), *recipe, f"output={folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=settings, check=False)
    told = [line for line in done.stdout.splitlines() if line.startswith("STACK")]
    if not told:
        raise RuntimeError(f"no gradient was taken: {(done.stdout + done.stderr)[-2000:]}")
    stack = [Path(name) for name in json.loads(told[0].removeprefix("STACK"))]
    return list(dict.fromkeys(path.relative_to(root).as_posix() for path in stack if path.is_relative_to(root)))


def naming(files: Mapping[str, str], part: str) -> list[str]:
    """The files that name a part."""
    return [path for path, text in files.items() if re.search(PARTS[part], text)]


def lines(text: str) -> int:
    """Lines of a file."""
    return len(text.splitlines())


def shape(root: Path) -> tuple[dict[str, str], dict[str, list[str]]]:
    """The figures of one tree by what they are, and the files behind them."""
    files, found = library(root), arrows(library(root))
    page = root / "docs" / "architecture.md"
    tops = {path.split("/")[1] for path in files}
    loose = [text for path, text in files.items() if path.count("/") == 1]
    way = spine(root)
    behind = {"spine": way, **{part: naming(files, part) for part in PARTS}}
    figures = {
        "entries at the top (files, their lines)": f"{len(tops)} ({len(loose)}, {sum(map(lines, loose)):,})",
        "rooms / arrows / in circles": f"{len(tops - {'__init__.py'})} / {len(found)} / {len(circles(found))}",
        "arrows against the layers": str(len(upward(found, page.read_text(encoding="utf-8")))),
        "spine: files, lines": f"{len(way)}, {sum(lines((root / path).read_text(encoding='utf-8')) for path in way):,}",
        **{f"files that name the {part}": str(len(behind[part])) for part in PARTS},
        "lines of the library": f"{sum(map(lines, files.values())):,}",
    }
    return figures, behind


def table(shapes: Mapping[str, Mapping[str, str]]) -> str:
    """The figures of several trees beside one another, as Markdown."""
    names = list(shapes)
    rows = [f"| {figure} | {' | '.join(shapes[name][figure] for name in names)} |" for figure in shapes[names[0]]]
    return "\n".join([f"| | {' | '.join(names)} |", f"|{' --- |' * (len(names) + 1)}", *rows])


def main() -> None:
    """Reads the command line and prints the table."""
    parser = reader(__doc__)
    parser.add_argument("--before", action="append", default=[], metavar="COMMIT", help="beside this tree; repeatable")
    parser.add_argument("--files", action="store_true", help="list the files behind the figures")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        trees = {commit: Path(folder).resolve() / str(place) for place, commit in enumerate(given.before)}
        for commit, root in trees.items():
            unpacked(commit, root)
        shapes = {name: shape(root) for name, root in {**trees, "now": ROOT}.items()}
    tell(table({name: figures for name, (figures, _) in shapes.items()}))
    if given.files:
        for name, (_, behind) in shapes.items():
            tell("\n".join(["", *(f"{name}, {what}: {' '.join(found)}" for what, found in behind.items())]))


if __name__ == "__main__":
    main()
