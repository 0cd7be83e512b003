"""The strong attacks through the recipes: from the configuration to the cascade in the report."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from recipes import adv_finetune, attack, evaluate
from tests.recipes.running import IMAGES as SMALL_IMAGES
from tests.recipes.running import SMALL as SMALL_TEXTS
from tests.recipes.running import Recipe, check_consistent, results_of

ALL = (
    "evaluation.attacks={aa: {name: autoattack, steps: 3, queries: 12}, fast: {name: autoattack, version: fast, "
    "steps: 3}, ce: {name: apgd_ce, steps: 3}, dlr: {name: apgd_dlr, steps: 3}, targeted: {name: apgd_targeted, "
    "steps: 2}, fab: {name: fab, steps: 2}, fab_t: {name: fab_targeted, steps: 2}, square: {name: square, queries: 9}, "
    "deepfool: {name: deepfool, steps: 3}, cw: {name: carlini_wagner, search_steps: 2, steps: 4}, pgd: {steps: 2}}"
)
MASKING = "evaluation.masking={rows: 6, queries: 10}"


def test_every_attack_evaluates_an_image_classifier(tmp_path: Path, recipe: Recipe) -> None:
    output = tmp_path / "run"
    ended = recipe(adv_finetune, SMALL_IMAGES, f"output={output}", ALL, MASKING)
    assert ended.code == 0, ended.error
    results = results_of(output)
    check_consistent(results)
    (found,) = results.evaluations
    assert [one.name for one in found.attacks] == [
        *("aa", "fast", "ce", "dlr", "targeted", "fab", "fab_t", "square", "deepfool", "cw", "pgd")
    ]
    stages = [stage.name for stage in found.attacks[0].cascade]
    assert stages == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert found.attacks[0].cascade[-1].robust == found.attacks[0].robust
    assert [bool(one.cascade) for one in found.attacks] == [True, True, *[False] * 9]
    left = found.attacks[0].cascade[0].robust.count
    assert f"hardened: aa, APGD-CE leaves {left} right" in ended.printed
    for name in ("report.md", "report.html"):
        text = (output / name).read_text(encoding="utf-8")
        assert "Stage by stage" in text and "APGD-T" in text and "Masked gradients" in text, name
        assert "Rows that stay right under each of aa, fast, ce" in text, name
    assert len(found.masking) == 5
    raw = json.loads((output / "results.json").read_text())
    (cascade,) = [part for part in raw["evaluations"][0]["sections"] if part["kind"] == "cascade"]
    assert cascade["stages"][3]["queries"] >= 0

    # A second evaluation of the same weights in the same folder attacks nothing again.
    model = str(output / "merged")
    first = recipe(evaluate, SMALL_IMAGES, ALL, MASKING, "--model", model, "--output", str(tmp_path / "m"))
    assert first.code == 0, first.error
    again = recipe(evaluate, SMALL_IMAGES, ALL, MASKING, "--model", model, "--output", str(tmp_path / "m"))
    assert again.code == 0, again.error
    read = [[line for line in ran.printed.splitlines() if "aa, APGD-CE leaves" in line] for ran in (first, again)]
    assert "read back" in read[1][0] and "read back" not in read[0][0]
    assert results_of(tmp_path / "m").evaluations[0].rows_detail == found.rows_detail
    one = recipe(attack, SMALL_IMAGES, ALL, "--model", model, "--attack", "cw", "--picture", str(tmp_path / "p.png"))
    assert one.code == 0, one.error
    assert "Carlini-Wagner Linf" in one.printed


def test_autoattack_evaluates_a_text_classifier_of_two_classes(tmp_path: Path, bert: Path, recipe: Recipe) -> None:
    output = tmp_path / "run"
    attacks = "evaluation.attacks={aa: {name: autoattack, steps: 2, queries: 8}}"
    ended = recipe(adv_finetune, SMALL_TEXTS, f"output={output}", f"model.name={bert}", attacks, MASKING)
    assert ended.code == 0, ended.error
    results = results_of(output)
    check_consistent(results)
    hardened = results.evaluations[-1]
    assert [stage.name for stage in hardened.attacks[0].cascade] == ["APGD-CE", "APGD-T", "Square"]
    assert "left out: FAB-T, which measures a whole row" in hardened.attacks[0].attack
    assert "left out: FAB-T" in (output / "report.md").read_text(encoding="utf-8")
    assert hardened.worst_case_meaning.startswith("AutoAttack standard, rows that stay right")


@pytest.mark.parametrize(
    "attack_of, told",
    [
        ("{name: fab}", "evaluation.attacks.a: FAB measures the perturbation of a whole row, got threat.per: token."),
        ("{name: apgd_dlr}", "evaluation.attacks.a: apgd_dlr needs at least 3 classes, got 2."),
        ("{name: carlini_wagner}", "evaluation.attacks.a: Carlini-Wagner L2 needs threat.per: example, got token"),
    ],
)
def test_what_cannot_work_is_said_before_anything_is_loaded(
    tmp_path: Path, recipe: Recipe, attack_of: str, told: str
) -> None:
    wrong = ["model.name=no/such-model", f"evaluation.attacks={{a: {attack_of}}}"]
    ended = recipe(adv_finetune, SMALL_TEXTS, f"output={tmp_path / 'run'}", *wrong)
    assert ended.code == 1
    assert told in ended.error


@pytest.mark.parametrize("config", [SMALL_IMAGES, SMALL_TEXTS])
def test_the_smallest_radius_is_looked_for_and_stands_in_the_report(
    tmp_path: Path, recipe: Recipe, config: str
) -> None:
    """The text model has seen three batches and says the same of every text, whatever the perturbation."""
    output = tmp_path / "run"
    search = "evaluation.minimum_radius={rows: 8, upper: 20, attack: {steps: 3}}"
    ended = recipe(adv_finetune, config, f"output={output}", search)
    assert ended.code == 0, ended.error
    hardened = results_of(output).evaluations[-1]
    found = hardened.minimum
    assert found is not None and len(found.radii) == 8 and found.upper == pytest.approx(20 * found.radius)
    right = {row.id for row in hardened.rows_detail if row.clean_prediction == row.label}
    assert {row.id for row in found.radii if row.radius == 0} == {row.id for row in found.radii} - right
    broken = [row.radius for row in found.radii if row.radius]
    assert bool(broken) == (config == SMALL_IMAGES) and all(radius <= found.upper for radius in broken)
    for name in ("report.md", "report.html"):
        assert "Smallest radius that breaks a row" in (output / name).read_text(encoding="utf-8"), name
    assert "hardened: smallest radius of 8 rows" in ended.printed


def test_a_search_for_the_smallest_radius_that_cannot_work_is_said_before_anything_is_loaded(
    tmp_path: Path, recipe: Recipe
) -> None:
    output = tmp_path / "run"
    ended = recipe(
        adv_finetune,
        SMALL_TEXTS,
        f"output={output}",
        "model.name=nowhere",
        "evaluation.minimum_radius={attack: {name: apgd_dlr}}",
    )
    assert ended.code == 1
    assert "evaluation.minimum_radius.attack: apgd_dlr needs at least 3 classes, got 2" in ended.error
