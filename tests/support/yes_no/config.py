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

    name: Literal["adversarial"] = Field("adversarial", description="Cross-entropy of attacked rows.")


class DataConfig(Section):
    """Where rows come from."""

    name: Text = Field("builtin:reviews", description="A data set with labels.")


class MeasuringConfig(Section):
    """What is measured on test rows."""

    attack: AttackConfig = Field(AttackConfig(steps=2), description="What test rows are attacked by.")


class YesNoConfig(RunSection):
    """A whole run on the made-up task."""

    task: Literal["yes_no"] = Field(description="yes_no: made up.")
    model: SourceConfig = Field(SourceConfig(name="builtin:tiny-encoder"), description="What is trained.")
    data: DataConfig = Field(DataConfig(), description="Where rows come from.")
    objective: NamedConfig = Field(NamedConfig(), description="What is lowered.")
    mixing: RatioConfig = Field(RatioConfig(), description="How many rows are attacked.")
    selection: ChoiceConfig = Field(ChoiceConfig(), description="How the best checkpoint is found.")
    evaluation: MeasuringConfig = Field(MeasuringConfig(), description="What is measured on test rows.")


SCHEMA = YesNoConfig
