"""A small configuration, and how tests read it and collect what is wrong with it."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from textadv.config.types import ConfigError
from textadv.tasks.file import load_config, parse_config
from textadv.tasks.text.config import RunConfig

SMALL = """\
output: runs/small
model: {name: some/model}
data: {name: "builtin:reviews"}
threat: {relative_radius: 0.05}
training: {epochs: 1}
"""


def small(*overrides: str) -> RunConfig:
    return parse_config(yaml.safe_load(SMALL), overrides)


def problems(*overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        small(*overrides)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return list(caught.value.lines)


def written(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def file_problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, text), overrides)
    return [line.replace(str(folder) + "/", "") for line in caught.value.lines]
