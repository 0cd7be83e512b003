"""The section that says how hard rows are mined while a classifier of texts is trained."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.edit_sources import EditSources
from textadv.config.edits import BreakingConfig
from textadv.config.edits_training import brief
from textadv.config.types import AttackKey, ConfigError, Count, Section, checked

if TYPE_CHECKING:
    from textadv.attacks.edits import EditAttack

Part = Annotated[float, Field(gt=0, le=1)]


class MiningConfig(Section):
    """Rows that the model gets wrong once they are edited come back among those that it trains on, by rounds."""

    edits: Annotated[
        dict[AttackKey, Annotated[Annotated[BreakingConfig, Field(discriminator="name")], BeforeValidator(brief)]],
        Field(min_length=1),
    ] = Field(
        description="How rows are edited, by names of your choice: sections as under evaluation.edits, with queries: "
        "64 where they give none."
    )
    rounds: Count = Field(3, description="How often rows are mined, evenly over the training.")
    rows: Count = Field(128, description="Training rows that each of the edits is tried on in a round, drawn anew.")
    held_out: Count = Field(
        128, description="Validation rows that each is tried on as well, the same in every round and never trained on."
    )
    share: Part = Field(0.25, description="Share of a step's rows that are mined ones, as far as there are any.")

    @model_validator(mode="after")
    def _rules(self) -> MiningConfig:
        lines = [
            f"mining.edits.{key}.rows samples the rows of an evaluation. Remove it, and set mining.rows."
            for key, section in self.edits.items()
            if section.rows is not None
        ]
        return checked(self, lines)

    def attacks(self, seed: int, sources: EditSources) -> dict[str, EditAttack]:
        """The attacks, by their keys. Raises ConfigError as those of an evaluation do."""
        made, lines = {}, []
        for key, section in self.edits.items():
            try:
                made[key] = section.make(seed, sources)
            except ConfigError as error:
                lines += [f"mining.edits.{key}{line}" for line in error.lines]
        if lines:
            raise ConfigError(lines)
        return made

    def problems(self, objective: str, guarded: bool, batch_size: int) -> list[str]:
        """What mining does not allow elsewhere, one line each. guarded: whether there is a training.guard."""
        lines = []
        if objective == "free":
            lines.append(
                "mining does not go with objective.name: free, whose batches stay for objective.replays. Set "
                "objective.name: adversarial or freelb, or mining: null."
            )
        if guarded:
            lines.append(
                "mining does not go with training.guard, which puts weights back to an earlier step. Set "
                "training.guard: null, or mining: null."
            )
        if int(self.share * batch_size + 0.5) < 1:
            lines.append(
                f"mining.share: {self.share} of training.batch_size: {batch_size} is no row. Raise either of them."
            )
        return lines
