"""What the bench of searches compares: every goal of the panel, or those asked for, at the configuration's passes."""

from __future__ import annotations

import importlib

import pytest
from pytest import MonkeyPatch

from tests.recipes.running import ROOT
from textadv.config.adversary import AttackConfig
from textadv.measuring.safety.search_panel import FEWER, PANEL
from textadv.tasks.chat.elicitation import ElicitationConfig

WANTED = ElicitationConfig(restarts=3, attack=AttackConfig(steps=30, select="most_damaging"))


def passes(wanted: ElicitationConfig) -> int:
    """The most forwards and backwards of a row, with what finding out what the model says takes."""
    found = wanted.searches()
    each = [found[n % len(found)] for n in range(len(found) if wanted.search is None else wanted.restarts)]
    return sum(2 * ((search.steps or wanted.attack.steps) + FEWER[search.says]) + 1 for search in each)


@pytest.mark.parametrize("goals", [(), ("both",), ("elicit", "away")], ids=str)
def test_all_have_the_passes_of_the_restarts(goals: tuple[str, ...], monkeypatch: MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "scripts")
    bench = importlib.import_module("search_goals")
    found = bench.contestants(WANTED, goals)
    named = {own.search[0].goal for name, own in found.items() if name != "panel"}
    assert named == (set(goals) or {"elicit", *(leg.goal for leg in PANEL)})
    assert list(found)[-1] == "panel" and found["panel"].search is None
    for name, own in found.items():
        assert 183 - 2 * 3 <= passes(own) <= 183, name
        assert (own.restarts == 1) == name.endswith(", in one go")
