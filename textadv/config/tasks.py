"""The schemas of all kinds of run, and which of them a configuration is to be checked by."""

from __future__ import annotations

from collections.abc import Mapping

from textadv.config.chat import ChatRunConfig
from textadv.config.images import ImageRunConfig
from textadv.config.text import RunConfig

ClassifierRunConfig = RunConfig | ImageRunConfig
AnyRunConfig = ClassifierRunConfig | ChatRunConfig
SCHEMAS: dict[object, type[RunConfig] | type[ImageRunConfig] | type[ChatRunConfig]] = {
    "classification": RunConfig,
    "images": ImageRunConfig,
    "chat": ChatRunConfig,
}


def schema_of(raw: object) -> type[RunConfig] | type[ImageRunConfig] | type[ChatRunConfig]:
    """The schema that a configuration, as read, is to be checked by: its key `task` says which; texts by default."""
    task = raw.get("task") if isinstance(raw, Mapping) else None
    return SCHEMAS.get(task, RunConfig) if isinstance(task, str) else RunConfig
