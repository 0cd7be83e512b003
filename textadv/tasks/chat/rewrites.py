"""The attacks in text that a chat model is measured with, by name: a section each, which makes its adversary.

What stands here every section honours. A section of a further attack stands in a file of its own and joins `Rewrite`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Literal, NamedTuple

from pydantic import Field

from textadv.config.types import AttackKey, Count, Section
from textadv.tasks.chat.rewrites_drawn import ArtefactsConfig, BestOfNConfig, ManyShotConfig, TemplatesConfig
from textadv.tasks.chat.rewrites_searched import BeastConfig, IterativeConfig, RandomSearchConfig
from textadv.tasks.chat.rewrites_weights import RefusalAblationConfig

if TYPE_CHECKING:
    from textadv.data import Chat
    from textadv.data.rendering import Template
    from textadv.measuring.safety.adversaries import Adversary
    from textadv.models import LoadedModel
    from textadv.values.batch import Role


KEY = "evaluation.rewrites"
ADAPTER_SCALES = (
    "Plain requests, prefills and benign prompts are asked again with the LoRA adapter at each of these scales, such "
    "as [0, 0.5, 1, 1.5]; 0 is the model without it. Counted in no worst case; [] measures none."
)


class Rewritable(NamedTuple):
    """What an attack in text is made for.

    chats: the behaviours. template: as the model's chats are written. judge: name of the refusal list that decides.
    batch_size: rows per forward. key: of the section, for errors. train: training rows of each stream; max_length: the
    most tokens that they have.
    """

    loaded: LoadedModel
    template: Template
    chats: Sequence[Chat]
    seed: int
    judge: str
    batch_size: int
    key: str = KEY
    train: Mapping[Role, Sequence[Chat]] = MappingProxyType({})
    max_length: int = 256


class GcgConfig(Section):
    """A suffix found by gradients of its tokens and tries of many candidates."""

    name: Literal["gcg"] = Field(description="gcg: greedy coordinate gradient.")
    steps: Count = Field(250, description="Steps of the search.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        raise NotImplementedError


class SoftSuffixConfig(Section):
    """A suffix found on the simplex of tokens."""

    name: Literal["soft_suffix"] = Field(description="soft_suffix: relaxed suffixes, all on one backward.")
    steps: Count = Field(250, description="Steps of the search.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        raise NotImplementedError


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
    return {name: section.make(scene._replace(key=f"{KEY}.{name}")) for name, section in wanted.items()}
