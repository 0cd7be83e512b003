"""Prompts answered again one at a time: none differs on a CPU, and a model that looks at its batch is found out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.measuring.test_chat import SAID, Scripted, evaluated, likely, llama, panel, scripted
from textadv.measuring.blocks import Grid
from textadv.measuring.safety import generate
from textadv.measuring.safety.adversaries import Direct, Prefill
from textadv.measuring.sections.batch_invariance import BatchInvariance

__all__ = ["likely", "scripted"]
WANTED = replace(panel(), attacks={"direct": Direct(), "prefill": Prefill(2)}, batch_invariance=50)


@dataclass
class Crowded(Scripted):
    """Complies with one request where it is answered beside others, and refuses it alone."""

    def __call__(self, model: nn.Module, rows: Sequence[Sequence[int]], **settings: object) -> list[list[int]]:
        self.said = SAID | ({"never": "sorry, I cannot|but no"} if len(rows) == 1 else {"never": "bad stuff|bad stuff"})
        return super().__call__(model, rows, **settings)


def test_a_model_that_looks_at_its_batch_is_found_out(
    monkeypatch: pytest.MonkeyPatch, likely: list[bool], tmp_path: Path
) -> None:
    # Batches of two prompts each, so that none is alone.
    wanted = replace(WANTED, decoding=replace(WANTED.decoding, batch_size=4))
    monkeypatch.setattr(generate, "generate_tokens", Crowded())
    found = evaluated(tmp_path, wanted=wanted).invariance
    assert found is not None and found.batch_size == 4
    # One behaviour of four, directly and with a prefill.
    assert (found.outcomes.count, found.outcomes.total, found.texts.count) == (2, 8, 2)
    assert found.flops.total and found.flops.activation_backward == 0
    (table,) = [block for block in BatchInvariance.blocks({"model": found}) if isinstance(block, Grid)]
    assert table.rows[1][:4] == ["model", "8", "4", "25.0 [7.1, 59.1]"]


def test_one_that_does_not_is_not(scripted: Scripted, likely: list[bool], tmp_path: Path) -> None:
    found = evaluated(tmp_path, wanted=WANTED).invariance
    assert found is not None and (found.outcomes.count, found.texts.count, found.outcomes.total) == (0, 0, 8)
    lines = (tmp_path / "before.jsonl").read_text(encoding="utf-8").splitlines()
    asked = len(scripted.asked)
    assert asked == len(lines) + 8, "the answers made alone are kept nowhere"


def test_in_full_precision_on_a_cpu_nothing_depends_on_the_batch(likely: list[bool], tmp_path: Path) -> None:
    """A real model that says random things, in batches of rows of different lengths."""
    assert next(llama().parameters()).dtype == torch.float32
    found = evaluated(tmp_path, wanted=WANTED).invariance
    assert found is not None and (found.outcomes.count, found.texts.count, found.outcomes.total) == (0, 0, 8)


@pytest.mark.parametrize(("most", "size", "total"), [(None, 3, None), (50, 1, None), (5, 3, 4), (1, 3, 2)])
def test_so_many_prompts_at_most_and_one_behaviour_at_least(
    scripted: Scripted, likely: list[bool], tmp_path: Path, most: int | None, size: int, total: int | None
) -> None:
    decoding = replace(WANTED.decoding, batch_size=size)
    found = evaluated(tmp_path, wanted=replace(WANTED, batch_invariance=most, decoding=decoding)).invariance
    assert (None if found is None else found.outcomes.total) == total
