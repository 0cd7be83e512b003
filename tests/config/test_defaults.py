"""The sections of a configuration: defaults, values that cannot be changed, options that fit each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import get_args

import pytest
from accelerate.utils import LoggerType

from tests.config_sample import SMALL, problems, sections, small, written
from textadv.config.adversary import AttackConfig
from textadv.config.attacks import ApgdCeConfig
from textadv.config.edits_training import TextAttackConfig
from textadv.config.run import LoraConfig, Tracker
from textadv.tasks.file import json_schema, load_config, schema_text
from textadv.tasks.registry import PACKAGES, schema

ROOT = Path(__file__).resolve().parents[2]


def test_defaults_are_those_of_the_documentation(tmp_path: Path) -> None:
    run = load_config(written(tmp_path, SMALL))
    assert (run.seed, run.output, run.baselines) == (0, "runs/small", ["same_steps"])
    assert run.model.lora == LoraConfig(r=8, alpha=16, dropout=0.0, targets="all-linear")
    assert (run.threat.space, run.threat.norm, run.threat.per, run.threat.radius) == ("embeddings", "l2", "token", None)
    assert run.attack == TextAttackConfig(
        name="pgd",
        steps=3,
        ascent="fixed",
        momentum=1.0,
        random_start=True,
        restarts=1,
        early_stop=False,
        select="last",
    )
    assert run.objective.name == "adversarial"
    assert (run.mixing.ratio, run.mixing.policy, run.mixing.warmup_steps) == (0.25, "replace", 0)
    assert (run.training.batch_size, run.training.learning_rate, run.training.clip_norm) == (32, 1e-3, 1.0)
    assert run.selection.attack == AttackConfig(name="pgd", steps=10, select="most_damaging", early_stop=True)
    assert run.evaluation.attacks == {
        "pgd20": AttackConfig(
            name="pgd", steps=20, restarts=3, select="most_damaging", early_stop=True, starts="spread"
        ),
        "apgd": ApgdCeConfig(steps=50),
    }
    assert (run.checkpoint.keep_last, run.checkpoint.resume, run.tracking.log_with) == (2, False, [])


def test_a_configuration_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        small().attack.steps = 7  # type: ignore[misc]


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("fgsm", "steps", "5"),
        ("fgsm", "step_size", "0.1"),
        ("fgsm", "relative_step_size", "1"),
        ("fgsm", "ascent", "adam"),
        ("fgsm", "random_start", "true"),
        ("fgsm", "restarts", "3"),
        ("fgsm", "select", "most_damaging"),
        ("fgsm", "early_stop", "true"),
        ("r_fgsm", "steps", "2"),
        ("r_fgsm", "step_size", "0.1"),
        ("r_fgsm", "restarts", "2"),
        ("r_fgsm", "ascent", "momentum"),
        ("r_fgsm", "random_start", "false"),
        ("noise", "steps", "1"),
        ("noise", "step_size", "0.1"),
        ("noise", "relative_step_size", "1"),
        ("noise", "ascent", "adam"),
        ("noise", "random_start", "false"),
        ("virtual_adversarial", "random_start", "false"),
        ("virtual_adversarial", "goal", "margin"),
        ("virtual_adversarial", "relative_step_size", "1"),
        ("virtual_adversarial", "restarts", "2"),
        ("noise", "restarts", "2"),
    ],
)
def test_an_option_that_an_attack_does_not_have_is_refused_by_name(name: str, key: str, value: str) -> None:
    line = problems(f"attack.name={name}", f"attack.{key}={value}")[0]
    assert line.startswith(f"attack.{key} does not apply to attack.name: {name}, got ")
    assert line.endswith("Remove it, or set attack.name: pgd.")
    panel = f"evaluation.attacks.mine.{key}"
    line = problems(f"evaluation.attacks.mine.name={name}", f"{panel}={value}")[0]
    assert line.startswith(f"{panel} does not apply to evaluation.attacks.mine.name: {name}, got ")


@pytest.mark.parametrize(("name", "steps", "start"), [("fgsm", 1, False), ("r_fgsm", 1, True), ("noise", 0, True)])
def test_an_attack_without_steps_says_what_it_does_instead(name: str, steps: int, start: bool) -> None:
    attack = small(f"attack.name={name}").attack
    assert (attack.steps, attack.random_start) == (steps, start)
    assert small(f"attack.name={name}", f"attack.steps={steps}").attack == attack
    assert small("attack.name=virtual_adversarial").attack.goal == "kl"


@pytest.mark.parametrize("name", ["trades", "alum", "smart", "r3f", "regularised"])
def test_objectives_with_a_clean_loss_refuse_pairs(name: str) -> None:
    attack = "attack.name=noise" if name == "r3f" else "attack.name=pgd"
    assert small(f"objective.name={name}", attack).objective.name == name
    (line,) = problems(f"objective.name={name}", attack, "mixing.policy=pair")
    assert line == (
        f"mixing.policy: pair counts the clean loss of attacked rows twice, because objective.name: {name} already "
        f"contains it. Set mixing.policy: replace."
    )


@pytest.mark.parametrize("name", ["clean", "adversarial", "trades", "alum", "smart", "r3f", "regularised"])
def test_noise_goes_with_every_objective_but_freelb(name: str) -> None:
    assert small(f"objective.name={name}", "attack.name=noise").attack.name == "noise"
    (line,) = problems("objective.name=freelb", "attack.name=noise")
    assert line.startswith("objective.name: freelb needs attack.name: pgd, got noise.")


def test_what_is_allowed_stays_allowed() -> None:
    assert small("objective.name=clean", "mixing.policy=pair").mixing.policy == "pair"
    assert small("objective.name=freelb", "mixing.policy=pair").mixing.policy == "pair"
    assert small("attack.early_stop=true", "attack.select=most_damaging").attack.early_stop
    assert small("mixing.ratio=0").mixing.ratio == 0 and small("mixing.ratio=1").mixing.ratio == 1
    assert small("training.precision=fp16").training.precision == "fp16"
    assert small("threat.space=hidden", "threat.layer=0").threat.layer == 0
    assert (
        small(
            "threat.space=pixels", "threat.relative_radius=null", "threat.radius=8/255", "threat.per=example"
        ).threat.radius
        == 8 / 255
    )
    assert small("objective.name=trades", "attack.name=r_fgsm").attack.random_start
    assert small("objective.name=trades", "attack.name=fgsm", "attack.goal=cross_entropy").attack.goal is not None
    assert small("model.lora=null").model.lora is None
    assert small("model.lora.targets=[query, value]").model.lora == LoraConfig(targets=["query", "value"])
    assert small("data.name=files", "data.train=[a.csv, b.csv]").data.train == ["a.csv", "b.csv"]
    assert small("training.epochs=0.5").training.epochs == 0.5


def test_numbers_are_read_exactly() -> None:
    run = small("attack.steps=4.0", "training.learning_rate=1e-3", "attack.step_size= 2 / 255 ", "mixing.ratio=1")
    assert run.attack.steps == 4 and type(run.attack.steps) is int
    assert run.training.learning_rate == 0.001
    assert run.attack.step_size == 2 / 255
    assert type(run.mixing.ratio) is float
    assert small("threat.relative_radius=2E-2").threat.relative_radius == 0.02
    assert small("evaluation.radii=[1/255, .01, 0.5]").evaluation.radii == [1 / 255, 0.01, 0.5]


def test_attacks_that_measure_keep_the_worst_point_unless_told_otherwise() -> None:
    run = small("selection.attack.restarts=2", "evaluation.attacks={weak: {steps: 5}, raw: {select: last}}")
    assert run.selection.attack == AttackConfig(steps=10, restarts=2, select="most_damaging", early_stop=True)
    assert run.evaluation.attacks["weak"] == AttackConfig(
        steps=5, select="most_damaging", early_stop=True, starts="spread"
    )
    assert run.evaluation.attacks["raw"] == AttackConfig(select="last", early_stop=True, starts="spread")
    assert small("selection.attack.name=fgsm").selection.attack == AttackConfig(name="fgsm")
    assert small("selection.attack.name=noise").selection.attack == AttackConfig(name="noise")
    assert run.attack == TextAttackConfig(edits=None)


@pytest.mark.parametrize("task", PACKAGES)
def test_every_key_says_what_it_means(task: str) -> None:
    found = sections(schema(task))
    assert AttackConfig in found and len(found) > 10
    silent = [f"{s.__name__}.{key}" for s in found for key, info in s.model_fields.items() if not info.description]
    assert silent == []


def test_the_schema_file_is_up_to_date() -> None:
    path = ROOT / "textadv" / "config" / "schema.json"
    assert path.read_text(encoding="utf-8") == schema_text(), "run python scripts/write_schema.py"


def test_the_schema_tells_editors_types_bounds_and_defaults() -> None:
    whole = json.loads(json.dumps(json_schema()))
    attack = whole["$defs"]["AttackConfig"]
    kinds = {kind["$ref"].rpartition("/")[2] for kind in whole["anyOf"]}
    assert kinds == {schema(task).__name__ for task in PACKAGES} and len(kinds) == len(PACKAGES)
    needed = {"output", "model", "data", "threat", "training"}
    assert set(whole["$defs"]["ChatRunConfig"]["required"]) == {"task", *needed}
    of_texts = {**whole["$defs"]["RunConfig"], "$defs": whole["$defs"]}
    assert of_texts["additionalProperties"] is False and attack["additionalProperties"] is False
    assert set(of_texts["required"]) == needed
    assert attack["properties"]["steps"]["minimum"] == 0 and attack["properties"]["steps"]["type"] == "integer"
    radius = of_texts["$defs"]["ThreatConfig"]["properties"]["radius"]
    number, text, _ = radius["anyOf"]
    assert (number["type"], number["exclusiveMinimum"], text["type"]) == ("number", 0, "string")
    objective = of_texts["properties"]["objective"]
    assert set(objective["discriminator"]["mapping"]) >= {
        "clean", "adversarial", "trades", "mart", "alum", "smart", "r3f", "freelb", "free", "regularised",
        "distributional", "predictor",
    }  # fmt: skip
    assert of_texts["properties"]["evaluation"]["default"]["attacks"]["pgd20"]["restarts"] == 3


def test_the_trackers_are_those_of_accelerate() -> None:
    assert set(get_args(Tracker)) == {str(name) for name in LoggerType} - {"all"}
