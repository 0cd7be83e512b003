"""Every configuration that is shipped: it loads, is written and read back equal, and says how to run it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.edited import reader
from tests.recipes.running import ROOT
from textadv.attacks.edits import TextEdits
from textadv.config.edit_sources import EditSources
from textadv.data import Examples
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.elicitation import measuring_attack
from textadv.tasks.chat.scene import eliciting_attack
from textadv.tasks.file import dump_config, load_config

CONFIGS = sorted((ROOT / "recipes/configs").glob("*.yaml"))


def test_there_are_configurations() -> None:
    assert "quickstart.yaml" in [path.name for path in CONFIGS]


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_loads_and_is_written_and_read_back_equal(path: Path, tmp_path: Path) -> None:
    config = load_config(path)
    written = tmp_path / "config.yaml"
    written.write_text(dump_config(config), encoding="utf-8")
    assert load_config(written) == config
    assert dump_config(load_config(written)) == dump_config(config)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_it_opens_with_the_command_that_runs_it(path: Path) -> None:
    opening = [line for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
    assert any(f"recipes/adv_finetune.py recipes/configs/{path.name}" in line for line in opening)


def check_chat(config: ChatRunConfig) -> None:
    """Attacks and mixing; what the objective needs of the rows is tested where there are rows."""
    threat = config.threat.make()
    wanted = config.evaluation.elicitation.attack
    measuring = measuring_attack(wanted, "evaluation.elicitation.attack", threat, config.seed)
    training = eliciting_attack(config.attack, threat, config.seed)
    assert measuring.threat == training.threat == threat
    assert measuring.steps >= 3 * training.steps
    attacked = config.mixing.make(config.seed).count(10**6, config.training.batch_size, 1)
    assert attacked == round(config.mixing.ratio * config.training.batch_size)


def edited_texts(config: Any) -> TextEdits:
    """The edits of a configuration, of training rows whose classes have a word each."""
    rows = Examples(("pwned ignore", "hello tea") * 8, None, (1, 0) * 8, tuple(range(16)))
    sources = EditSources(rows, config.data.labels)
    edits = config.attack.editing(reader(), config.data.max_length, config.mixing.discrete, config.seed, sources)
    assert isinstance(edits, TextEdits) and (config.mining is None or config.mining.attacks(config.seed, sources))
    return edits


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_its_attacks_objective_and_mixing_can_be_built(path: Path) -> None:
    config = load_config(path)
    if isinstance(config, ChatRunConfig):
        check_chat(config)
        return
    threat = config.threat.make()
    measured = config.evaluation.panel(threat, config.seed)
    assert measured.keys() == config.evaluation.attacks.keys()
    edits = None if getattr(config.attack, "edits", None) is None else edited_texts(config)
    objective = config.objective.make(config.attack, threat, config.seed, edits=edits)
    assert (objective is None) == (config.objective.name == "clean")
    attacked = config.mixing.make(config.seed).count(10**6, config.training.batch_size, 1)
    assert attacked == round(config.mixing.ratio * config.training.batch_size)
