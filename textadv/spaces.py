"""Where a perturbation is added: the three spaces every attack works in.

A space is a value, not a strategy: it names the tensor of the model that the adversary moves.
`textadv.models` knows how to reach that tensor in a Hugging Face model.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Embeddings:
    """The output of the word embedding, before positions and types are added: delta is (B, S, D)."""

    def __str__(self) -> str:
        return "word embeddings"


@dataclass(frozen=True)
class Hidden:
    """The output of transformer block `layer` (0 is the first): delta is (B, S, D)."""

    layer: int

    def __post_init__(self) -> None:
        if self.layer < 0:
            raise ValueError(f"threat.layer must be 0 or more, got {self.layer}. Layer 0 is the first block.")

    def __str__(self) -> str:
        return f"hidden states after layer {self.layer}"


@dataclass(frozen=True)
class Pixels:
    """The image in [low, high] before normalisation: delta is (B, channels, height, width)."""

    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Pixels needs low < high, got low={self.low}, high={self.high}.")

    def __str__(self) -> str:
        return f"pixels in [{self.low:g}, {self.high:g}]"


Space = Embeddings | Hidden | Pixels
