"""What the script of the library's shape counts, on made-up trees, and the spine of this one."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.processes import ROOT

FILES = {
    "textadv/__init__.py": "",
    "textadv/low/__init__.py": "",
    "textadv/low/one.py": "import os\n",
    "textadv/high/__init__.py": "from textadv.low import one\n",
    "textadv/high/two.py": "def f():\n    from textadv.low.one import os\n    import textadv.loose\n",
    "textadv/loose.py": "from textadv import high\nSquare = 1\n",
}
PAGE = "```layers\nlow -> high / other -> loose\n```"


@pytest.fixture(scope="module")
def shape() -> SimpleNamespace:
    """The script's functions."""
    return SimpleNamespace(**runpy.run_path(str(ROOT / "scripts" / "shape.py")))


def test_arrows_are_between_rooms_and_seen_in_function_bodies(shape: SimpleNamespace) -> None:
    assert shape.arrows(FILES) == {("high", "low"), ("high", "loose"), ("loose", "high")}


def test_circles_are_the_rooms_that_reach_themselves(shape: SimpleNamespace) -> None:
    assert shape.circles(shape.arrows(FILES)) == {"high", "loose"}
    assert shape.circles({("a", "b"), ("b", "c"), ("a", "c")}) == set()


def test_upward_is_against_the_list_of_the_page(shape: SimpleNamespace) -> None:
    assert shape.upward(shape.arrows(FILES), PAGE) == {("high", "loose")}
    assert shape.upward({("high", "other")}, PAGE) == set(), "one step of the list"


def test_who_names_a_part(shape: SimpleNamespace) -> None:
    assert shape.naming(FILES, "attack") == ["textadv/loose.py"]
    assert shape.naming({"a.py": "the squared norm"}, "attack") == []


def test_a_tree_that_takes_no_gradient_is_told(shape: SimpleNamespace, tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes/adv_finetune.py").write_text("print('nothing to do')\n")
    with pytest.raises(RuntimeError, match="no gradient was taken: nothing to do"):
        shape.spine(tmp_path)


def test_a_commit_that_is_none_is_told(shape: SimpleNamespace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", ["shape.py", "--before", "no-such-commit"])
    with pytest.raises(SystemExit, match="--before no-such-commit: .*Give a commit of this repository"):
        shape.main()


@pytest.mark.slow
def test_the_spine_goes_from_the_recipe_to_the_gradient(shape: SimpleNamespace) -> None:
    way = shape.spine(ROOT)
    assert way[0] == "recipes/adv_finetune.py" and way[-1].startswith("textadv/attacks/")
    assert "textadv/training/trainer.py" in way
