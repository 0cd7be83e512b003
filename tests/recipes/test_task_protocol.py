"""What a task has to be, and that the runs need no more: a made-up one is hardened, measured and looked at."""

from __future__ import annotations

import inspect
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import yaml

from recipes import adv_finetune, attack, evaluate
from tests.recipes.running import Recipe
from textadv.config.run import RunSection
from textadv.report import read_results
from textadv.tasks import registry
from textadv.tasks.file import load_config
from textadv.tasks.protocol import Loaded, Task

ROOT = Path(__file__).parents[2]
CONFIG = """
task: yes_no
threat: {relative_radius: 0.3}
attack: {steps: 2}
training: {steps: 3, batch_size: 8, micro_batch_size: 4, learning_rate: 1e-2}
tracking: {progress: false}
"""


def names_of(protocol: type) -> dict[str, list[str] | None]:
    """The public members of a protocol: parameters of methods, None for what is read."""
    return {
        name: list(inspect.signature(member).parameters) if inspect.isfunction(member) else None
        for name, member in vars(protocol).items()
        if not name.startswith("_")
    }


def test_every_registered_task_is_one() -> None:
    assert registry.DEFAULT in registry.PACKAGES
    for name, package in registry.PACKAGES.items():
        kind = get_type_hints(import_module(f"{package}.task").ready)["return"]
        held = {field.name for field in fields(kind)}
        for member, parameters in names_of(Task).items():
            if member in held:
                continue
            found = inspect.getattr_static(kind, member)
            assert isinstance(found, property) if parameters is None else callable(found), (name, member)
            if parameters is not None:
                assert list(inspect.signature(found).parameters) == parameters, (name, member)


def test_every_folder_has_what_the_registry_asks_for() -> None:
    for name, package in registry.PACKAGES.items():
        schema = registry.schema(name)
        assert issubclass(schema, RunSection) and name in str(schema.model_fields["task"].annotation)
        ready, look = (import_module(f"{package}.{file}") for file in ("task", "inspection"))
        assert list(inspect.signature(ready.ready).parameters) == ["config", "run"]
        assert list(inspect.signature(look.look).parameters) == ["config", "wanted"]


def test_what_is_loaded_saves_itself() -> None:
    from textadv.models import LoadedModel, LoadedVision

    for kind in (LoadedModel, LoadedVision):
        assert "model" in {field.name for field in fields(kind)}
        assert inspect.signature(kind.save).parameters.keys() == inspect.signature(Loaded.save).parameters.keys()


def test_runs_and_recipes_name_no_task() -> None:
    named = [name for name, package in registry.PACKAGES.items()] + list(registry.PACKAGES.values())
    words = [f"tasks.{package.rpartition('.')[2]}" for package in registry.PACKAGES.values()]
    words += ["ChatRunConfig", "ImageRunConfig", "Classifier", "ChatTask", "config.task =="]
    assert len(named) == 2 * len(registry.PACKAGES) > 0
    for path in [*(ROOT / "textadv/runs").glob("*.py"), *(ROOT / "recipes").glob("*.py")]:
        text = path.read_text(encoding="utf-8")
        assert not [word for word in words if word in text], path


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A configuration of one more task, which stands in the registry and nowhere else."""
    monkeypatch.setitem(registry.PACKAGES, "yes_no", "tests.support.yes_no")
    path = tmp_path / "yes_no.yaml"
    raw: dict[str, Any] = yaml.safe_load(CONFIG) | {"output": str(tmp_path / "run")}
    path.write_text(yaml.safe_dump(raw), encoding="utf-8")
    return path


def test_a_made_up_task_is_hardened_measured_and_looked_at(made_up: Path, recipe: Recipe, tmp_path: Path) -> None:
    ended = recipe(adv_finetune, str(made_up))
    assert ended.code == 0, ended.error
    assert "warning: a made-up task" in ended.printed and "rows:   48 to train on" in ended.printed
    output = tmp_path / "run"
    results = read_results(output)
    assert [model.name for model in results.evaluations] == ["before", "plain", "hardened"]
    assert [training.adversarial_rows for training in results.trainings] == [0, 6]
    assert {"weights.initial", "weights.plain", "weights.hardened"} <= set(results.hashes)
    assert {"report.html", "report.md", "config.yaml", "merged", "baselines"} <= {
        path.name for path in output.iterdir()
    }
    assert f"report: {output / 'report.html'} (also report.md, results.json)" in ended.printed

    again = recipe(adv_finetune, str(made_up))
    assert again.code == 0 and "holds this run, finished" in again.printed, again.error
    assert read_results(output).evaluations == results.evaluations

    models = ("--model", f"mine={output / 'merged'}", "--model", f"plain={output / 'baselines/plain/merged'}")
    measured = recipe(evaluate, str(made_up), *models, "--output", str(tmp_path / "measured"))
    assert measured.code == 0, measured.error
    named = {model.name: model.measures for model in read_results(tmp_path / "measured").evaluations}
    assert named == {"mine": results.evaluations[2].measures, "plain": results.evaluations[1].measures}

    looked = recipe(attack, str(made_up), "--model", f"mine={output / 'merged'}", "--rows", "2")
    assert looked.code == 0, looked.error
    assert looked.printed.splitlines() == [
        f"model:  mine ({output / 'merged'})",
        *(f"row {n} of builtin:reviews" for n in (0, 1)),
    ]


def test_what_is_wrong_with_its_configuration_is_said_in_its_own_keys(made_up: Path, recipe: Recipe) -> None:
    ended = recipe(adv_finetune, str(made_up), "evaluation.atack={}")
    assert ended.code == 1 and "unknown key evaluation.atack" in ended.error
    assert "did you mean evaluation.attack?" in ended.error
    ended = recipe(adv_finetune, str(made_up), "task=no_yes")
    assert f"task must be one of {', '.join(registry.PACKAGES)}, got 'no_yes'." in ended.error
    assert "yes_no" in registry.PACKAGES
    assert isinstance(load_config(made_up), registry.schema("yes_no"))
