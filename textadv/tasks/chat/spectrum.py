"""The part of a chat model's objective that flattens the spectrum of its word embeddings, and what it needs."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from textadv.config.types import ConfigError, Positive
from textadv.tasks.chat.scene import PartSection

if TYPE_CHECKING:
    from torch import nn

    from textadv.objectives.alignment import Part


class SpectrumConfig(PartSection):
    """ER-CAT (arXiv:2604.12817): the singular values of the word embeddings' matrix are drawn together."""

    on_adversarial = False

    name: Literal["spectrum"] = Field("spectrum", description="A flat spectrum of the word embeddings.")
    weight: Positive = Field(0.2, description="Weight of the measure, 0.5 beside deviation in the released code.")
    measure: Annotated[
        Literal["variance", "deviation"],
        Field(description="Of the singular values: variance as in the paper, or its unbiased root as released."),
    ] = "variance"

    def on_every_row(self) -> list[Part]:
        from textadv.objectives.alignment import Part
        from textadv.objectives.spectrum import Spectrum

        return [Part(Spectrum(self.weight, self.measure))]

    def doubts(self, model: nn.Module) -> list[str]:
        from textadv.models import ModelError
        from textadv.models.embedding_matrix import embedding_matrix, embedding_name, ties_embeddings

        try:
            matrix = embedding_matrix(model)
        except ModelError as error:
            raise ConfigError([f"objective.parts: spectrum: {error}"]) from error
        if not matrix.trained:
            raise ConfigError([untrained(embedding_name(model))])
        if not ties_embeddings(model):
            return []
        if matrix.factors:
            return [
                "objective.parts: spectrum flattens the word embeddings as they are read: the output layer, which "
                "shares their weight, keeps it as it was, and an exported model holds the two apart."
            ]
        return [
            "objective.parts: spectrum flattens the output layer too: it shares its weight with the word embeddings."
        ]


def untrained(name: str) -> str:
    """What is wrong where no weight of the word embedding, a module of that name, is trained."""
    return (
        "objective.parts: spectrum flattens the word embedding, and none of its weights is trained. Add "
        f"{name} to model.lora.targets, as in [{name}, q_proj, k_proj], or train all weights with model.lora: null."
    )


def spectrum_problems(parts: list[PartSection], targets: object) -> list[str]:
    """What can be told of model.lora.targets before a model is loaded. targets: None: all weights are trained."""
    wanted = any(part.name == "spectrum" for part in parts)
    return [untrained("embed_tokens")] if wanted and targets == "all-linear" else []
