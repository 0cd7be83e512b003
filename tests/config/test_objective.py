"""The objectives' sections: what they ask of attack, threat, mixing and training, and what they are built into."""

from __future__ import annotations

import pytest

from tests.config_sample import problems, require_told, small, small_chat
from textadv.attacks import AdaptiveRadius, Elicit, GradientAttack, PenalisedAscent, Stages
from textadv.config.adversary import AttackConfig
from textadv.config.objective import FreelbConfig
from textadv.config.objective_rules import freelb_problems
from textadv.objectives import (
    Adversarial,
    Consistency,
    Distributional,
    FreeLB,
    Mart,
    Objective,
    PredictorConsistency,
    Regularised,
    WeightPerturbation,
    memory_of,
)
from textadv.tasks.chat.scene import eliciting_attack
from textadv.values.losses import detached_symmetric_kl, symmetric_kl

KINDS: dict[str, type] = {
    "adversarial": Adversarial,
    "trades": Consistency,
    "mart": Mart,
    "alum": Consistency,
    "smart": Consistency,
    "regularised": Regularised,
    "distributional": Distributional,
    "predictor": PredictorConsistency,
}
MINE = "objective.name="


def built(*overrides: str) -> Objective:
    config = small(*overrides)
    found = config.objective.make(config.attack, config.threat.make(), 5, config.mixing)
    assert found is not None
    return found


@pytest.mark.parametrize("name", KINDS)
def test_a_name_is_built_with_and_without_a_weight_perturbation(name: str) -> None:
    plain = built(MINE + name)
    assert type(plain) is KINDS[name]
    moved = built(MINE + name, "objective.weight_perturbation=0.01", "mixing.ratio=0.5")
    assert isinstance(moved, WeightPerturbation) and moved.gamma == 0.01
    assert moved.make(moved.attack) == plain, "the objective inside is the same"
    assert (moved.terms, moved.keeps_clean) == (plain.terms, plain.keeps_clean)


def test_numbers_reach_the_objects() -> None:
    assert built(MINE + "mart", "objective.weight=3").weight == 3 and built(MINE + "mart").weight == 5
    predictor = small(MINE + "predictor", "objective={name: predictor, weight: 2, hidden: 7}").objective
    assert (predictor.weight, predictor.hidden) == (2.0, 7)
    robust = built(MINE + "distributional", "objective.penalty=3", "attack={steps: 7, relative_step_size: 0.5}")
    attack = robust.attack
    assert isinstance(attack, PenalisedAscent)
    assert (robust.penalty, attack.penalty, attack.steps, attack.relative_step_size) == (3.0, 3.0, 7, 0.5)
    assert (attack.random_start, attack.seed) == (True, 5)
    plain = built(MINE + "distributional", "attack={random_start: false}").attack
    assert (plain.relative_step_size, plain.random_start) == (1.0, False)


def test_what_has_no_weight_perturbation_says_who_has() -> None:
    for name in ("clean", "freelb"):
        (line,) = problems(f"objective={{name: {name}, weight_perturbation: 0.1}}")
        assert "unknown key objective.weight_perturbation" in line and "objective.name: adversarial" in line
        assert small(MINE + name).objective.gamma == 0
    (line,) = problems("objective={name: mart, weight_perturbation: -1}")
    assert line.startswith("objective.weight_perturbation must be at least 0, got -1")


def test_a_weight_perturbation_cannot_be_scaled() -> None:
    moved = "objective={name: trades, weight_perturbation: 0.01}"
    assert small(moved, "training.precision=bf16", "mixing.ratio=1", "training.micro_batch_size=1")
    (line,) = problems(moved, "training.precision=fp16")
    assert line.endswith("training.precision: fp16 cannot scale. Set training.precision: bf16 or no.")


