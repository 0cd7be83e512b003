"""The configuration of a chat run: defaults, overrides of its lists of parts, and what is said of mistakes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from tests.config_sample import chat_problems as problems
from tests.config_sample import require_told, sections
from tests.config_sample import small_chat as small
from textadv.attacks.prompts.pool import Drawing
from textadv.config.adversary import AttackConfig
from textadv.config.run import LoraConfig
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.parts import CapoConfig, CatConfig, KlConfig, LatConfig, PartConfig, PrefillRecoveryConfig
from textadv.tasks.chat.seeds import ChatAttackConfig
from textadv.tasks.file import config_difference, dump_config, json_schema, parse_config, written_config
from textadv.tasks.registry import PACKAGES
from textadv.tasks.text.config import RunConfig


def test_the_task_chooses_the_schema() -> None:
    assert isinstance(small(), ChatRunConfig)
    plain = yaml.safe_load("{output: o, model: {name: m}, data: {name: d}, threat: {radius: 1}, training: {epochs: 1}}")
    assert isinstance(parse_config(plain), RunConfig)
    (line,) = problems("task=chats")[:1]
    assert line == f"task must be one of {', '.join(PACKAGES)}, got 'chats'."


def test_defaults_are_those_of_the_papers_and_of_the_issue() -> None:
    run = small()
    assert run.model.lora == LoraConfig(r=16, alpha=32, dropout=0.0, targets="all-linear")
    assert run.objective.parts == [CatConfig(), PrefillRecoveryConfig()]
    cat, recovery = run.objective.parts
    assert isinstance(cat, CatConfig) and isinstance(recovery, PrefillRecoveryConfig)
    assert (cat.away, cat.toward, cat.cutoff, cat.slope) == (0.5, 0.5, 5.0, 1e-3)
    assert (recovery.shortest, recovery.longest, recovery.perturbed) == (1, 40, False)
    assert (run.objective.utility, run.objective.defence_steps) == (1.0, 1)
    assert (run.mixing.ratio, run.mixing.borderline_share, run.mixing.policy) == (0.25, 0.25, "replace")
    wanted = run.evaluation
    assert (wanted.max_new_tokens, wanted.temperature, wanted.samples, wanted.judge) == (512, 0.0, 1, "declines")
    assert (wanted.elicitation.prefill, wanted.elicitation.restarts) == ([5, 10, 20, 40], 3)
    assert wanted.elicitation.attack == AttackConfig(name="pgd", steps=20, select="most_damaging", early_stop=False)
    assert run.selection.attack == AttackConfig(name="pgd", steps=10, select="most_damaging")
    assert run.attack == ChatAttackConfig(steps=10) and run.attack.seeds is None


def test_parts_can_be_replaced_from_the_command_line() -> None:
    assert small("objective.parts=[{name: capo}]").objective.parts == [CapoConfig()]
    two = small("objective.parts=[{name: cat, away: 0.2}, {name: kl}]").objective.parts
    assert two == [CatConfig(away=0.2), KlConfig()]
    assert small("objective.utility=2").objective.parts == small().objective.parts
    lat = small("objective.parts=[{name: lat}]", "threat={space: several, layers: [0], radius: 1}")
    assert lat.objective.parts == [LatConfig()]


def test_the_template_may_have_variables_and_marks() -> None:
    plain = small().model
    assert (plain.template_variables, plain.think) == ({}, None)
    found = small("model.template_variables.enable_thinking=false", "model.think=[<a>, </a>]").model
    assert (found.template_variables, found.think) == ({"enable_thinking": False}, ["<a>", "</a>"])
    values = small("model.template_variables={a: low, b: [1, x], c: null, d: 1.5, e: 26 Jul 2024}").model
    assert values.template_variables == {"a": "low", "b": [1, "x"], "c": None, "d": 1.5, "e": "26 Jul 2024"}
    (_, line) = config_difference(small(), small("model.template_variables={a: 1}"))
    assert line == "model.template_variables.a: (not set) -> 1"


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("model.think=[<a>]", "model.think must be a list of two texts, got ['<a>']"),
        ("model.think=[<a>, '']", "model.think must be a list of two texts, got ['<a>', '']"),
        ("model.think=<a>", "model.think must be a list of two texts, got '<a>'"),
        ("model.think=[<a>, <a>]", "model.think must be a list of two different texts, got"),
        ("model.template_variables={messages: x}", "model.template_variables.messages is not for the template to read"),
        ("model.template_variables={tokenize: true}", "model.template_variables.tokenize is not for the template"),
        (
            "model.template_variables={a: {b: 1}}",
            "model.template_variables.a must be true, false, a number, text, null",
        ),
        ("model.template_variables=[a]", "model.template_variables must be a section of keys"),
    ],
)
def test_variables_and_marks_that_cannot_be_used(override: str, line: str) -> None:
    require_told([override], line, problems)


def test_a_measuring_attack_may_be_named_without_the_keys_it_does_not_have() -> None:
    for name in ("fgsm", "r_fgsm"):
        found = small(f"evaluation.elicitation.attack={{name: {name}}}", f"selection.attack.name={name}")
        assert found.evaluation.elicitation.attack == AttackConfig(name=name)
        assert found.selection.attack == AttackConfig(name=name)
    assert small("evaluation.elicitation.attack={steps: 7}").evaluation.elicitation.attack.steps == 7


def test_unknown_keys_of_a_part_are_named() -> None:
    override = "objective.parts=[{name: kl}, {name: cat, awai: 1}]"
    (line,) = problems(override)
    assert line.startswith(
        f"unknown key objective.parts[1].awai in the override {override}: did you mean objective.parts[1].away?"
    )
    assert line.endswith("Valid keys of objective.parts[1]: name, away, toward, cutoff, floor, slope, away_form, mean.")
    (line,) = problems("objective.parts=[{name: cat, beta: 3}]")
    assert "it belongs to objective.parts[0].name: capo and objective.parts[0].name: trades." in line
    (line,) = problems("objective.parts=[{name: cat, zorblax: 3}]")
    assert "did you mean" not in line and "Valid keys of objective.parts[0]: name, away" in line


def test_a_part_that_is_none_is_told_the_nearest_one_or_all() -> None:
    (line,) = problems("objective.parts=[{name: prefil_recovery}]")
    assert line.startswith("objective.parts[0].name must be one of 'cat', 'capo', ")
    assert line.endswith("got 'prefil_recovery'. Did you mean prefill_recovery?")
    (line,) = problems("objective.parts=[{away: 1}]")
    assert line.startswith("objective.parts[0].name is missing in the override objective.parts=[{away: 1}].")
    assert line.endswith("trades, freelb, supervised.")
    assert problems("objective.parts=[cat]")[0].startswith(
        "objective.parts[0] must be a section of keys, got 'cat'. Write objective.parts[0].name: cat."
    )
    assert problems("objective.parts=cat")[0].startswith("objective.parts must be a list, got 'cat'. (")
    assert problems("objective.parts=[]")[0].startswith("objective.parts must not be empty, got [].")


def test_values_of_a_part_are_checked_and_explained() -> None:
    (line,) = problems("objective.parts=[{name: cat, away: -1}]")
    assert line == (
        "objective.parts[0].away must be at least 0, got -1. (Weight of the loss that drives away from the target; "
        "0: none.)"
    )
    (line,) = problems("objective.parts=[{name: cat}, {name: capo, form: ppo}]")
    assert line.startswith("objective.parts[1].form must be 'ipo' or 'dpo', got 'ppo'. Did you mean ipo?")


RULES = {
    "a part twice": (["objective.parts=[{name: cat}, {name: cat}]"], "objective.parts holds cat 2 times."),
    "two attacks": (
        ["objective.parts=[{name: cat}, {name: trades}]"],
        "objective.parts: trades has an attack of its own and cannot share one with cat.",
    ),
    "nothing adversarial": (["objective.parts=[{name: kl}]"], "objective.parts trains nothing on adversarial rows."),
    "over-refusal alone": (
        ["objective.parts=[{name: kl}, {name: over_refusal}]"],
        "objective.parts trains nothing on adversarial rows.",
    ),
    "over-refusal without borderline rows": (
        ["objective.parts=[{name: cat}, {name: over_refusal}]", "mixing.borderline_share=0"],
        "objective.parts: over_refusal trains on borderline rows.",
    ),
    "over-refusal held": (
        ["objective={parts: [{name: cat}, {name: over_refusal}], defence_steps: 2}"],
        "objective.defence_steps: 2 holds the attack on adversarial rows, and over_refusal attacks borderline rows.",
    ),
    "nothing to hold": (
        ["objective={parts: [{name: trades}], defence_steps: 2}"],
        "objective.defence_steps: 2 holds the attack of cat, capo or lat",
    ),
    "kl without adapter": (
        ["objective.parts=[{name: cat}, {name: kl}]", "model.lora=null"],
        "objective.parts compares with the model without its adapter (kl, capo and rerouting do), and model.lora is ",
    ),
    "rerouting without adapter": (
        ["objective.parts=[{name: rerouting}]", "model.lora=null"],
        "objective.parts compares",
    ),
    "capo without adapter": (["objective.parts=[{name: capo}]", "model.lora=null"], "objective.parts compares"),
    "a spectrum of frozen embeddings": (
        ["objective.parts=[{name: cat}, {name: spectrum}]"],
        "objective.parts: spectrum flattens the word embedding, and none of its weights is trained. Add embed_tokens "
        "to model.lora.targets",
    ),
    "a spectrum alone": (["objective.parts=[{name: spectrum}]", "model.lora=null"], "objective.parts trains nothing"),
    "a share of no seeds": (
        ["mixing.discrete=0.5"],
        "mixing.discrete: 0.5 is the share of rows that ask with a prompt of attack.seeds, which is null. Remove it",
    ),
    "seeds that are none": (
        ["attack.seeds={name: gcd}"],
        "attack.seeds.name must be one of 'file', 'gcg', got 'gcd'. Did you mean gcg?",
    ),
    "seeds without a file": (["attack.seeds={name: file}"], "attack.seeds.file is missing"),
    "triplet without adapter": (
        ["objective.parts=[{name: triplet}]", "model.lora=null"],
        "objective.parts compares with the model without its adapter (triplet does), and model.lora is null.",
    ),
    "lat in embeddings": (
        ["objective.parts=[{name: lat}]"],
        "objective.parts: lat perturbs hidden states. Set threat.space: several and threat.layers.",
    ),
    "no borderline": (["data.borderline=null"], "mixing.borderline_share needs data.borderline, which is missing."),
    "a direction with a radius": (
        ["objective.parts=[{name: refusal_direction}]", "mixing.radius_schedule={kind: step, values: {0: 0.5}}"],
        "objective.parts: refusal_direction has no radius.",
    ),
    "checkpoints in between": (
        ["objective.defence_steps=3", "checkpoint.every=4"],
        "checkpoint.every must be a multiple of 3, the optimizer steps",
    ),
    "freelb with restarts": (
        ["objective.parts=[{name: freelb}]", "attack={restarts: 2, select: most_damaging}"],
        "objective.parts: freelb climbs by itself.",
    ),
    "both radii": (["threat.radius=1"], "threat needs exactly one of threat.radius and threat.relative_radius"),
    "no layer": (["threat.space=hidden"], "threat.layer goes with threat.space: hidden"),
    "no layers": (["threat.space=several"], "threat.layers goes with threat.space: several"),
    "layers of another space": (["threat.layers=[1]"], "threat.layers goes with threat.space: several"),
    "checkpointing of hidden states": (
        ["model.gradient_checkpointing=true", "threat={space: hidden, layer: 0, radius: 1}"],
        "model.gradient_checkpointing: true recomputes hidden states without their perturbation",
    ),
    "two judges in one": (
        ["evaluation.llm_judge={model: a, endpoint: 'http://b', endpoint_model: c}"],
        "evaluation.llm_judge needs exactly one of model and endpoint.",
    ),
    "an endpoint without its model": (
        ["evaluation.llm_judge={endpoint: 'http://b'}"],
        "evaluation.llm_judge.endpoint and endpoint_model go together.",
    ),
    "samples of one answer": (
        ["evaluation.samples=3"],
        "evaluation.samples: 3 at evaluation.temperature: 0 gives one answer 3 times.",
    ),
    "a file called like a stream": (
        ["evaluation.over_refusal={borderline: x.csv}"],
        "evaluation.over_refusal.borderline is what the rows of data.borderline are called.",
    ),
    "a ratio above 1": (["mixing.ratio=1.5"], "mixing.ratio must be at most 1, got 1.5."),
    "a ratio below 0": (["mixing.ratio=-0.1"], "mixing.ratio must be at least 0, got -0.1."),
    "a ramp above 1": (
        ["mixing.ratio_schedule={kind: linear, start: 0, end: 2, steps: 3}"],
        "mixing.ratio_schedule.end must be at most 1, got 2.",
    ),
    "a share above 1": (["mixing.borderline_share=1.2"], "mixing.borderline_share must be at most 1, got 1.2."),
    "a stream without a name": (["data.utility=null"], "data.utility"),
    "a column of nothing": (["data.adversarial.columns={promt: x}"], "data.adversarial.columns"),
    "a classifier's key": (["evaluation.calibrate=false"], "unknown key evaluation.calibrate"),
    "a baseline of another kind": (["baselines=[same_rows]"], "baselines[0] must be 'same_steps' or 'equal_cost'"),
    "a baseline twice": (["baselines=[same_steps, same_steps]"], "baselines"),
    "starts that selection would not take": (
        ["selection.attack.starts=spread"],
        "selection.attack.starts must be ball, got spread",
    ),
    "starts that freelb would not take": (
        ["attack.starts=spread", "objective.parts=[{name: freelb}]"],
        "attack.starts must be ball with objective.parts: freelb",
    ),
    "starts that an away term would not take": (
        ["attack.starts=spread", "objective.parts=[{name: lat, adversary_away: 0.5}]"],
        "attack.starts must be ball with objective.parts: lat.adversary_away: 0.5",
    ),
    "a classifier's attacks": (
        ["evaluation.attacks={a: {name: transfer, model: x, attack: {}}}"],
        "unknown key evaluation.attacks",
    ),
}


@pytest.mark.parametrize(("overrides", "told"), RULES.values(), ids=RULES)
def test_what_cannot_go_together(overrides: list[str], told: str) -> None:
    assert any(line.startswith(told) for line in problems(*overrides)), problems(*overrides)


def test_what_may_go_together() -> None:
    assert small("evaluation.samples=3", "evaluation.temperature=0.7").evaluation.samples == 3
    assert small("objective.defence_steps=3", "checkpoint.every=6").objective.defence_steps == 3
    assert small("data.borderline=null", "mixing.borderline_share=0").data.borderline is None
    assert small("model.lora=null", "objective.parts=[{name: cat}]").model.lora is None
    flat = "objective.parts=[{name: cat}, {name: spectrum}]"
    assert small("model.lora={targets: [wte]}", flat).model.lora == LoraConfig(targets=["wte"])
    assert small("model.lora=null", flat).objective.parts[1].name == "spectrum"
    one = small("data.adversarial.paraphrases=x.csv").data.adversarial.paraphrases
    seeds = small("attack.seeds={name: gcg, every: 7}", "mixing.discrete=0.5").attack.seeds
    assert seeds is not None and seeds.drawing(3) == Drawing(1.0, 7, 3)
    assert one is not None and (one.file, one.per_behaviour, one.keep) == ("x.csv", 16, "likely")
    server = "{endpoint: 'http://b/v1', endpoint_model: c, key_variable: null}"
    judge = small(f"evaluation.llm_judge={server}").evaluation.llm_judge
    assert judge is not None and judge.key_variable is None


def test_it_is_written_and_read_back_equal() -> None:
    run = small("objective.parts=[{name: cat, away: 0.2}, {name: kl}]", "evaluation.questions={arc_mine: x.jsonl}")
    again = parse_config(yaml.safe_load(dump_config(run)))
    assert again == run and config_difference(run, again) == []
    other = small("objective.parts=[{name: capo}]", "evaluation.questions={arc_mine: x.jsonl}")
    assert [line.split(":")[0] for line in config_difference(run, other)] == ["objective.parts"]
    closer = small("objective.parts=[{name: cat, away: 0.3}, {name: kl}]", "evaluation.questions={arc_mine: x.jsonl}")
    assert config_difference(run, closer) == ["objective.parts[0].away: 0.2 -> 0.3"]


def test_a_chat_run_of_before_a_key_existed_has_what_was_done_then(tmp_path: Path) -> None:
    several = "threat={space: several, layers: [0], radius: 1}"
    today = small("objective.parts=[{name: lat}, {name: rerouting}, {name: kl}]", several)
    old = yaml.safe_load(dump_config(today))
    lat, rerouting, kl = old["objective"]["parts"]
    assert (lat.pop("away_form"), rerouting.pop("retain")) == ("log_1_minus_p", "all_states")
    del lat["adversary_away"], lat["mean"], rerouting["mean"], kl["direction"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    assert config_difference(written_config(tmp_path / "config.yaml"), today) == [
        "objective.parts[0].away_form: 'cross_entropy' -> 'log_1_minus_p'",
        "objective.parts[1].retain: 'blocks' -> 'all_states'",
    ]


SEVERAL = "threat={space: several, layers: [0], radius: 1}"


@pytest.mark.parametrize(
    ("overrides", "line"),
    [
        (
            ["objective.parts=[{name: lat, adversary_away: 0.5}]", SEVERAL, "attack.early_stop=true"],
            "objective.parts: lat.adversary_away needs a gradient attack that runs once to its last point.",
        ),
        (
            ["objective.parts=[{name: lat, adversary_away: 0.5}]", SEVERAL, "attack.name=noise"],
            "objective.parts: lat.adversary_away needs a gradient attack that runs once to its last point.",
        ),
        (
            ["objective.parts=[{name: freelb, linf_step: largest_entry}]"],
            "objective.linf_step: largest_entry needs threat.norm: linf and attack.ascent: fixed, got l2 and fixed",
        ),
        (["objective.parts=[{name: lat, away_form: both}]", SEVERAL], "objective.parts[0].away_form must be 'cross"),
        (["objective.parts=[{name: cat, mean: batch}]"], "objective.parts[0].mean must be 'row' or 'token'"),
        (["objective.parts=[{name: lat, slope: 0.5}]", SEVERAL], "objective.parts: lat.slope: 0.5 is the gradient"),
        (["objective.parts=[{name: capo, cutoff: 0}]"], "objective.parts[0].cutoff must be greater than 0, got 0"),
    ],
)
def test_options_of_parts_that_are_refused(overrides: list[str], line: str) -> None:
    require_told(overrides, line, problems)


def test_the_schema_tells_editors_the_parts_by_name() -> None:
    schema = json.loads(json.dumps(json_schema()))
    parts = schema["$defs"]["ChatObjectiveConfig"]["properties"]["parts"]
    names = {section.model_fields["name"].default for section in sections(PartConfig)}
    assert len(sections(PartConfig)) == 14
    assert set(parts["items"]["discriminator"]["mapping"]) == names and parts["minItems"] == 1
    assert schema["$defs"]["ChatRunConfig"]["properties"]["task"]["const"] == "chat"


def test_columns_of_each_part_of_a_stream() -> None:
    found = small(
        "data.utility.columns={prompt: q, input: i}", "data.utility.test_columns={messages: chats}"
    ).data.utility
    assert (found.columns, found.test_columns) == ({"prompt": "q", "input": "i"}, {"messages": "chats"})
    assert found.validation_columns is None
    (line,) = problems("data.borderline.validation_columns={answer: a}")
    assert line.startswith(
        "data.borderline.validation_columns: the key 'answer' must be 'prompt', 'target', 'safe', 'input'"
    )


def test_a_run_of_before_aimed_every_search_at_the_whole_target(tmp_path: Path) -> None:
    """Its file lacks the key, and today's panel would measure a resumed run by another search."""
    today = small()
    old = yaml.safe_load(dump_config(today))
    assert old["evaluation"]["elicitation"].pop("search") is None
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(old), encoding="utf-8")
    found = written_config(path)
    assert isinstance(found, ChatRunConfig)
    told = config_difference(found, today)
    assert len(told) == 1 and told[0].startswith("evaluation.elicitation.search: ") and "elicit" in told[0]
    assert config_difference(found, small("evaluation.elicitation.search=[elicit]")) == []


def test_averaging_nothing_is_refused_before_a_model_is_loaded() -> None:
    told = "training.averaging.start must be at most training.steps (10), got 11: nothing would be averaged."
    assert problems("training={epochs: null, steps: 10, averaging: {start: 11}}") == [told]
    kept = small("training={epochs: null, steps: 10, averaging: {start: 10}}").training.averaging
    assert kept is not None and kept.make(10).start == 10
