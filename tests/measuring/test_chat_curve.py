"""A whole evaluation of a chat model whose curve finds more inside the threat than its panel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tests.measuring.test_chat import Scripted, Searching, evaluated, likely, of, panel, scripted
from textadv.measuring.safety import chat
from textadv.measuring.safety.adversaries import Direct
from textadv.measuring.safety.radius_curve import Curve

__all__ = ["likely", "scripted"]


def test_the_worst_case_counts_what_the_curve_found_inside_the_threat(
    scripted: Scripted, likely: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same attack in the panel and as a point of the curve: one worst case, and a word that says whence."""
    curve = Curve({"embedding at 0.5": Searching()})
    wanted = replace(panel(), attacks={"direct": Direct()}, curve=curve)
    beyond = evaluated(tmp_path / "beyond", wanted=wanted)
    monkeypatch.setattr(chat, "inside", lambda curve, attacks: ["embedding at 0", *curve.attacks])
    found, whole = evaluated(tmp_path / "inside", wanted=wanted), evaluated(tmp_path / "panel")
    for group in ("attack success", "not refused", "broken off"):
        assert of(found, "worst case", group).rows == of(whole, "worst case", group).rows
    assert found.outcomes[-1].behaviours == whole.outcomes[-1].behaviours != beyond.outcomes[-1].behaviours
    assert of(found, "worst case").note.endswith("by the curve alone, at or below the threat's radius")
    assert of(beyond, "worst case").rows == of(beyond, "direct").rows, "what lies beyond the threat counts nowhere"
    assert of(found, "direct").rows == of(whole, "direct").rows
