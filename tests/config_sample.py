"""A small configuration of each task, and how tests read it and collect what is wrong with it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pytest
import yaml
from pydantic import BaseModel

from textadv.config.types import ConfigError
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config, parse_config
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.text.config import RunConfig

SMALL = """\
output: runs/small
model: {name: some/model}
data: {name: "builtin:reviews"}
threat: {relative_radius: 0.05}
training: {epochs: 1}
"""


SMALL_CHAT = """\
task: chat
output: runs/small
model: {name: some/model}
data:
  adversarial: {train: a.jsonl, test: b.jsonl}
  utility: {train: c.jsonl, test: d.jsonl}
  borderline: {train: e.jsonl, test: f.jsonl}
threat: {relative_radius: 0.05}
training: {epochs: 1}
"""
SMALL_IMAGE = """\
task: images
output: runs/small
model: {name: some/model}
data: {name: "builtin:shapes"}
threat: {norm: linf, radius: 8/255}
training: {epochs: 1}
"""


def small(*overrides: str) -> RunConfig:
    return parse_config(yaml.safe_load(SMALL), overrides)


def small_chat(*overrides: str) -> ChatRunConfig:
    found = parse_config(yaml.safe_load(SMALL_CHAT), overrides)
    assert isinstance(found, ChatRunConfig)
    return found


def small_image(*overrides: str) -> ImageRunConfig:
    found = parse_config(yaml.safe_load(SMALL_IMAGE), overrides)
    assert isinstance(found, ImageRunConfig)
    return found


def problems(*overrides: str, of: Callable[..., object] = small) -> list[str]:
    """What is said of a small configuration with these overrides."""
    with pytest.raises(ConfigError) as caught:
        of(*overrides)
    assert str(caught.value) == "\n".join(caught.value.lines)
    return list(caught.value.lines)


chat_problems, image_problems = partial(problems, of=small_chat), partial(problems, of=small_image)


def require_told(overrides: Sequence[str], told: str, problems: Callable[..., list[str]] = problems) -> None:
    """That these overrides lead to one line, and what it begins with."""
    (line,) = problems(*overrides)
    assert line.startswith(told), line


def sections(annotation: Any) -> set[type[BaseModel]]:
    """All the sections that are in a type, itself among them where it is one."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return {annotation}.union(*(sections(info.annotation) for info in annotation.model_fields.values()))
    return set().union(*(sections(part) for part in get_args(annotation)))


def written(folder: Path, text: str) -> Path:
    path = folder / "file.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def file_problems(folder: Path, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load_config(written(folder, text), overrides)
    return [line.replace(str(folder) + "/", "") for line in caught.value.lines]
