"""Attacks by edits in an evaluation.

An embedding ball does not hold what these do, so they stand beside `evaluation.attacks` and are reported by themselves.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, get_args

from pydantic import Field, model_validator

from textadv.config.edit_sources import EditSources
from textadv.config.edits import BreakingConfig, EditSection, InputReductionConfig
from textadv.config.evaluation import EvaluationConfig
from textadv.config.types import AttackKey, ConfigError, checked

if TYPE_CHECKING:
    from textadv.attacks.edits import EditAttack

EditConfig = BreakingConfig | InputReductionConfig


BY_NAME: dict[str, type[EditSection]] = {
    kind.model_fields["name"].default: kind
    for kind in get_args(EditConfig)
    if not any(info.is_required() for info in kind.model_fields.values())
}
"""The attacks that need no file, by their names."""


class TextEvaluationConfig(EvaluationConfig):
    """What is measured on test rows of texts, before and after training."""

    edits: dict[AttackKey, Annotated[EditConfig, Field(discriminator="name")]] = Field(
        {}, description="Attacks that edit the texts, by names of your choice; reported beside the others."
    )

    @model_validator(mode="after")
    def _edit_rules(self) -> TextEvaluationConfig:
        both = [key for key in self.edits if key in self.attacks]
        lines = [
            f"evaluation.edits.{key} has the name of one of evaluation.attacks. Rename one of them." for key in both
        ]
        return checked(self, lines)

    def edit_attacks(self, seed: int, sources: EditSources) -> dict[str, EditAttack]:
        """The attacks by edits, by their keys.

        Raises ConfigError that names every file which cannot be read and every label which is no class.
        """
        made, lines = {}, []
        for key, section in self.edits.items():
            try:
                made[key] = section.make(seed, sources)
            except ConfigError as error:
                lines += [f"evaluation.edits.{key}{line}" for line in error.lines]
        if lines:
            raise ConfigError(lines)
        return made
