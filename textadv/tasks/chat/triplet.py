"""The part of a chat model's objective that gathers perturbed harmful states and keeps useful ones apart from them."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from textadv.config.types import ConfigError, Natural, NotNegative
from textadv.tasks.chat.scene import PartSection, Scene

if TYPE_CHECKING:
    from textadv.attacks import Attack
    from textadv.objectives.alignment import Part
    from textadv.objectives.triplet import Centre

# 20 to 30 of 32, as released.
FIRST, LAST = 19 / 32, 30 / 32


class TripletConfig(PartSection):
    """Triplets of hidden states (arXiv:2506.11938), harmful ones at the perturbation that elicits the target."""

    searching = True
    compares = True

    name: Literal["triplet"] = Field("triplet", description="Harmful states leave and gather, useful ones stay.")
    harmful: NotNegative = Field(0.6, description="Weight on harmful rows.")
    harmful_margin: NotNegative = Field(
        3.0,
        description="By how much farther they are to be from where they were than from their centre, in 1 - cosine.",
    )
    useful: NotNegative = Field(0.5, description="Weight on utility and borderline rows; 0: none.")
    useful_margin: NotNegative = Field(
        2.0, description="By how much farther these are to be from the harmful centre than from where they were."
    )
    layers: list[Natural] | None = Field(
        None, description="Blocks whose output is gathered; null: those from 19/32 to 30/32 of the depth."
    )

    def on_harmful(self, scene: Scene, attack: Attack | None) -> list[Part]:
        from textadv.objectives.alignment import Part
        from textadv.objectives.triplet import Gather

        depth = scene.layers
        late = tuple(range(min(math.floor(FIRST * depth), depth - 1), max(math.floor(LAST * depth), 1)))
        chosen = (late or (depth - 1,)) if self.layers is None else tuple(self.layers)
        if not chosen or max(chosen) >= depth:
            raise ConfigError([f"objective.parts: triplet.layers must name blocks 0 to {depth - 1}, got {chosen}."])
        return [Part(Gather(chosen, self.harmful, self.harmful_margin, _centre(scene)), True)]

    def on_useful(self, scene: Scene) -> list[Part]:
        from textadv.objectives.alignment import Part
        from textadv.objectives.triplet import Stay

        return [Part(Stay(self.useful, self.useful_margin, _centre(scene)))] if self.useful > 0 else []


def _centre(scene: Scene) -> Centre:
    """The one centre of a run."""
    from textadv.objectives.triplet import Centre

    found = scene.shared.setdefault("triplet", Centre())
    assert isinstance(found, Centre)
    return found
