"""Prompts of which none could be answered are told in the report, and everything else is kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from peft.tuners.lora import LoraLayer
from torch import nn

from tests.measuring.test_adapter_scales import fluent
from tests.measuring.test_chat import BENIGN, FORBIDDEN, INSTRUCTED, SAID, Scripted, evaluated, likely, llama, of, panel
from textadv.measuring.safety import fluency, generate
from textadv.measuring.safety.adversaries import Direct, Prefill
from textadv.measuring.safety.radius_curve import Curve
from textadv.values.errors import GenerationError

__all__ = ["likely"]
LOST = "never"
COMPLIES = dict.fromkeys(FORBIDDEN, "bad stuff|bad stuff")


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    """Complies with everything but one behaviour, whose answers fail."""
    said = Scripted(fails=(LOST,), said=SAID | COMPLIES)
    monkeypatch.setattr(generate, "generate_tokens", said)
    return said


def test_a_curve_whose_last_behaviour_fails_is_told_and_the_rest_kept(
    failing: Scripted, likely: list[bool], tmp_path: Path
) -> None:
    attacks = {"embedding at 1": Prefill(2), "embedding at 2": Prefill(3)}
    found = evaluated(tmp_path, wanted=replace(panel(), curve=Curve(attacks)))
    place = FORBIDDEN.index(LOST)
    points = found.curve
    assert [m.name for m in points] == ["embedding at 0", *attacks]
    assert all([row for row, value in enumerate(m.rows) if not value] == [place] for m in points)
    assert all("not known" in m.note for m in points)
    told = [note for note in found.notes if "failed" in note]
    assert [note.partition(":")[0] for note in told] == [
        f"the one answer to {name} failed, so that nothing is known of them. The first" for name in attacks
    ]
    assert all("out of memory" in note for note in told)
    assert of(found, "direct", "not refused").value == 1.0


def test_prompts_that_fail_alone_as_in_their_batch_are_no_comparison(
    failing: Scripted, likely: list[bool], tmp_path: Path
) -> None:
    plain = replace(panel(), attacks={"direct": Direct(), "prefill": Prefill(2)}, batch_invariance=50)
    found = evaluated(tmp_path / "a", wanted=plain).invariance
    assert found is not None and (found.outcomes.total, found.outcomes.count) == (2 * (len(FORBIDDEN) - 1), 0)
    failing.fails = FORBIDDEN
    found = evaluated(tmp_path / "b", wanted=plain)
    assert found.invariance is None
    assert sum("4 answers to" in note and "failed" in note for note in found.notes) == 2
    assert of(found, "direct").value == 0.0 and of(found, "direct", "not refused").value == 1.0


def test_an_attack_and_a_file_of_which_every_answer_fails_cost_themselves_alone(
    failing: Scripted, likely: list[bool], tmp_path: Path
) -> None:
    failing.fails = tuple(row.prompt for row in INSTRUCTED)
    found = evaluated(tmp_path)
    assert [note.partition(" failed")[0] for note in found.notes if "failed" in note] == [
        f"every one of {len(INSTRUCTED)} answers to checks prompts"
    ]
    assert of(found, "checks: instructions").note.endswith("3 answers failed to be made")
    assert of(found, "borderline: degenerate").total == len(BENIGN)


def test_a_run_of_which_every_answer_fails_ends(failing: Scripted, likely: list[bool], tmp_path: Path) -> None:
    failing.fails = (*FORBIDDEN, *BENIGN)
    with pytest.raises(GenerationError, match="Every one of 4 answers failed. The first: RuntimeError: out of memory"):
        evaluated(tmp_path)


@dataclass
class AtScale4(Scripted):
    """Answers nothing with four times its adapter."""

    def __call__(self, model: nn.Module, rows: Sequence[Sequence[int]], **settings: object) -> list[list[int]]:
        layer = next(module for module in model.modules() if isinstance(module, LoraLayer))
        scale = layer.scaling["default"] / (layer.lora_alpha["default"] / layer.r["default"])
        self.fails = (*FORBIDDEN, *BENIGN) if scale > 1 else ()
        return super().__call__(model, rows, **settings)


def test_a_scale_at_which_every_answer_fails_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(generate, "generate_tokens", AtScale4())
    monkeypatch.setattr(fluency, "answer_nll", fluent)
    found = evaluated(tmp_path, llama(), replace(panel(), scales=(4.0,)))
    assert of(found, "borderline refused at 4").note == "4 of them failed to be made"
    assert of(found, "complied at 4").value == 0.0 and of(found, "direct").rows == (1, 0, 0, 0)
    assert [note.partition(" failed")[0] for note in found.notes if "at scale" in note] == [
        f"every one of 4 answers to {name}" for name in ("direct at scale 4", "borderline at scale 4 prompts")
    ]
