"""The attacks of an evaluation in the configuration: every name, every key, what is refused, and what is built."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.config_sample import problems, small
from tests.oracles import BagOfEmbeddings, CurvedBag, rightly_labelled, token_rows
from textadv.attacks import (
    L2,
    Apgd,
    AutoAttack,
    CarliniWagner,
    CarliniWagnerL0,
    CarliniWagnerLinf,
    Ddn,
    DeepFool,
    Eot,
    Fab,
    GradientAttack,
    Pdgd,
    Square,
    ThreatModel,
    Transfer,
    Within,
)
from textadv.attacks.wrappers.ensemble import WorstOf
from textadv.config.adversary import Against, AttackConfig
from textadv.config.attacks import TRAINABLE, AutoAttackConfig, SquareConfig, StrongAttackConfig, TransferConfig
from textadv.config.types import ConfigError
from textadv.measuring import Alarm, Finished, RadiusSearch

STRONG = [section.model_fields["name"].default for section in StrongAttackConfig.__args__]
EXAMPLE = "threat.per=example"


def threat_of(*overrides: str) -> ThreatModel:
    return small(*overrides).threat.make()


def built(attack: str, *overrides: str, classes: int = 4) -> Any:
    config = small(f"evaluation.attacks={{a: {attack}}}", *overrides)
    return config.evaluation.panel(config.threat.make(), 7, classes)["a"]


def refused(attack: str, *overrides: str, classes: int | None = 4) -> str:
    config = small(f"evaluation.attacks={{a: {attack}}}", *overrides)
    with pytest.raises(ConfigError) as caught:
        config.evaluation.panel(config.threat.make(), 7, classes)
    (line,) = caught.value.lines
    assert line.startswith("evaluation.attacks.a: ")
    return line


def test_every_name_is_read_with_its_defaults_and_built() -> None:
    assert len(STRONG) >= 11
    for name in STRONG:
        config = small(f"evaluation.attacks={{a: {{name: {name}}}}}")
        assert config.evaluation.attacks["a"].name == name
        attack = built(f"{{name: {name}}}", EXAMPLE)
        assert str(attack)
        assert Finished(Path("nowhere"), ()).ledger(attack, threat_of(EXAMPLE)) is not None, name


# What is written -> the type that is built, what its description must hold.
BUILT: dict[str, tuple[str, type, str]] = {
    "apgd_ce": ("{name: apgd_ce, steps: 7, restarts: 2}", Apgd, "APGD (cross_entropy), 7 steps, 2 restarts"),
    "apgd_dlr": ("{name: apgd_dlr, steps: 7}", Apgd, "APGD (dlr), 7 steps, 1 restart"),
    "apgd_targeted": ("{name: apgd_targeted, steps: 7, restarts: 3}", WorstOf, "rank 3), 7 steps, 3 restarts"),
    "fab": ("{name: fab, steps: 7, restarts: 2}", Within, "FAB, 7 steps, 2 restarts, nearest class, no early stop"),
    "fab_targeted": (
        "{name: fab_targeted, steps: 7}",
        Within,
        "FAB, 7 steps, 1 restart, targets of rank 1, 2, 3, no early stop",
    ),
    "square": (
        "{name: square, queries: 30, p_init: 0.5, rescale: true}",
        Square,
        "30 queries, first windows 0.5 of the area, schedule rescaled",
    ),
    "deepfool": (
        "{name: deepfool, steps: 7, candidates: 3, overshoot: 0.1}",
        Within,
        "DeepFool, 7 steps, 3 candidates, overshoot 0.1",
    ),
    "ddn": ("{name: ddn, steps: 7, gamma: 0.1}", Within, "DDN, 7 steps, gamma 0.1"),
    "pdgd": ("{name: pdgd, steps: 7, dual_rate: 0.2}", Within, "PDGD, 7 steps of 0.1, multiplier by 0.2"),
    "carlini_wagner": (
        "{name: carlini_wagner, search_steps: 4, steps: 7, confidence: 2}",
        Within,
        "Carlini-Wagner L2, 4 constants of 7 steps, confidence 2",
    ),
    "autoattack": ("{name: autoattack, steps: 7, queries: 30}", AutoAttack, "AutoAttack standard: APGD-CE (7 steps); "),
    "averaged": ("{name: apgd_ce, samples: 5}", Eot, "each point the mean of 5 passes"),
    "unnamed": ("{steps: 4}", GradientAttack, "4 steps of 0.625 x radius (FixedStep), 1 restart, clean start, early "),
    "fgsm": ("{name: fgsm}", GradientAttack, "1 step of 1 x radius"),
}


@pytest.mark.parametrize("name", BUILT)
def test_what_is_written_is_what_is_built(name: str) -> None:
    written, kind, told = BUILT[name]
    attack = built(written, EXAMPLE)
    assert type(attack) is kind
    assert told in str(attack)


def test_every_key_reaches_the_attack() -> None:
    form = built("{name: carlini_wagner, learning_rate: 0.5, initial_constant: 2, abort_early: false}", EXAMPLE)
    assert form.attack == CarliniWagner(
        threat_of(EXAMPLE), learning_rate=0.5, initial_constant=2.0, abort_early=False, steps=1000
    )
    rand = built("{name: autoattack, version: rand, samples: 3}")
    assert (rand.version, rand.samples, rand.seed, rand.classes) == ("rand", 3, 7, 4)
    assert built("{name: square}").seed == built("{name: apgd_ce}").seed == 7
    assert built("{name: fab}", EXAMPLE).attack == Fab(threat_of(EXAMPLE), seed=7, early_stop=False)
    for name in ("fab", "fab_targeted"):
        assert "no early stop" in str(built(f"{{name: {name}}}", EXAMPLE)), "sizes belong in the result"
        stops = str(built(f"{{name: {name}, early_stop: true}}", EXAMPLE))
        assert "early stop" in stops and "no early stop" not in stops
    assert built("{name: deepfool}").attack == DeepFool(threat_of())
    ddn = built("{name: ddn, initial_norm: 2, step_size: 3}", EXAMPLE).attack
    assert ddn == Ddn(threat_of(EXAMPLE), initial_norm=2.0, step_size=3.0)
    pdgd = built("{name: pdgd, learning_rate: 0.2, initial_ratio: 0.5}", EXAMPLE).attack
    assert pdgd == Pdgd(threat_of(EXAMPLE), learning_rate=0.2, initial_ratio=0.5)


def test_a_transfer_holds_any_other_attack_and_the_model_it_is_made_on() -> None:
    surrogate = torch.nn.Linear(1, 1)
    for name in (*STRONG, *TRAINABLE):
        config = small(f"evaluation.attacks={{a: {{name: transfer, model: runs/plain, attack: {{name: {name}}}}}}}")
        inner = config.evaluation.attacks["a"].attack
        panel = small(f"evaluation.attacks={{a: {{name: {name}}}}}").evaluation.attacks["a"]
        expected = panel.model_copy(update={"early_stop": False}) if name in TRAINABLE else panel
        assert inner == expected
        made = config.evaluation.panel(threat_of(EXAMPLE), 7, 4, {"runs/plain": surrogate})["a"]
        assert isinstance(made, Transfer) and made.surrogate is surrogate and made.threat == threat_of(EXAMPLE)
        assert made.attack == inner.make(threat_of(EXAMPLE), 7, Against(4, early_stop=False))
        assert str(made) == f"{made.attack}, transferred from runs/plain"
    unnamed = small("evaluation.attacks={a: {name: transfer, model: x, attack: {steps: 4}}}").evaluation.attacks["a"]
    assert unnamed == TransferConfig(model="x", attack=AttackConfig(steps=4, select="most_damaging", starts="spread"))
    asked = small("evaluation.attacks={a: {name: transfer, model: x, attack: {early_stop: true}}}")
    assert asked.evaluation.attacks["a"].attack.early_stop
    square = small("evaluation.attacks={a: {name: transfer, model: x}}", "evaluation.attacks.a.attack.name=square")
    assert square.evaluation.attacks["a"].attack == SquareConfig()


@pytest.mark.parametrize("name", ["apgd_ce", "apgd_dlr", "apgd_targeted"])
@pytest.mark.parametrize("samples", [1, 2])
def test_a_transferred_search_goes_past_the_surrogates_boundary_and_breaks_more(name: str, samples: int) -> None:
    """The surrogate is the model with other noise on its weights."""
    model, surrogate = CurvedBag(classes=4), CurvedBag(classes=4)
    noise = torch.randn(surrogate.head.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    surrogate.head.data += 0.5 * noise
    batch = rightly_labelled(model, token_rows([5, 9, 7, 6] * 8))
    inner = f"{{name: {name}, steps: 8, samples: {samples}}}"
    written = f"evaluation.attacks={{a: {{name: transfer, model: x, attack: {inner}}}}}"
    config = small(written, "threat.relative_radius=null", "threat.radius=0.6")
    made = config.evaluation.panel(config.threat.make(), 7, 4, {"x": surrogate})["a"]
    assert isinstance(made, Transfer) and "early stop" not in str(made).replace("no early stop", "")
    stopping = config.evaluation.attacks["a"].attack.make(made.threat, 7, Against(4))
    broken, fewer = (int(each(model, batch).success.sum()) for each in (made, replace(made, attack=stopping)))
    assert broken >= fewer + (3 if samples == 1 else 0)


def test_a_mean_of_passes_is_searched_to_the_end() -> None:
    for name in ("apgd_ce", "apgd_dlr", "apgd_targeted"):
        single, mean = built(f"{{name: {name}}}"), built(f"{{name: {name}, samples: 3}}")
        assert ", early stop" in str(single) and ", no early stop" in str(mean) and ", early stop" not in str(mean)


def test_a_transfer_whose_model_is_not_loaded_runs_on_nothing() -> None:
    attack = built("{name: transfer, model: x, attack: {name: fgsm}}")
    with pytest.raises(AttributeError):
        attack(BagOfEmbeddings(), token_rows([5]))


@pytest.mark.parametrize(
    "norm, form, kind",
    [("l2", None, CarliniWagner), ("linf", None, CarliniWagnerLinf), ("l2", "l0", CarliniWagnerL0)],
)
def test_the_form_of_carlini_wagner_is_that_of_the_norm_or_asked_for(norm: str, form: str | None, kind: type) -> None:
    asked = f", form: {form}" if form else ""
    assert type(built(f"{{name: carlini_wagner{asked}}}", EXAMPLE, f"threat.norm={norm}").attack) is kind


REFUSED = {
    "FAB per token": ("{name: fab}", [], 4, "FAB measures the perturbation of a whole row, got threat.per: token."),
    "FAB-T per token": ("{name: fab_targeted}", [], 4, "got threat.per: token. Set threat.per: example"),
    "Square in L1": ("{name: square}", ["threat.norm=l1"], 4, "works in Linf and L2 balls, got L1. Set threat.norm"),
    "Carlini-Wagner in L1": (
        "{name: carlini_wagner}",
        ["threat.norm=l1"],
        4,
        "has the forms l2, linf, l0, got threat.norm: l1.",
    ),
    "Carlini-Wagner per token": ("{name: carlini_wagner}", [], 4, "needs threat.per: example, got token"),
    "DDN per token": ("{name: ddn}", [], 4, "DDN needs threat.per: example, got token"),
    "PDGD in Linf": ("{name: pdgd}", [EXAMPLE, "threat.norm=linf"], 4, "PDGD needs threat.norm: l2, got linf"),
    "another form": (
        "{name: carlini_wagner, form: linf}",
        [EXAMPLE],
        4,
        "needs threat.norm: linf, got l2.",
    ),
    "a transfer of what does not fit": (
        "{name: transfer, model: x, attack: {name: fab}}",
        [],
        4,
        "FAB measures the perturbation of a whole row, got threat.per: token.",
    ),
    "DLR of 2 classes": ("{name: apgd_dlr}", [], 2, "apgd_dlr needs at least 3 classes, got 2. Set name: apgd_ce"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_the_threat_model_or_the_classes_do_not_allow_is_named_with_its_key(case: str) -> None:
    attack, overrides, classes, told = REFUSED[case]
    assert told in refused(attack, *overrides, classes=classes)


def test_before_the_classes_are_known_only_the_threat_model_counts() -> None:
    config = small("evaluation.attacks={a: {name: apgd_dlr}, b: {name: fab}}")
    with pytest.raises(ConfigError) as caught:
        config.evaluation.panel(config.threat.make(), 0)
    assert [line.split(":")[0] for line in caught.value.lines] == ["evaluation.attacks.b"]


UNKNOWN = {
    "{name: fab, samples: 4}": "it belongs to evaluation.attacks.a.name: apgd_ce and ",
    "{name: fgsm, queries: 4}": "it belongs to evaluation.attacks.a.name: square and evaluation.attacks.a.name: autoat",
    "{name: square, querys: 4}": "did you mean evaluation.attacks.a.queries? Valid keys of evaluation.attacks.a: name, "
    "queries, p_init, rescale, samples.",
    "{name: square, select: last}": "Valid keys of evaluation.attacks.a: name, queries, p_init, rescale, samples.",
    "{name: transfer, model: x, models: y, attack: {}}": "did you mean evaluation.attacks.a.model? Valid keys of "
    "evaluation.attacks.a: name, model, attack.",
    "{name: transfer, model: x, attack: {name: square, querys: 4}}": "did you mean evaluation.attacks.a.attack."
    "queries? Valid keys of evaluation.attacks.a.attack: name, queries, p_init, rescale, samples.",
    "{name: fgsm, model: x}": "it belongs to evaluation.attacks.a.name: transfer.",
    "{querys: 4}": "Valid keys of evaluation.attacks.a: name, steps, steps_schedule, step_size,",
}


@pytest.mark.parametrize("written", UNKNOWN)
def test_an_unknown_key_of_an_attack_is_told_with_those_of_that_attack(written: str) -> None:
    (line,) = problems(f"evaluation.attacks={{a: {written}}}")
    assert line.startswith("unknown key evaluation.attacks.a.")
    assert UNKNOWN[written] in line


WRONG = {
    "{name: autoatack}": "evaluation.attacks.a.name must be one of 'pgd', 'fgsm',",
    "{name: square, queries: 0}": "evaluation.attacks.a.queries must be at least 1, got 0.",
    "{name: square, p_init: 1.5}": "evaluation.attacks.a.p_init must be at most 1, got 1.5.",
    "{name: autoattack, version: full}": "evaluation.attacks.a.version must be 'standard', 'rand' or 'fast', got",
    "{name: autoattack, version: fast, queries: 9}": "evaluation.attacks.a.queries does not apply to evaluation."
    "attacks.a.version: fast, got 9. Remove it, or set evaluation.attacks.a.version: standard.",
    "{name: autoattack, samples: 9}": "evaluation.attacks.a.samples does not apply to evaluation.attacks.a.version:",
    "{name: carlini_wagner, form: l1}": "evaluation.attacks.a.form must be 'l2', 'linf' or 'l0', got 'l1'.",
    "{name: transfer, attack: {}}": "evaluation.attacks.a.model is missing in",
    "{name: transfer, model: x}": "evaluation.attacks.a.attack is missing in",
    "{name: transfer, model: x, attack: {name: transfer, model: y, attack: {}}}": "evaluation.attacks.a.attack.name "
    "must be one of 'pgd',",
    "{name: transfer, model: x, attack: {steps: 0}}": "evaluation.attacks.a.attack.steps must be at least 1, got 0.",
    "{name: transfer, model: x, attack: {name: autoattack, samples: 9}}": "evaluation.attacks.a.attack.samples does "
    "not apply to evaluation.attacks.a.attack.version:",
    "{name: deepfool, candidates: 1}": "evaluation.attacks.a.candidates must be at least 2, got 1.",
}


@pytest.mark.parametrize("written", WRONG)
def test_a_wrong_value_of_an_attack_is_told(written: str) -> None:
    (line,) = problems(f"evaluation.attacks={{a: {written}}}")
    assert line.startswith(WRONG[written])
    if "autoatack" in written:
        assert line.endswith("Did you mean autoattack?")


def test_the_attacks_of_training_stay_what_they_are() -> None:
    (line,) = problems("attack.name=apgd_ce")
    assert line.startswith("attack.name must be 'pgd', 'fgsm', 'r_fgsm', 'virtual_adversarial', 'noise' or 'edits'")
    assert isinstance(small().evaluation.attacks["pgd20"], AttackConfig)
    assert isinstance(small("evaluation.attacks={a: {name: autoattack}}").evaluation.attacks["a"], AutoAttackConfig)


def test_the_masking_alarm_can_be_sized_and_left_out() -> None:
    assert small().evaluation.masking.make(3) == Alarm(256, 1000, 3)
    sized = small("evaluation.masking={rows: 5, queries: 6}").evaluation.masking
    assert sized.make(0) == Alarm(5, 6, 0)
    assert small("evaluation.masking=null").evaluation.masking is None


def test_the_search_for_the_smallest_radius_is_read_with_its_defaults_and_built() -> None:
    assert small(EXAMPLE).evaluation.minimum_radius is None
    wanted = small(EXAMPLE, "evaluation.minimum_radius={}").evaluation.minimum_radius
    assert wanted is not None and isinstance(wanted.attack, AttackConfig)
    assert (wanted.attack.steps, wanted.attack.select, wanted.attack.early_stop) == (20, "most_damaging", True)
    threat = threat_of(EXAMPLE, "threat.relative_radius=null", "threat.radius=0.5")
    search = wanted.make(threat, seed=7)
    assert search == RadiusSearch(wanted.attack.make(replace(threat, ball=L2(1.0, per="example")), 7), seed=7)
    told = "{attack: {name: square, queries: 9}, upper: 2.5, tolerance: 0.1, steps: 6, rows: 3}"
    wanted = small(EXAMPLE, f"evaluation.minimum_radius={told}").evaluation.minimum_radius
    search = wanted.make(threat, seed=7)
    assert search is not None and isinstance(search.attack, Square)
    assert (search.attack.queries, search.attack.threat.ball.radius) == (9, 1.0)
    assert (search.upper, search.tolerance, search.steps, search.rows, search.seed) == (2.5, 0.1, 6, 3, 7)


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ("{upper: 0}", "evaluation.minimum_radius.upper must be greater than 0, got 0"),
        ("{tolerance: 1.0}", "evaluation.minimum_radius.tolerance must be less than 1, got 1.0"),
        ("{attack: {step_size: 0.1}}", "evaluation.minimum_radius.attack.step_size would stay 0.1 at every radius"),
        ("{attack: {steps: 0}}", "evaluation.minimum_radius.attack.steps must be at least 1, got 0."),
        (
            "{attack: {name: autoattack, version: rand}}",
            "evaluation.minimum_radius.attack.version: rand looks at means",
        ),
        ("{attack: {name: apgd_ce, samples: 3}}", "evaluation.minimum_radius.attack.samples must be 1, got 3"),
        (
            "{attack: {name: autoattack, version: fast, queries: 9}}",
            "evaluation.minimum_radius.attack.queries does not apply to evaluation.minimum_radius.attack.version: fast",
        ),
        ("{attack: {name: transfer, model: a}}", "evaluation.minimum_radius.attack.name must be"),
        ("{rows: 2, radii: 3}", "unknown key evaluation.minimum_radius.radii"),
        (
            "{attack: {name: ddn}, with_fab: true}",
            "evaluation.minimum_radius.with_fab: true is of a bisection, and evaluation.minimum_radius.attack.name: "
            "ddn runs once",
        ),
        ("{attack: {name: fab}, tolerance: 0.1}", "evaluation.minimum_radius.tolerance: 0.1 is of a bisection"),
        ("{attack: {name: deepfool}, steps: 3}", "evaluation.minimum_radius.steps: 3 is of a bisection"),
        (
            "{attack: {name: fab_targeted, early_stop: true}}",
            "evaluation.minimum_radius.attack.early_stop: true would leave a row at the first perturbation",
        ),
    ],
)
def test_a_wrong_search_for_the_smallest_radius_is_told(given: str, told: str) -> None:
    lines = problems(EXAMPLE, f"evaluation.minimum_radius={given}")
    assert any(line.startswith(told) for line in lines), lines


def test_a_minimal_attack_is_built_for_the_threat_itself_and_fab_can_be_asked_for() -> None:
    wanted = small(
        EXAMPLE, "evaluation.minimum_radius={attack: {name: ddn}, with_fab: false}"
    ).evaluation.minimum_radius
    search = wanted.make(threat_of(EXAMPLE), seed=7)
    assert search is not None and search.attack == Within(Ddn(threat_of(EXAMPLE)), threat_of(EXAMPLE))
    assert search.with_fab is False and not search.begins_with_fab(threat_of(EXAMPLE))
    plain = small(EXAMPLE, "evaluation.minimum_radius={}").evaluation.minimum_radius
    for overrides, first in (([EXAMPLE], True), ([EXAMPLE, "threat.norm=linf"], False), (["threat.per=token"], False)):
        threat = threat_of(*overrides)
        found = plain.make(threat, seed=7)
        assert found is not None and found.begins_with_fab(threat) is first
    asked = small(EXAMPLE, "evaluation.minimum_radius={with_fab: true}").evaluation.minimum_radius
    with pytest.raises(ConfigError, match=r"^evaluation.minimum_radius.with_fab: FAB measures whole rows"):
        asked.make(threat_of("threat.per=token"), seed=0)


def test_a_search_that_the_threat_model_does_not_allow_is_told_with_its_key() -> None:
    wanted = small(EXAMPLE, "evaluation.minimum_radius={attack: {name: fab}}").evaluation.minimum_radius
    with pytest.raises(ConfigError, match=r"^evaluation.minimum_radius.attack: .*per"):
        wanted.make(threat_of("threat.per=token"), seed=0)
