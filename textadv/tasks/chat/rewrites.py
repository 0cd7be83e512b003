"""The attacks in text that a chat model is measured with, by name: a section each, which makes its adversary.

What stands here every section honours. A section of a further attack stands in a file of its own and joins `Rewrite`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from textadv.config.types import AttackKey, ConfigError, Count, Natural, Positive, Section, Text
from textadv.tasks.chat.rewritable import KEY, Rewritable
from textadv.tasks.chat.rewrites_drawn import ArtefactsConfig, BestOfNConfig, ManyShotConfig, TemplatesConfig
from textadv.tasks.chat.rewrites_searched import BeastConfig, IterativeConfig, RandomSearchConfig
from textadv.tasks.chat.rewrites_weights import RefusalAblationConfig

if TYPE_CHECKING:
    from textadv.measuring.safety.adversaries import Adversary


ADAPTER_SCALES = (
    "Plain requests, prefills and benign prompts are asked again with the LoRA adapter at each of these scales, such "
    "as [0, 0.5, 1, 1.5]; 0 is the model without it. Counted in no worst case; [] measures none."
)

Part = Annotated[float, Field(gt=0, le=1)]
Decay = Annotated[float, Field(ge=0, lt=1)]


class SuffixSection(Section):
    """What every search for a suffix has."""

    steps: Count = Field(250, description="Steps of the search.")
    length: Count = Field(20, description="Tokens of the suffix.")
    init: Text | None = Field(
        None, description="Suffix that the search begins with; null: a repeated word of `length` tokens."
    )
    early_stop: bool = Field(True, description="Whether a row ends where greedy decoding says its whole target.")
    printable: bool = Field(True, description="Whether only tokens of printable ASCII are taken.")


class GcgConfig(SuffixSection):
    """A suffix by greedy coordinate gradient."""

    name: Literal["gcg"] = Field(description="gcg: candidates by the slope at each token, the best of them kept.")
    width: Count = Field(512, description="Candidates that are drawn in each step.")
    top_k: Count = Field(256, description="Most promising tokens of each slot, which candidates are drawn from.")
    replaced: Count = Field(1, description="Tokens that a candidate changes.")
    loss: Literal["ce", "cw", "mellowmax"] = Field(
        "ce", description="What is lowered: the target's mean cross-entropy, its mean margin, or its worst tokens."
    )
    momentum: Decay = Field(0.0, description="Decay of the slopes gathered so far (MAC).")
    norm_scale: Part = Field(1.0, description="What slopes are multiplied by at every layer norm (LSGM).")
    buffer: Natural = Field(0, description="Best suffixes to go on from; 0: always the newest step's best.")
    universal: bool = Field(False, description="One suffix for all behaviours, instead of one for each.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        from textadv.attacks.prompts.gcg import Gcg

        return scene.asked_with(Gcg(seed=scene.seed, **self.model_dump(exclude={"name"})))


class SoftSuffixConfig(SuffixSection):
    """A suffix by mixtures of tokens."""

    name: Literal["soft_suffix"] = Field(description="soft_suffix: several mixtures of tokens on one backward.")
    suffixes: Count = Field(6, description="Suffixes that are searched at once.")
    step_size: Positive = Field(10.0, description="Length of a step, in slopes.")
    momentum: Decay = Field(0.99, description="Decay of the slopes gathered so far.")
    norm_scale: Part = Field(0.85, description="What slopes are multiplied by at every layer norm.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        from textadv.attacks.prompts.soft_suffix import SoftSuffix

        return scene.asked_with(SoftSuffix(seed=scene.seed, **self.model_dump(exclude={"name"})))


Rewrite = Annotated[
    GcgConfig
    | SoftSuffixConfig
    | BestOfNConfig
    | ManyShotConfig
    | TemplatesConfig
    | ArtefactsConfig
    | RandomSearchConfig
    | BeastConfig
    | IterativeConfig
    | RefusalAblationConfig,
    Field(discriminator="name"),
]
Rewrites = dict[AttackKey, Rewrite]


def rewrites(wanted: Mapping[str, Rewrite], scene: Rewritable) -> dict[str, Adversary]:
    """The adversaries by name. Raises ConfigError where one cannot be made of what it is given."""
    found = {}
    for name, section in wanted.items():
        try:
            found[name] = section.make(scene._replace(key=f"{KEY}.{name}"))
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError([f"{KEY}.{name}: {error}"]) from error
    return found
