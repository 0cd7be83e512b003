"""The section that says how a classifier is measured as a detector of one class: recall at fixed false positives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import AttackConfig, with_defaults
from textadv.config.types import ConfigError, Distinct, Section, Text, checked

if TYPE_CHECKING:
    from textadv.attacks import Attack, ThreatModel


def to_its_end(data: object) -> object:
    """An attack that measures and does not stop, with 10 steps where the file gives none."""
    return with_defaults(data, {"steps": 10, "select": "most_damaging", "early_stop": False})


class DetectionConfig(Section):
    """Recall and false positives of each test file, at thresholds chosen on benign validation rows."""

    positive: Text = Field(
        description="Name of the class that is looked for, such as injection; all others are benign."
    )
    false_positives: Annotated[Distinct[Annotated[float, Field(gt=0, lt=1)]], Field(min_length=1)] = Field(
        [0.01, 0.05], description="Shares of benign rows that may be flagged, a threshold for each."
    )
    on: Literal["validation", "benign", "both"] = Field(
        "validation",
        description="Benign rows that thresholds are chosen on: of data.validation, of data.benign, or of both.",
    )
    attack: Annotated[AttackConfig | None, BeforeValidator(to_its_end)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging"),
        description="Attack under which rows are scored again, thresholds staying; unset keys default to steps 10, "
        "select most_damaging and early_stop false. null: none.",
    )

    @model_validator(mode="after")
    def _rules(self) -> DetectionConfig:
        lines = []
        if self.attack is not None and self.attack.early_stop:
            lines.append(
                "evaluation.detection.attack.early_stop: true leaves a row at its first wrong answer, which a "
                "threshold may still flag. Remove it."
            )
        return checked(self, lines)

    def positive_id(self, labels: Sequence[str]) -> int:
        """The class id of `positive`. Raises ConfigError where no class is called so."""
        if self.positive not in labels:
            raise ConfigError(
                [
                    f"evaluation.detection.positive must be one of the classes ({', '.join(labels)}), got "
                    f"{self.positive}. Name one of them, or give the classes their names in data.labels."
                ]
            )
        return list(labels).index(self.positive)

    def attacked(self, threat: ThreatModel, seed: int) -> Attack | None:
        """The attack. Raises ConfigError where it cannot work in this threat model."""
        if self.attack is None:
            return None
        try:
            return self.attack.make(threat, seed)
        except ValueError as error:
            raise ConfigError([f"evaluation.detection.attack: {error}"]) from error
