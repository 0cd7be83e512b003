"""Every phase of a run that may take long is told of, by a name that says which, and counts to its end."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from recipes import adv_finetune
from tests import chat_run
from tests.recipes.running import IMAGES, SMALL, Recipe
from textadv.values.host.phases import Advance, Phases, untold

STRONG = (
    "evaluation.attacks.auto={name: autoattack, version: standard, steps: 2, queries: 5}",
    "evaluation.radii=[0.1, 0.3]",
    "evaluation.minimum_radius={attack: {steps: 1}, rows: 2, steps: 1}",
    "evaluation.masking={rows: 4, queries: 2}",
    "baselines=[same_steps]",
)
COMMON = ["this run", "making ready", "reading the data", "loading the model", "trying the first steps", "training"]
COMMON += ["writing adapter", "comparing adapter", "comparing merged", "writing the report"]
ATTACKED = ["without an attack", "pgd", "auto, APGD-CE", "auto, Square", "curve at 0.1", "masking alarm"]


class Told:
    """Whoever is told of phases, and remembers their names, totals and counts."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.open: list[str] = []
        self.wrong: list[str] = []

    @contextmanager
    def __call__(self, name: str, total: int | None = None, unit: str = "rows", done: int = 0) -> Iterator[Advance]:
        """See `Phases`."""
        self.begun.append(name)
        self.open.append(name)
        count = done

        def advance(more: int) -> None:
            nonlocal count
            count += more

        try:
            yield advance
        finally:
            self.open.remove(name)
        if total is not None and count != total:
            self.wrong.append(f"{name} counted {count} of {total} {unit}")


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> Told:
    """What a run of the recipe tells; it is asked for with `tracking.progress`."""
    found = Told()

    def on_screen(wanted: bool) -> Phases:
        return found if wanted else untold

    monkeypatch.setattr(adv_finetune, "on_screen", on_screen)
    return found


def test_a_run_on_texts_tells_of_its_phases(recipe: Recipe, told: Told, tmp_path: Path) -> None:
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}", "tracking.progress=true", *STRONG)
    assert ended.code == 0, ended.error
    assert not told.wrong
    expected = ["encoding texts", *COMMON, "comparing baselines/plain/merged", "validation"]
    expected += [f"{model}: {name}" for model in ("plain", "hardened") for name in ATTACKED]
    expected += ["hardened: smallest radius", "hardened: masking alarm: gradients"]
    assert set(expected) <= set(told.begun), sorted(set(expected) - set(told.begun))


def test_a_run_on_images_tells_of_its_phases(recipe: Recipe, told: Told, tmp_path: Path) -> None:
    small = IMAGES
    ended = recipe(adv_finetune, small, f"output={tmp_path / 'run'}", "tracking.progress=true")
    assert ended.code == 0, ended.error
    assert not told.wrong
    expected = ["reading images", *COMMON, "validation", "hardened: without an attack"]
    assert set(expected) <= set(told.begun), sorted(set(expected) - set(told.begun))


def test_a_run_on_chats_tells_of_its_phases(recipe: Recipe, told: Told, tmp_path: Path) -> None:
    config = chat_run.prepared(tmp_path)
    wanted = ("tracking.progress=true", "baselines=[same_steps]")
    ended = recipe(adv_finetune, str(config), f"output={tmp_path / 'run'}", *wanted)
    assert ended.code == 0, ended.error
    assert not told.wrong
    expected = [
        "encoding chats",
        "encoding prompts",
        "reading data.utility.train",
        *COMMON,
        "comparing baselines/plain/merged",
    ]
    expected += ["looking prompts up in training", "reading training prompts", "loading judges"]
    measured = ["measuring", "direct", "utility perplexity: likelihoods", "lab_facts: encoding choices", "borderline"]
    measured += ["lab_facts: likelihoods", "checking instructions", "lab_instructions", "judge declines: verdicts"]
    expected += [f"{model}: {name}" for model in ("before", "plain", "hardened") for name in measured]
    assert set(expected) <= set(told.begun), sorted(set(expected) - set(told.begun))


def test_without_progress_nobody_is_told(recipe: Recipe, told: Told, tmp_path: Path) -> None:
    ended = recipe(adv_finetune, SMALL, f"output={tmp_path / 'run'}")
    assert ended.code == 0, ended.error
    assert not told.begun
