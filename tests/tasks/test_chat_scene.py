"""From a chat configuration to objects: what each part of an objective becomes, and which attacks measure."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests import chat_run, folders
from tests.config_sample import small_chat as small
from textadv.attacks import (
    L2,
    Elicit,
    GradientAttack,
    Held,
    Noise,
    RefusalDirection,
    ThreatModel,
    Untargeted,
)
from textadv.config.types import ConfigError
from textadv.data import Chat, ChatRows, DataError, encode_chats
from textadv.measuring.judges.llm_judge import LlmJudge
from textadv.measuring.judges.target_judge import TargetJudge
from textadv.measuring.judges.verdicts import REFUSAL_LISTS, ClassifierJudge
from textadv.objectives import Adversarial, Consistency, FreeLB
from textadv.objectives.alignment import (
    Away,
    KlToBase,
    Part,
    Preference,
    PrefillRecovery,
    Supervised,
    Tempted,
    Together,
    Toward,
)
from textadv.objectives.rerouting import Reroute, Retain
from textadv.objectives.token_means import OverTokens
from textadv.tasks.chat.asked import benign_prompts
from textadv.tasks.chat.config import ChatRunConfig, StreamConfig
from textadv.tasks.chat.elicitation import measuring_attack
from textadv.tasks.chat.scene import eliciting_attack
from textadv.values.batch import Role
from textadv.values.spaces import Embeddings, Hidden, Several

THREAT = ThreatModel(Embeddings(), L2(0.5))
LAYERS = 6


@pytest.fixture(scope="module")
def rows() -> tuple[ChatRows, ChatRows]:
    """Three rows of the adversarial and of the utility stream."""
    data, tokenizer = chat_run.data(), chat_run.tokenizer()

    def encoded(role: Role, name: str, answers: dict[str, str]) -> ChatRows:
        chats = [
            Chat(
                ({"role": "user", "content": str(row["prompt"])},),
                {key: str(row[column]) for key, column in answers.items()},
                role,
                number,
                f"{name} {number}",
            )
            for number, row in enumerate(data[name][:3])
        ]
        return encode_chats(chats, tokenizer, 96)

    return (
        encoded(Role.ADVERSARIAL, "adversarial_train", {"harmful": "target", "safe": "target"}),
        encoded(Role.UTILITY, "utility_train", {"response": "response"}),
    )


def built(rows: tuple[ChatRows, ChatRows], *overrides: str) -> dict[Role, Together]:
    config = small(*overrides)
    found = config.objective.make(config.attack, THREAT, config.seed, LAYERS, *rows)
    assert all(isinstance(goal, Together | Supervised) for goal in found.values())
    return dict(found)  # type: ignore[arg-type]


def hardening(rows: tuple[ChatRows, ChatRows], *overrides: str) -> Together:
    return built(rows, *overrides)[Role.ADVERSARIAL]


def test_cat_and_recovery_share_one_attack_on_the_target(rows: tuple[ChatRows, ChatRows]) -> None:
    goal = hardening(rows)
    assert goal.parts == (
        Part(Away(0.5, 5.0, 1e-3), True),
        Part(Toward(0.5, 0.5, 1e-3), True),
        Part(PrefillRecovery(0.5, 1, 40, seed=0)),
    )
    attack = goal.attack
    assert isinstance(attack, GradientAttack) and (attack.goal, attack.steps, attack.threat) == (Elicit(), 10, THREAT)
    assert goal.answer == "harmful"


PARTS = {
    "{name: cat, away: 0}": [Part(Toward(0.5, 0.5, 1e-3), True)],
    "{name: cat, toward: 0, cutoff: 3}": [Part(Away(0.5, 3.0, 1e-3), True)],
    "{name: capo}": [Part(Preference("ipo", 0.25, 1.0), True)],
    "{name: cat, toward: 0, away_form: log_1_minus_p}": [Part(Away(0.5, 5.0, 1e-3, form="log_1_minus_p"), True)],
    "{name: cat, toward: 0, mean: token}": [Part(OverTokens(Away(0.5, 5.0, 1e-3), "harmful"), True)],
    "{name: cat, away: 0, mean: token}": [Part(OverTokens(Toward(0.5, 0.5, 1e-3), "safe"), True)],
    "{name: capo, form: dpo, beta: 0.1, weight: 2}": [Part(Preference("dpo", 0.1, 2.0), True)],
    "{name: capo, cutoff: 5, floor: 0.5}": [Part(Preference("ipo", 0.25, 1.0, 5.0, 0.5), True)],
    "{name: rerouting, mean: token}": [Part(OverTokens(Reroute((2, 4), 5.0), "harmful", whole=True))],
    "{name: supervised, weight: 3}": [Part(Supervised(3.0, "refusal"))],
    "{name: rerouting}": [Part(Reroute((2, 4), 5.0))],
    "{name: rerouting, layers: [0, 5], alpha: 2}": [Part(Reroute((0, 5), 2.0))],
    "{name: refusal_direction, weight: 2}": [Part(Toward(2.0, floor=0.0), True)],
    "{name: prefill_recovery, shortest: 2, longest: 3}": [Part(PrefillRecovery(0.5, 2, 3, seed=0))],
}


@pytest.mark.parametrize(("part", "expected"), PARTS.items(), ids=PARTS)
def test_a_part_becomes_these_objectives(part: str, expected: list[Part], rows: tuple[ChatRows, ChatRows]) -> None:
    assert list(hardening(rows, f"objective.parts=[{part}]").parts) == expected


def test_lat_perturbs_several_places_and_holds_what_it_found(rows: tuple[ChatRows, ChatRows]) -> None:
    several = ("threat={space: several, layers: [1, 3], relative_radius: 0.1}",)
    goal = hardening(rows, "objective={parts: [{name: lat}], defence_steps: 4}", *several)
    away = Away(0.5, 5.0, 1e-3, form="log_1_minus_p")
    assert goal.parts == (Part(away, True), Part(Toward(0.5, 0.0, 1e-3), True))
    assert isinstance(goal.attack, Held) and goal.attack.steps == 4
    inner = goal.attack.attack
    assert isinstance(inner, GradientAttack) and inner.goal == Elicit()
    threat = small(*several).threat.make()
    assert threat.space == Several((Embeddings(), Hidden(1), Hidden(3))) and threat.ball.relative_radius == 0.1


def test_over_refusal_attacks_borderline_rows_toward_the_safe_answers_of_the_adversarial_stream(rows: Any) -> None:
    config = small("objective.parts=[{name: cat}, {name: over_refusal, toward: 2, cutoff: 3}]")
    found = config.objective.make(config.attack, THREAT, config.seed, LAYERS, *rows)
    goal = found[Role.BORDERLINE]
    assert isinstance(goal, Tempted) and isinstance(goal.objective, Together)
    assert set(goal.refusals) == set(rows[0].answers["safe"]) and set(goal.openings) == {()}
    assert goal.objective.parts == (
        Part(Supervised(1.0)),
        Part(Away(0.5, 3.0, 1e-3, "refusal"), True),
        Part(Toward(2.0, 0.0, answer="response"), True),
    )
    attack = goal.objective.attack
    assert isinstance(attack, GradientAttack) and (attack.goal, attack.threat) == (Elicit(), THREAT)
    assert goal.objective.answer == "refusal"
    useful, hard = found[Role.UTILITY], found[Role.ADVERSARIAL]
    assert isinstance(useful, Together) and useful.parts == (Part(Supervised(1.0)),)
    assert isinstance(hard, Together) and len(hard.parts) == 2


def test_a_refusal_is_offered_after_its_own_opening(rows: tuple[ChatRows, ChatRows]) -> None:
    safe = rows[0].answers["safe"]
    opened = replace(rows[0], openings={"safe": ((7,), *[(8,)] * (len(safe) - 1))})
    config = small("objective.parts=[{name: cat}, {name: over_refusal}]")
    goal = config.objective.make(config.attack, THREAT, config.seed, LAYERS, opened, rows[1])[Role.BORDERLINE]
    assert isinstance(goal, Tempted)
    assert set(zip(goal.openings, goal.refusals, strict=True)) == {((7,), safe[0]), *(((8,), one) for one in safe[1:])}


def test_a_recovery_may_see_the_delta(rows: tuple[ChatRows, ChatRows]) -> None:
    goal = hardening(rows, "objective.parts=[{name: prefill_recovery, perturbed: true}, {name: cat}]")
    assert [part.perturbed for part in goal.parts] == [True, True, True] and goal.attack is not None
    plain = hardening(rows, "objective.parts=[{name: prefill_recovery}]")
    assert plain.attack is None


def test_the_refusal_direction_is_taken_from_prompts_of_both_streams(rows: tuple[ChatRows, ChatRows]) -> None:
    attack = hardening(rows, "objective.parts=[{name: refusal_direction, prompts: 2, every: 8}]").attack
    assert isinstance(attack, RefusalDirection)
    assert (attack.layers, attack.every) == ((1, 2, 3, 4, 5), 8)
    assert (len(attack.harmful), len(attack.harmless)) == (2, 2)
    late = hardening(rows, "objective.parts=[{name: refusal_direction, first_layer: 0.7}]").attack
    assert isinstance(late, RefusalDirection) and late.layers == (4, 5) and len(late.harmful) == 3


@pytest.mark.parametrize(("name", "kind"), [("adversarial", Adversarial), ("trades", Consistency), ("freelb", FreeLB)])
def test_objectives_with_an_attack_of_their_own(name: str, kind: type, rows: tuple[ChatRows, ChatRows]) -> None:
    goal = hardening(rows, f"objective.parts=[{{name: {name}}}, {{name: prefill_recovery}}]")
    assert isinstance(goal.parts[0].objective, kind) and not goal.parts[0].perturbed and goal.attack is None
    own = goal.parts[0].objective.attack  # type: ignore[attr-defined]
    assert isinstance(own, GradientAttack) and own.threat == THREAT and own.goal != Elicit()
    if name == "adversarial":
        assert isinstance(own.goal, Untargeted)


ATTACKS = {"pgd": GradientAttack, "fgsm": GradientAttack, "r_fgsm": GradientAttack, "noise": Noise}


@pytest.mark.parametrize("name", ATTACKS)
def test_every_attack_elicits_the_target(name: str) -> None:
    attack = eliciting_attack(small(f"attack={{name: {name}}}").attack, THREAT, 0)
    assert isinstance(attack, ATTACKS[name]) and attack.goal == Elicit()  # type: ignore[attr-defined]


def test_an_attack_on_the_target_has_no_goal_of_its_own() -> None:
    with pytest.raises(ConfigError, match="attack.name: virtual_adversarial raises a divergence"):
        eliciting_attack(small("attack={name: virtual_adversarial}").attack, THREAT, 0)
    with pytest.raises(ConfigError, match="attack.goal: margin is not for cat, capo and lat"):
        eliciting_attack(small("attack.goal=margin").attack, THREAT, 0)


def test_utility_and_borderline_rows_are_trained_alike(rows: tuple[ChatRows, ChatRows]) -> None:
    extra = "objective={utility: 2, parts: [{name: cat}, {name: kl, weight: 3, scale_free: true}, {name: rerouting}]}"
    found = built(rows, extra)
    useful = (
        Part(Supervised(2.0)),
        Part(KlToBase(3.0, True)),
        Part(Retain(None, 5.0)),
    )
    assert found[Role.UTILITY].parts == found[Role.BORDERLINE].parts == useful
    assert found[Role.CLEAN] == Supervised(1.0, "refusal")
    names = [type(part.objective) for part in found[Role.ADVERSARIAL].parts]
    assert names == [Away, Toward, Reroute]
    alone = built(rows, "objective={utility: 0, parts: [{name: cat}, {name: kl}]}")
    assert alone[Role.UTILITY].parts == (Part(KlToBase(0.1, False)),)


@pytest.mark.parametrize(
    ("part", "told"),
    [
        ("{name: rerouting, layers: [6]}", "rerouting.layers must name blocks 0 to 5, got (6,)"),
        ("{name: refusal_direction, first_layer: 1}", "first_layer 1.0 leaves none of 6 blocks"),
        ("{name: prefill_recovery, perturbed: true}", "needs a part that attacks, such as cat"),
    ],
)
def test_parts_that_do_not_fit(part: str, told: str, rows: tuple[ChatRows, ChatRows]) -> None:
    with pytest.raises(ConfigError) as caught:
        hardening(rows, f"objective.parts=[{part}]")
    assert told in str(caught.value)


def test_freelb_needs_an_attack_that_climbs(rows: tuple[ChatRows, ChatRows]) -> None:
    run = small("objective.parts=[{name: adversarial}]", "attack={name: noise}")
    changed = run.model_copy(update={"objective": small("objective.parts=[{name: freelb}]").objective})
    with pytest.raises(ConfigError, match="freelb climbs by itself"):
        changed.objective.make(changed.attack, THREAT, changed.seed, LAYERS, *rows)


# ---- what measures


def measuring(config: ChatRunConfig, threat: ThreatModel, radius: float | None = None) -> GradientAttack:
    return measuring_attack(config.evaluation.elicitation.attack, "here", threat, 0, radius)


def test_a_measuring_attack_keeps_the_worst_point_and_takes_other_radii_in_the_unit_of_the_threat() -> None:
    own = measuring(small(), THREAT)
    assert (own.goal, own.steps, own.select, own.early_stop) == (Elicit(), 20, "most_damaging", False)
    assert own.threat == THREAT and measuring(small(), THREAT, 0.125).threat.ball.radius == 0.125
    relative = ThreatModel(Embeddings(), L2(6.0, relative_radius=0.2))
    found = measuring(small(), relative, 0.1).threat.ball
    assert (found.radius, found.relative_radius) == (pytest.approx(3.0), 0.1)


def test_a_measuring_attack_is_a_search_for_the_target() -> None:
    noise = small("evaluation.elicitation={attack: {name: noise}}")
    with pytest.raises(ConfigError, match=r"here\.name must be pgd, fgsm or r_fgsm, got noise"):
        measuring(noise, THREAT)
    for extra in ("{restarts: 2}", "{goal: margin}"):
        with pytest.raises(ConfigError, match="here: leave restarts and goal out"):
            measuring(small(f"evaluation.elicitation.attack={extra}"), THREAT)


def test_the_suffix_attack_is_unconstrained() -> None:
    attack = small("evaluation.elicitation.suffix_steps=7").evaluation.elicitation.suffix_attack(unit=2.0, seed=0)
    assert (attack.steps, attack.goal, attack.random_start, attack.early_stop) == (7, Elicit(), False, True)
    assert attack.threat.ball.radius == 200 and attack.ascent.step_size.absolute == 0.1
    # No sequence of steps comes near the ball's surface.
    assert attack.ascent.step_size.absolute * 100 < attack.threat.ball.radius


def test_second_judges_are_those_that_are_named(tmp_path: Path) -> None:
    assert small().evaluation.second_judges({}) == []
    (strict,) = small("evaluation.target_words=4").evaluation.second_judges({"ask": "Sure, here is it"})
    assert strict == TargetJudge({"ask": "Sure, here is it"}, REFUSAL_LISTS["declines"], 4)
    classifier = folders.bert_classifier(tmp_path / "judge", ("fine", "bad"))
    server = "{endpoint: 'http://b/v1', endpoint_model: c, key_variable: null, rubric: strongreject}"
    extra = [f"evaluation.classifier_judge={{model: {classifier}, harmful: '1', threshold: 0.3}}"]
    extra.append(f"evaluation.llm_judge={server}")
    one, two = small(*extra).evaluation.second_judges({})
    assert isinstance(one, ClassifierJudge) and (one.harmful, one.threshold) == (1, 0.3)
    assert isinstance(two, LlmJudge) and two.name == "llm:strongreject"
    model = chat_run.save_untaught(tmp_path / "llm", "llama")
    (local,) = small(f"evaluation.llm_judge={{model: {model}}}").evaluation.second_judges({})
    assert local.name == "llm:harmbench" and local.version != two.version


@pytest.mark.parametrize(
    ("extra", "told"),
    [
        ("classifier_judge={model: runs/no/judge, harmful: bad}", "evaluation.classifier_judge: "),
        ("llm_judge={model: runs/no/judge}", "evaluation.llm_judge: "),
        (
            "llm_judge={endpoint: 'ftp://b', endpoint_model: c, key_variable: null}",
            "evaluation.llm_judge: The ",
        ),
        (
            "llm_judge={endpoint: 'http://b', endpoint_model: c, key_variable: NO_KEY}",
            "NO_KEY (key_variable)",
        ),
    ],
)
def test_judges_that_cannot_be_asked(extra: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        small(f"evaluation.{extra}").evaluation.second_judges({})
    assert told in str(caught.value)


def test_benign_prompts_of_every_kind_of_file(tmp_path: Path) -> None:
    xstest = tmp_path / "xstest.csv"
    xstest.write_text("id,type,prompt\n1,homonyms,How do I kill a process?\n2,contrast_homonyms,How do I brew zorb?\n")
    assert benign_prompts("mine", str(xstest)) == ("How do I kill a process?",)
    bench = tmp_path / "bench.csv"
    bench.write_text("prompt,category\nWhat is zorb?,zorb\n")
    assert benign_prompts("mine", str(bench)) == ("What is zorb?",)
    rows = chat_run.write_rows(tmp_path / "rows.jsonl", [{"prompt": "One?"}, {"prompt": "Two?"}])
    assert benign_prompts("mine", str(rows)) == ("One?", "Two?")


def test_benign_prompts_may_be_messages_or_parts(tmp_path: Path) -> None:
    part = {"type": "text", "text": "One?"}
    for prompt in ([{"role": "user", "content": "One?"}], [{"from": "human", "value": "One?"}], [part]):
        rows = chat_run.write_rows(tmp_path / "rows.jsonl", [{"prompt": prompt}] * 2)
        assert benign_prompts("mine", str(rows)) == ("One?", "One?")
    labelled = chat_run.write_rows(tmp_path / "rows.jsonl", [{"prompt": [part], "type": "a", "label": "safe"}])
    assert benign_prompts("mine", str(labelled)) == ("One?",)


def test_streams_have_columns_of_their_own_for_each_part(tmp_path: Path) -> None:
    train = chat_run.write_rows(tmp_path / "a.jsonl", [{"prompt": f"p{n}", "response": "r"} for n in range(20)])
    test = chat_run.write_rows(tmp_path / "b.jsonl", [{"question": "q", "context": "c", "answer": "a"}])
    columns = {"prompt": "question", "input": "context", "response": "answer"}
    config = StreamConfig(train=str(train), test=str(test), test_columns=columns)
    found = config.make(Role.UTILITY, 0)
    assert [len(found.train), len(found.validation)] == [18, 2]
    assert (found.test[0].prompt, found.test[0].answers) == ("q\n\nc", {"response": "a"})


@pytest.mark.parametrize(
    ("row", "told"),
    [
        (
            {"prompt": [{"role": "user", "content": "a"}] * 2},
            "has the turns user, user; what is asked here is one turn",
        ),
        ({"prompt": None}, "has no prompt. Correct or remove it."),
        ({"prompt": " "}, "evaluation.over_refusal.mine: row 1 (counted from 0)"),
        ({"prompt": "One?", "type": "odd", "label": "neither"}, "has label 'neither', not safe/unsafe"),
    ],
)
def test_benign_prompts_that_cannot_be_used(row: dict[str, str], told: str, tmp_path: Path) -> None:
    first = {"prompt": "What?", "type": "odd", "label": "safe"}
    rows = [{key: first[key] for key in row}, row]
    with pytest.raises(DataError) as caught:
        benign_prompts("mine", str(chat_run.write_rows(tmp_path / "rows.jsonl", rows)))
    assert told in str(caught.value) and "rows.jsonl" in str(caught.value)
    with pytest.raises(DataError, match=r"mine: no column 'prompt' in .* Rename the column of the prompts to prompt\."):
        benign_prompts("mine", str(chat_run.write_rows(tmp_path / "none.jsonl", [{"text": "x"}])))