def test_a_price_has_no_ball_and_no_choice_of_search() -> None:
    price = MINE + "distributional"
    assert small(price, "mixing.policy=pair", "threat.per=example").objective.name == "distributional"
    for extra, told in (
        ("attack.name=fgsm", "objective.name: distributional needs attack.name: pgd, got fgsm"),
        ("threat.norm=linf", "objective.name: distributional prices the L2 norm, got threat.norm: linf"),
        ("attack.step_size=0.1", "objective.name: distributional takes steps that are shares"),
        ("attack.relative_step_size=2", "objective.name: distributional takes steps that are shares"),
        ("attack.ascent=adam", "attack.ascent must be fixed with objective.name: distributional, got adam"),
        ("attack.early_stop=true", "attack.early_stop must be false with objective.name: distributional, got true"),
    ):
        (line,) = problems(price, extra)
        assert line.startswith(told), line


@pytest.mark.parametrize(
    "extra",
    ["mixing.warmup_steps=2", "mixing.ratio=0", "mixing.ratio_schedule={kind: step, values: {0: 0.5, 9: 0}}"],
)
def test_a_predictor_needs_attacked_rows_in_every_step(extra: str) -> None:
    (line,) = problems(MINE + "predictor", extra)
    assert line.startswith(
        "objective.name: predictor needs attacked rows in every optimizer step, got mixing.warmup_st"
    )


def test_a_predictor_holds_the_clean_loss_and_mart_does_not() -> None:
    (line,) = problems(MINE + "predictor", "mixing.policy=pair")
    assert "because objective.name: predictor already contains it" in line
    assert small(MINE + "mart", "mixing.policy=pair").mixing.policy == "pair"


# ---- radius per row, steps over time

ADAPTIVE = "mixing.adaptive_radius={lowest: 0.25, highest: 2, reference: 1.5}"
SCHEDULE = "attack.steps_schedule={0: 1, 100: 2, 300: 5}"


def test_each_row_gets_a_radius_of_its_own_where_asked_for() -> None:
    attack = built(ADAPTIVE).attack
    assert isinstance(attack, AdaptiveRadius) and isinstance(attack.attack, GradientAttack)
    assert (attack.lowest, attack.highest, attack.reference) == (0.25, 2.0, 1.5)
    assert attack.threat == attack.attack.threat
    assert small("mixing.adaptive_radius={}").mixing.adaptive_radius.highest == 1.5
    assert isinstance(built().attack, GradientAttack)


def test_a_schedule_gives_each_stage_its_steps_and_their_size() -> None:
    attack = built(SCHEDULE).attack
    assert isinstance(attack, Stages)
    assert {first: (one.steps, one.ascent.step_size.relative) for first, one in attack.stages.items()} == {
        0: (1, 2.5),
        100: (2, 1.25),
        300: (5, 0.5),
    }
    assert small(SCHEDULE).attack.steps_schedule == {0: 1, 100: 2, 300: 5}
    both = built(SCHEDULE, ADAPTIVE, MINE + "distributional", "objective.weight_perturbation=0.1").attack
    assert isinstance(both, AdaptiveRadius) and isinstance(both.attack, Stages)
    assert [one.steps for one in both.attack.stages.values()] == [1, 2, 5]
    assert all(isinstance(one, PenalisedAscent) for one in both.attack.stages.values())


def test_a_schedule_of_steps_on_chats_elicits_at_every_stage() -> None:
    config = small_chat(SCHEDULE)
    attack = eliciting_attack(config.attack, config.threat.make(), config.seed)
    assert isinstance(attack, Stages) and sorted(attack.stages) == [0, 100, 300]
    assert all(one.goal == Elicit() for one in attack.stages.values())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["attack.steps_schedule={5: 1}"], "attack.steps_schedule must say what holds from step 0, got {5: 1}."),
        (["attack.steps_schedule={0: 0}"], "attack.steps_schedule[0] must be at least 1, got 0."),
        (["attack={name: fgsm, steps_schedule: {0: 1}}"], "attack.steps_schedule does not apply to attack.name: fgsm"),
        (
            ["attack={name: noise, steps_schedule: {0: 1}}"],
            "attack.steps_schedule does not apply to attack.name: noise",
        ),
        (
            ["selection.attack.steps_schedule={0: 1}"],
            "selection.attack.steps_schedule is for the attack of training, and this one measures",
        ),
        (
            ["evaluation.attacks.pgd20.steps_schedule={0: 1}"],
            "evaluation.attacks.pgd20.steps_schedule is for the attack of training, and this one measures",
        ),
        ([MINE + "freelb", SCHEDULE], "attack.steps_schedule does not go with objective.name: freelb."),
        ([MINE + "freelb", ADAPTIVE], "mixing.adaptive_radius does not go with objective.name: freelb."),
        (
            ["mixing.adaptive_radius={lowest: 2}"],
            "mixing.adaptive_radius.lowest must be at most mixing.adaptive_radius.highest (1.5), got 2",
        ),
        (["mixing.adaptive_radius={lowest: 0}"], "mixing.adaptive_radius.lowest must be greater than 0, got 0."),
    ],
)
def test_schedules_and_radii_that_are_refused(overrides: list[str], told: str) -> None:
    require_told(overrides, told)


