"""The schema of the made-up task."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from textadv.config.adversary import AttackConfig
from textadv.config.mixing import RatioConfig
from textadv.config.run import ChoiceConfig, RunSection, SourceConfig
from textadv.config.types import Section, Text


class NamedConfig(Section):
    """What is lowered."""

    name: Literal["adversarial"] = "adversarial"


class DataConfig(Section):
    """Where rows come from."""

    name: Text = "builtin:reviews"


class MeasuringConfig(Section):
    """What is measured on test rows."""

    attack: AttackConfig = AttackConfig(steps=2)


class YesNoConfig(RunSection):
    """A whole run on the made-up task."""

    task: Literal["yes_no"]
    model: SourceConfig = SourceConfig(name="builtin:tiny-encoder")
    data: DataConfig = DataConfig()
    objective: NamedConfig = NamedConfig()
    mixing: RatioConfig = RatioConfig()
    selection: ChoiceConfig = ChoiceConfig()
    evaluation: MeasuringConfig = Field(MeasuringConfig(), description="What is measured on test rows.")


SCHEMA = YesNoConfig
