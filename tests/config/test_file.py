"""Configuration from a file and overrides: which wins, what an override can reach, what cannot be read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tests.config_sample import SMALL, file_problems, require_told, small, written
from textadv.config.adversary import AttackConfig
from textadv.config.edits_training import TextAttackConfig
from textadv.config.objective import FreelbConfig, TradesConfig
from textadv.config.run import LoraConfig
from textadv.config.types import ConfigError
from textadv.tasks.file import config_difference, dump_config, load_config, written_config
from textadv.tasks.text.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted((ROOT / "recipes" / "configs").glob("*.yaml"))


def test_without_a_file_the_overrides_are_everything() -> None:
    overrides = ["output=x", "model.name=m", "data.name=d", "threat.radius=1", "training.steps=3"]
    assert load_config(None, overrides).training.steps == 3
    with pytest.raises(ConfigError, match="^training needs exactly one of"):
        load_config(None, overrides[:-1])
    with pytest.raises(ConfigError, match=r"^output is missing in the overrides\. \(Folder"):
        load_config(None, overrides[1:])


def test_overrides_win_and_the_last_one_wins(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL + "attack: {steps: 7, restarts: 2}\n")
    attack = load_config(path, ["attack.steps=4", "attack.steps=5"]).attack
    assert (attack.steps, attack.restarts) == (5, 2)
    assert load_config(path, ["attack={steps: 9}"]).attack == TextAttackConfig(steps=9)
    assert load_config(path, ["output=a=b"]).output == "a=b"


def test_overriding_a_name_replaces_the_component(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        SMALL
        + "objective: {name: trades, beta: 3}\n"
        + "attack: {steps: 7, ascent: adam}\n"
        + "mixing: {ratio_schedule: {kind: linear, start: 0, end: 1, steps: 5}}\n"
        + "selection: {rows: 9, attack: {steps: 7}}\n",
    )
    run = load_config(path, ["objective.name=freelb", "objective.start=0.25", "attack.name=pgd"])
    assert run.objective == FreelbConfig(start=0.25)
    assert run.attack == TextAttackConfig()
    assert load_config(path, ["objective.name=trades"]).objective == TradesConfig(beta=6.0)
    assert load_config(path, ["objective.beta=2"]).objective == TradesConfig(beta=2.0)
    run = load_config(path, ["mixing.ratio_schedule.kind=step", "mixing.ratio_schedule.values.0=0.5"])
    assert run.mixing.ratio_schedule is not None and run.mixing.ratio_schedule.model_dump()["values"] == {0: 0.5}
    run = load_config(path, ["selection.attack.name=r_fgsm"])
    assert (run.selection.rows, run.selection.attack.steps) == (9, 1)


def test_an_override_before_the_name_is_kept(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL + "attack: {steps: 7, ascent: adam}\n")
    assert load_config(path, ["attack.steps=5", "attack.name=pgd"]).attack == TextAttackConfig(steps=5)
    (line,) = file_problems(tmp_path, SMALL, "attack.steps=5", "attack.name=fgsm")
    assert line.startswith("attack.steps does not apply to attack.name: fgsm, got 5.")


def test_the_name_of_model_and_data_is_no_component(tmp_path: Path) -> None:
    text = SMALL.replace("some/model", "some/model, lora: null, revision: main")
    run = load_config(written(tmp_path, text), ["model.name=other", "data.name=other"])
    assert (run.model.name, run.model.lora, run.model.revision) == ("other", None, "main")


def test_overrides_of_the_default_panel_keep_the_rest_of_it() -> None:
    panel = small("evaluation.attacks.pgd20.steps=5", "evaluation.attacks.second.name=r_fgsm").evaluation.attacks
    assert panel["pgd20"] == AttackConfig(steps=5, restarts=3, select="most_damaging", early_stop=True, starts="spread")
    assert panel["second"] == AttackConfig(name="r_fgsm")
    assert list(small("evaluation.attacks={a: {}}").evaluation.attacks) == ["a"]


def test_overrides_reach_keys_that_are_numbers(tmp_path: Path) -> None:
    path = written(tmp_path, SMALL + "mixing: {ratio_schedule: {kind: step, values: {0: 0.1, 50: 0.2}}}\n")
    run = load_config(path, ["mixing.ratio_schedule.values.50=0.3", "mixing.ratio_schedule.values.90=1"])
    assert run.mixing.ratio_schedule is not None
    assert run.mixing.ratio_schedule.model_dump()["values"] == {0: 0.1, 50: 0.3, 90: 1.0}


def test_an_override_can_open_a_section_that_the_file_leaves_empty(tmp_path: Path) -> None:
    text = SMALL.replace("some/model", "some/model, lora: null") + "attack:\nmixing:\n  # nothing yet\n"
    assert load_config(written(tmp_path, text)).attack == TextAttackConfig()
    run = load_config(written(tmp_path, text), ["model.lora.r=4", "attack.steps=2"])
    assert run.model.lora == LoraConfig(r=4)
    assert run.attack.steps == 2


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("attack.steps", "override 'attack.steps' must have the form key=value, for example attack.steps=5."),
        ("=5", "override '=5' must have the form key=value, for example attack.steps=5."),
        ("attack..steps=5", "override 'attack..steps=5' must have the form key=value, for example attack.steps=5."),
        ("output.x=5", "output is 'runs/small' and no section, so an override cannot set output.x."),
        ("threat.relative_radius.a.b=5", "threat.relative_radius is 0.05 and no section, so an override cannot set th"),
        ("attack.steps=[1,", "the value of override 'attack.steps=[1,' is not valid YAML at line 1, column 4:"),
        (
            "data.train=caf\udce9",
            r"override data.train=caf\udce9 holds the byte \xe9, which is not UTF-8. Type it in a",
        ),
        ("attack={steps: 1, steps: 2}", "the value of override 'attack={steps: 1, steps: 2}': steps is given twice,"),
    ],
)
def test_an_override_that_cannot_be_read(override: str, line: str) -> None:
    require_told([override], line)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml does not exist \(looked in /"):
        load_config(tmp_path / "none.yaml")
    with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
        load_config(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"output: caf\xe9\n")
    with pytest.raises(ConfigError, match="latin.yaml is not UTF-8 text"):
        load_config(tmp_path / "latin.yaml")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", "configuration file file.yaml is empty. It needs at least output, model.name and data.name."),
        ("# nothing\n", "configuration file file.yaml is empty. It needs at least"),
        ("- a\n- b\n", "configuration file file.yaml must hold `key: value` lines, got ['a', 'b']."),
        ("just text\n", "configuration file file.yaml must hold `key: value` lines, got 'just text'."),
        ("a: [1\nb: 2\n", "file.yaml is not valid YAML at line 2, column 2:"),
        ("a: 1\n\tb: 2\n", "file.yaml is not valid YAML at line 2, column 1:"),
        ("a: 1\n---\nb: 2\n", "file.yaml is not valid YAML at line 2, column 1: but found another document."),
        ("a: \x01\n", "file.yaml is not valid YAML: "),
        ("? [a]\n: 1\n", "file.yaml is not valid YAML at line 1, column 3: found unhashable key."),
        ("a: &x {b: *x}\n", "file.yaml: a.b refers to itself. Remove the alias."),
        ("attack:\n  steps: 3\n  steps: 4\n", "file.yaml: attack.steps is given twice, in lines 2 and 3. Keep one."),
        (
            "data:\n  labels:\n  - {a: 1, a: 2}\n",
            "file.yaml: data.labels[0].a is given twice, in lines 3 and 3. Keep one",
        ),
    ],
)
def test_text_that_is_no_configuration(tmp_path: Path, text: str, line: str) -> None:
    assert file_problems(tmp_path, text)[0].startswith(line)


def test_every_key_given_twice_is_named(tmp_path: Path) -> None:
    text = SMALL + "evaluation:\n  attacks:\n    a: {steps: 1, steps: 2}\n    a: {}\n"
    assert file_problems(tmp_path, text) == [
        "file.yaml: evaluation.attacks.a.steps is given twice, in lines 8 and 8. Keep one.",
        "file.yaml: evaluation.attacks.a is given twice, in lines 8 and 9. Keep one.",
    ]


def test_words_and_numbers_of_yaml_keep_their_meaning(tmp_path: Path) -> None:
    text = (
        "output: off\nmodel: {name: 0x1F}\nthreat: {relative_radius: 5e-2}\n"
        "data: {name: files, train: a.csv, labels: [no, yes, on, 010, 1:30, 2020-01-01]}\n"
        "attack: {random_start: True, step_size: .5}\ntraining: {epochs: 1e0, precision: no, clip_norm: ~}\n"
    )
    run = load_config(written(tmp_path, text))
    assert run.data.labels == ["no", "yes", "on", "010", "1:30", "2020-01-01"]
    assert (run.output, run.model.name, run.threat.relative_radius) == ("off", "0x1F", 0.05)
    assert (run.training.precision, run.training.epochs, run.training.clip_norm) == ("no", 1.0, None)
    assert (run.attack.random_start, run.attack.step_size) == (True, 0.5)


def test_anchors_share_an_attack_and_overrides_do_not(tmp_path: Path) -> None:
    text = SMALL + "attack: &a {steps: 7}\nselection: {attack: {<<: *a, restarts: 2}}\nevaluation: {attacks: {a: *a}}\n"
    run = load_config(written(tmp_path, text), ["attack.steps=1"])
    assert (run.attack.steps, run.selection.attack.steps, run.evaluation.attacks["a"].steps) == (1, 7, 7)


VARIED = [
    [],
    ["model.lora=null", "objective.name=clean", "data.validation_fraction=0.25"],
    ["attack.name=fgsm", "evaluation.attacks={a: {name: fgsm}, b: {name: noise}, c: {name: virtual_adversarial}}"],
    ["attack.name=noise", "objective.name=r3f", "objective.weight=1e-7", "threat.relative_radius=1/3"],
    ["attack.ascent=momentum", "attack.momentum=0.9", "objective.name=freelb", "selection.attack.select=last"],
    ["mixing.ratio_schedule={kind: step, values: {0: 0, 10: 0.5}}", "training.learning_rate=1e20"],
    ["mixing.radius_schedule={kind: linear, start: 0.1, end: 1, steps: 9}", "evaluation.radii=[1/255, 0.1]"],
    ["data={name: files, train: [a.csv], columns: [text, label], labels: ['no', '1e-3', '~', '010', '1:30', '<<']}"],
    ["output=' spaced: \"ünï\"\\n#'", "model.name='null'", "data.text='2020-01-01'", "data.label='0x1F'"],
    ["output='a\n\nb'", "tracking={log_with: [mlflow], project: 'on', progress: false}", "training.precision=no"],
]


@pytest.mark.parametrize("overrides", VARIED)
def test_the_written_configuration_is_read_back_equal(tmp_path: Path, overrides: list[str]) -> None:
    run = small("training.precision=no", *overrides)
    text = dump_config(run)
    assert load_config(written(tmp_path, text)) == run
    assert dump_config(load_config(written(tmp_path, text))) == text
    assert yaml.safe_load(text)["training"]["precision"] == "no"


@pytest.mark.parametrize("path", RECIPES, ids=[path.name for path in RECIPES])
def test_the_configuration_of_a_recipe_is_read_back_equal(tmp_path: Path, path: Path) -> None:
    run = load_config(path)
    assert load_config(written(tmp_path, dump_config(run))) == run


def test_the_written_configuration_names_every_key() -> None:
    data = yaml.safe_load(dump_config(small()))
    assert list(data) == list(RunConfig.model_fields)
    assert data["attack"] == TextAttackConfig().model_dump()


def test_the_difference_of_two_configurations() -> None:
    assert config_difference(small(), small()) == []
    assert config_difference(small(), small("attack.steps=5", "seed=1", "model.lora=null")) == [
        "seed: 0 -> 1",
        "model.lora.r: 8 -> (not set)",
        "model.lora.alpha: 16 -> (not set)",
        "model.lora.dropout: 0.0 -> (not set)",
        "model.lora.targets: 'all-linear' -> (not set)",
        "attack.steps: 3 -> 5",
        "model.lora: (not set) -> null",
    ]
    old, new = (
        small("objective.name=trades"),
        small("objective.name=alum", "mixing.ratio_schedule={kind: step, values: {0: 1}}"),
    )
    assert config_difference(old, new) == [
        "objective.name: 'trades' -> 'alum'",
        "objective.beta: 6.0 -> (not set)",
        "objective.batch_norm: 'separate' -> (not set)",
        "mixing.ratio_schedule: null -> (not set)",
        "objective.weight: (not set) -> 1.0",
        "mixing.ratio_schedule.kind: (not set) -> 'step'",
        "mixing.ratio_schedule.values.0: (not set) -> 1.0",
    ]


def test_the_difference_leaves_out_what_resuming_may_change() -> None:
    free = ["checkpoint.resume=true", "tracking.project=other", "tracking.log_with=[mlflow]", "tracking.progress=false"]
    assert config_difference(small(), small(*free)) == []
    assert config_difference(small(), small("checkpoint.keep_last=3")) == ["checkpoint.keep_last: 2 -> 3"]


def test_a_run_of_before_a_key_existed_has_what_was_done_then(tmp_path: Path) -> None:
    """Its file lacks the key, and today's default would alter a resumed run without a word."""
    today = small("objective.name=trades")
    old = yaml.safe_load(dump_config(today))
    assert old["objective"].pop("batch_norm") == "separate"
    found = written_config(written(tmp_path, yaml.safe_dump(old)))
    assert config_difference(found, today) == ["objective.batch_norm: 'joint' -> 'separate'"]
    assert config_difference(found, small("objective.name=trades", "objective.batch_norm=joint")) == []
    assert written_config(written(tmp_path, dump_config(today))) == today, "a file of today says it itself"
    assert load_config(written(tmp_path, yaml.safe_dump(old))) == today, "a new run has today's default"


FORMER = {
    "objective.name=trades": {"batch_norm": "joint"},
    "objective.name=mart": {"batch_norm": "joint"},
    "objective.name=smart": {"constant_targets": False},
    "objective={name: r3f}": {"constant_input": False},
}


def test_a_fab_of_before_stopped_early(tmp_path: Path) -> None:
    today = small("threat.per=example", "evaluation.attacks={a: {name: fab}}")
    old = yaml.safe_load(dump_config(today))
    assert old["evaluation"]["attacks"]["a"].pop("early_stop") is False
    found = written_config(written(tmp_path, yaml.safe_dump(old)))
    assert config_difference(found, today) == ["evaluation.attacks.a.early_stop: true -> false"]


@pytest.mark.parametrize(("override", "former"), FORMER.items(), ids=FORMER)
def test_every_younger_key_has_its_former_value(override: str, former: dict[str, object], tmp_path: Path) -> None:
    extra = ["attack.name=noise"] if "r3f" in override else []
    old = yaml.safe_load(dump_config(small(override, *extra)))
    for key in former:
        del old["objective"][key]
    found = written_config(written(tmp_path, yaml.safe_dump(old))).objective.model_dump()
    assert {key: found[key] for key in former} == former
