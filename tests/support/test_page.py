"""docs/support.md is what the cells say, and the cells leave nothing out that has a name."""

from __future__ import annotations

import pytest

from tests.support import attacks_by_space, objectives_by_modality
from tests.support.attacks_by_space import EVALUATION, TRAINING
from tests.support.cells import Refused
from tests.support.objectives_by_modality import COLUMNS
from tests.support.page import COMMAND, PAGE, Notes, rendered
from tests.support.public import choices, discriminators, public_attacks, public_objectives
from textadv.config.adversary import AttackConfig
from textadv.config.attacks import AutoAttackConfig, CarliniWagnerConfig, NamedAttackConfig
from textadv.config.objective import ObjectiveConfig
from textadv.tasks.chat.parts import CapoConfig, PartConfig

ATTACKS = attacks_by_space.ROWS.values()
OBJECTIVES = objectives_by_modality.ROWS


def test_the_page_says_what_the_cells_say() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == rendered(page), f"docs/support.md is not up to date: run `{COMMAND}`"


def test_a_page_without_its_markers_is_refused() -> None:
    page = PAGE.read_text(encoding="utf-8")
    with pytest.raises(ValueError, match="needs the markers of"):
        rendered(page.replace("<!-- begin objectives -->", ""))


def test_a_changed_cell_changes_the_page(monkeypatch: pytest.MonkeyPatch) -> None:
    page, row = PAGE.read_text(encoding="utf-8"), attacks_by_space.ROWS["pgd"]
    monkeypatch.setitem(row.config, "steps", 4)
    assert rendered(page) == page, "effort is not shown"
    refused = Refused("It is tired.", "rest")
    monkeypatch.setitem(row.cells, "image: pixels", refused)
    assert "It is tired. Error: “…rest…”." in rendered(page)
    notes = Notes()
    assert [notes.answer(cell) for cell in (refused, None, refused)] == ["no (1)", "yes", "no (1)"]


def test_every_attack_that_a_file_can_name_has_a_row() -> None:
    named = {row.config["name"] for row in ATTACKS if row.config}
    assert named == discriminators(NamedAttackConfig)
    assert {row.config["name"] for row in ATTACKS if row.where == TRAINING} == choices(AttackConfig, "name")
    for key, model in (("version", AutoAttackConfig), ("form", CarliniWagnerConfig)):
        assert {row.config[key] for row in ATTACKS if row.where == EVALUATION and key in row.config} == choices(
            model, key
        )


def test_every_public_attack_has_a_row() -> None:
    assert {name for row in ATTACKS for name in row.python} == set(public_attacks())


def test_every_objective_that_a_file_can_name_has_a_row() -> None:
    trained = {column: {row.name for row in OBJECTIVES if row.cell(column) is None} for column in COLUMNS}
    assert trained["text"] == trained["image"] == discriminators(ObjectiveConfig)
    assert trained["chat"] == discriminators(PartConfig)
    assert {row.keys for row in OBJECTIVES if row.name == "capo"} == {
        f"form: {form}" for form in choices(CapoConfig, "form")
    }


def test_every_public_objective_has_a_row() -> None:
    """Adversarial weight perturbation has columns instead."""
    assert {name for row in OBJECTIVES for name in row.python} | {"WeightPerturbation"} == set(public_objectives())
