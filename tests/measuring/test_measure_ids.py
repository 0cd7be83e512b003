"""Ids of measures: what programs compare by, the same whatever the names become, also of results that hold none."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from tests.report.made_up_chat import evaluated, made, rate
from textadv.measuring.safety.caveats import changes
from textadv.measuring.safety.measure_ids import measure_id
from textadv.report import from_json, to_json
from textadv.report.frontier import WORST, run_of
from textadv.report.table import table

IDS = {
    ("attack success", "direct"): "attack_success/direct",
    ("attack success", "prefill 5"): "attack_success/prefill_5",
    ("attack success", "embedding at 0.4"): "attack_success/embedding_at_0.4",
    ("attack success", "free suffix of 20"): "attack_success/free_suffix_of_20",
    ("attack success", "worst case"): "attack_success/worst_case",
    ("attack success", "direct (target said)"): "attack_success/direct/target_said",
    ("attack success", "worst case (llm:harmbench)"): "attack_success/worst_case/llm_harmbench",
    ("attack success", "direct (classifier:runs/judge)"): "attack_success/direct/classifier_runs_judge",
    ("over-refusal", "borderline: refused"): "over_refusal/borderline/refused",
    ("over-refusal", "or-bench: degenerate"): "over_refusal/or-bench/degenerate",
    ("capability", "utility perplexity"): "capability/utility/perplexity",
    ("capability", "lab_facts: multiple choice"): "capability/lab_facts/multiple_choice",
    ("capability", "lab_facts: multiple choice, no template"): "capability/lab_facts/multiple_choice_no_template",
    ("capability", "lab_instructions: instructions"): "capability/lab_instructions/instructions",
}


@pytest.mark.parametrize(("named", "expected"), IDS.items())
def test_the_ids_are_those_that_are_documented(named: tuple[str, str], expected: str) -> None:
    assert measure_id(*named) == expected


def test_no_two_measures_share_an_id() -> None:
    assert len({measure_id(*named) for named in IDS}) == len(IDS)


def test_results_hold_ids_and_older_ones_get_theirs() -> None:
    results = made(evaluated("before", 18, 19), evaluated("hardened", 1, 2))
    data = json.loads(to_json(results))
    held = [measure["id"] for measure in data["evaluations"][0]["measures"]]
    assert held[:3] == ["attack_success/direct", "attack_success/prefill_5", "attack_success/worst_case"]
    assert held[-1] == "capability/utility/perplexity"
    for model in data["evaluations"]:
        for measure in model["measures"]:
            del measure["id"]
    assert from_json(json.dumps(data)) == results


def test_models_are_compared_by_id_whatever_a_measure_is_called() -> None:
    before, hardened = evaluated("before", 18, 19), evaluated("hardened", 1, 2)
    called = {"worst case": "any attack", "utility perplexity": "perplexity of useful answers"}
    renamed = tuple(replace(m, name=called.get(m.name, m.name)) for m in before.measures)
    results = made(replace(before, measures=renamed), hardened)
    assert [m.id for m in renamed] == [m.id for m in hardened.measures]
    assert table(results) == table(made(before, hardened))
    assert [p.after.name for p in changes(results.evaluations, "capability")] == [
        "lab_facts: multiple choice",
        "utility perplexity",
    ]
    assert results.verdict == made(before, hardened).verdict
    assert run_of(results, "x").model.measure(WORST) is not None


def test_an_id_that_is_given_is_kept() -> None:
    kept = replace(rate("attack success", "direct", 1), id="mine")
    assert kept.id == "mine" and replace(kept, name="other").id == "mine"
