"""SECURITY.md: every line of what is guarded against names a test that exists; code of a repository is not run."""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from tests import folders
from textadv.models import ModelError, load_causal, load_classifier

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text(encoding="utf-8")
ROWS = [line for line in PAGE.splitlines() if line.startswith("| ") and not line.startswith(("| What", "| ---"))]
LABELS = ("negative", "positive")


def names_in(path: Path) -> set[str]:
    return {node.name for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("row", range(len(ROWS)))
def test_every_line_has_a_test_that_exists(row: int) -> None:
    cells = [cell.strip() for cell in ROWS[row].strip("|").split("|")]
    assert len(cells) == 3 and all(cells)
    named = re.fullmatch(r"`(tests/[\w/]+\.py)::(test_\w+)`", cells[2])
    assert named, ROWS[row]
    assert (ROOT / named[1]).is_file() and named[2] in names_in(ROOT / named[1]), cells[2]


def test_the_page_says_what_is_not_guarded_against() -> None:
    assert len(ROWS) > 15 and PAGE.count("\n- ") > 5
    assert "## Not guarded against" in PAGE and "trust_remote_code" in PAGE.partition("## Not guarded against")[2]


CODE = "from pathlib import Path\nPath({mark!r}).touch()\nclass Odd: pass\n"


@pytest.mark.parametrize("kind", ["text", "chat"])
def test_code_of_a_repository_is_not_run(kind: str, tmp_path: Path) -> None:
    if kind == "text":
        folder = folders.bert_classifier(tmp_path / "model", LABELS)
    else:
        folder = folders.llama(tmp_path / "model", speaks=True)
    config = json.loads((folder / "config.json").read_text())
    mapped = dict.fromkeys(("AutoConfig", "AutoModelForSequenceClassification", "AutoModelForCausalLM"), "odd.Odd")
    (folder / "config.json").write_text(json.dumps(config | {"auto_map": mapped, "model_type": "odd"}))
    (folder / "odd.py").write_text(CODE.format(mark=str(tmp_path / "mark")))
    with pytest.raises(ModelError):
        load_classifier(str(folder), LABELS) if kind == "text" else load_causal(str(folder))
    assert not (tmp_path / "mark").exists()
