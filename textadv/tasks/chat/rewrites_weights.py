"""Sections of attacks by whoever holds the weights: the model asked without its own refusal direction."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from textadv.config.types import ConfigError, Count, Section, Share

if TYPE_CHECKING:
    from textadv.measuring.safety.adversaries import Adversary
    from textadv.tasks.chat.rewritable import Rewritable


class RefusalAblationConfig(Section):
    """The request as it stands, to the model without its own refusal direction."""

    name: Literal["refusal_ablation"] = Field(description="refusal_ablation: the direction of refusal is taken out.")
    prompts: Count = Field(32, description="Harmful and harmless training prompts that the direction is taken from.")
    first_layer: Share = Field(0.0, description="Ablated from this share of the depth on, to the last block.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary. Raises ConfigError where no block is left."""
        from textadv.data import encode_chats
        from textadv.measuring.safety.ablated import RefusalAblation
        from textadv.models import blocks
        from textadv.values.batch import Role

        depth = len(blocks(scene.loaded.model))
        layers = tuple(range(int(self.first_layer * depth), depth))
        if not layers:
            raise ConfigError(
                [f"{scene.key}.first_layer: {self.first_layer} leaves none of {depth} blocks. Lower it below 1."]
            )
        # Shown in training; no test row has a say in the direction.
        shown = {role: scene.train[role][: self.prompts] for role in (Role.ADVERSARIAL, Role.UTILITY)}
        rows = {role: encode_chats(chats, scene.template, scene.max_length) for role, chats in shown.items()}
        harmful, harmless = (rows[role].batch(range(len(rows[role]))) for role in (Role.ADVERSARIAL, Role.UTILITY))
        return RefusalAblation(layers, harmful, harmless)
