"""What kept answers of a chat model are known by, and what a hardening run is resumed with."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.chat_run import prepared, ready
from textadv.config.types import ConfigError
from textadv.measuring import identity
from textadv.tasks.chat import task as module


def changed(path: Path, **values: object) -> None:
    """Puts these values into a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    prepared(tmp_path)
    return tmp_path


def test_answers_are_known_by_model_tokenizer_template_and_code(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    task, model = ready(folder, "run"), folder / "model"
    keys: list[str] = []
    monkeypatch.setattr(module, "evaluate_chat", lambda *args, key, **rest: keys.append(key))

    def key(change: Callable[[], Any] = lambda: None) -> str:
        """That of the model as the change leaves it; it is undone."""
        kept = folder / "kept"
        shutil.copytree(model, kept)
        change()
        task.measure("m", task.load())
        shutil.rmtree(model)
        kept.rename(model)
        return keys[-1]

    config, tokens = model / "config.json", model / "tokenizer.json"
    first = key()
    assert key(lambda: changed(config, transformers_version="4.0.0", _name_or_path="elsewhere")) == first
    others = [
        key(lambda: changed(config, rms_norm_eps=10.0)),
        key(lambda: changed(config, hidden_act="gelu")),
        key(lambda: (model / "chat_template.jinja").write_text("{{ messages[0]['content'] }}")),
        key(lambda: changed(tokens, normalizer={"type": "Lowercase"})),
    ]
    monkeypatch.setattr(identity, "_code", lambda: "another commit")
    others.append(key())
    assert len({first, *others}) == 6


def test_a_run_is_not_resumed_where_the_settings_of_its_model_have_changed(folder: Path) -> None:
    ready(folder, "run")
    changed(folder / "model" / "config.json", rms_norm_eps=10.0)
    with pytest.raises(ConfigError, match="These have changed since: settings.initial. Settings are what config.json"):
        ready(folder, "run", "checkpoint.resume=true")