def test_freelb_is_still_built() -> None:
    assert isinstance(built(MINE + "freelb"), FreeLB)


# ---- what the released code does otherwise


def test_options_reach_the_objects() -> None:
    assert built(MINE + "trades").batch_norm == built(MINE + "mart").batch_norm == "separate"
    assert built("objective={name: trades, batch_norm: joint}").batch_norm == "joint"
    assert built("objective={name: mart, batch_norm: joint}").batch_norm == "joint"
    assert (built(MINE + "trades").clean_passes, built(MINE + "alum").batch_norm) == (2, "joint")
    assert built(MINE + "smart").divergence is detached_symmetric_kl and built(MINE + "smart").proximal is None
    assert built("objective={name: smart, constant_targets: false}").divergence is symmetric_kl
    proximal = built("objective={name: smart, bregman: 2, momentum: 0.9, early_momentum: 0.8}").proximal
    assert (proximal.weight, proximal.momentum, proximal.early) == (2.0, 0.9, 0.8)
    noise = "attack.name=noise"
    assert (
        built(MINE + "r3f", noise).constant_input
        and not built("objective={name: r3f, constant_input: false}", noise).constant_input
    )
    free = built(MINE + "freelb")
    assert (free.hold_dropout, free.special_tokens, free.largest_entry) == (True, False, False)
    wide = "objective={name: freelb, hold_dropout: false, special_tokens: true, linf_step: largest_entry}"
    other = built(wide, "threat.norm=linf")
    assert (other.hold_dropout, other.special_tokens, other.largest_entry) == (False, True, True)


def test_awp_makes_smart_anew_with_one_teacher() -> None:
    perturbed = built("objective={name: smart, bregman: 1, weight_perturbation: 0.01}")
    one, other = (perturbed.make(perturbed.attack).proximal.memory for _ in range(2))
    assert one is other is memory_of(perturbed)
    assert memory_of(built("objective={name: smart, bregman: 1}")) is not one, "another run has another"


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["objective={name: smart, momentum: 0.9}"], "objective.momentum and early_momentum (0.9 and 0.99) are the"),
        (["objective={name: smart, bregman: 1, momentum: 1}"], "objective.momentum must be less than 1, got 1"),
        (["objective={name: smart, bregman: -1}"], "objective.bregman must be at least 0, got -1"),
        (["objective={name: trades, batch_norm: both}"], "objective.batch_norm must be 'separate' or 'joint', got"),
        (["objective={name: freelb, linf_step: largest_entry}"], "objective.linf_step: largest_entry needs threat.nor"),
        (
            ["objective={name: freelb, linf_step: largest_entry}", "threat.norm=linf", "attack.ascent=adam"],
            "objective.linf_step: largest_entry needs threat.norm: linf and attack.ascent: fixed, got linf and adam.",
        ),
    ],
)
def test_options_that_are_refused(overrides: list[str], told: str) -> None:
    require_told(overrides, told)


def test_pixels_have_no_special_tokens() -> None:
    objective = FreelbConfig(special_tokens=True)
    (line,) = freelb_problems(objective, AttackConfig(), "pixels", "linf")
    assert line == "objective.special_tokens: true has no meaning for threat.space: pixels. Remove it."
