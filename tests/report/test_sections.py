"""Every class in the folder of sections comes back from results.json as it was, and a file there is all that another
section takes."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import pytest

from tests.report.made_up import evaluated, made
from textadv.measuring.sections import section_classes
from textadv.report import from_json, to_json

ROOT = Path(__file__).resolve().parents[2]
IMPORTS = """from __future__ import annotations
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal
from textadv.measuring.blocks import Block, Grid, Text
from textadv.measuring.sections.rows import RowOutcome
"""
REPORTED = """
from tests.report.made_up import evaluated, made
from textadv.report import from_json, report_markdown, to_json
results = from_json(to_json(made(evaluated("before", 18, 5))))
print([section.kind for section in results.evaluations[0].sections])
print(report_markdown(results))
"""
PLAIN: dict[Any, Any] = {str: "word", int: 2, float: 0.5, bool: True, type(None): None}


def sample(kind: Any) -> Any:
    """A value of a type: of a union one of its first member, of a container one with something in it."""
    of, inside = get_origin(kind), [part for part in get_args(kind) if part is not Ellipsis]
    if of is Literal:
        return inside[0]
    if of in (Annotated, Union, UnionType):
        return sample(inside[0])
    if of is tuple:
        return tuple(map(sample, inside))
    if of in (dict, Mapping):
        return {sample(inside[0]): sample(inside[1])}
    if is_dataclass(kind) or hasattr(kind, "_fields"):
        names = [field.name for field in fields(kind)] if is_dataclass(kind) else kind._fields
        types = get_type_hints(kind, include_extras=True)
        return kind(**{name: sample(types[name]) for name in names})
    return PLAIN[kind]


@pytest.mark.parametrize("kind", section_classes(), ids=lambda kind: kind.__name__)
def test_it_comes_back_from_json(kind: Any) -> None:
    results, section = made(evaluated("before", 18, 5)), sample(kind)
    (model,) = results.evaluations
    results = replace(results, evaluations=(replace(model, sections=(section,)),), sections=(section,))
    again = from_json(to_json(results))
    assert again == results and type(again.sections[0]) is kind


def test_a_file_written_as_contributing_says_is_all_that_a_section_takes(tmp_path: Path) -> None:
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8").partition("## How to add a section of the report")[2]
    block = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert block
    shutil.copytree(ROOT / "textadv", tmp_path / "textadv", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    (tmp_path / "textadv/measuring/sections/broken.py").write_text(IMPORTS + block[1], encoding="utf-8")
    run = [sys.executable, "-c", REPORTED]
    found = subprocess.run(
        run, cwd=tmp_path, env=os.environ | {"PYTHONPATH": "."}, capture_output=True, text=True, check=False
    )
    assert found.returncode == 0, found.stderr
    kinds, _, text = found.stdout.partition("\n")
    assert "'broken', 'rows'" in kinds
    assert "Broken rows" in text and "Rows that an attack broke." in text
