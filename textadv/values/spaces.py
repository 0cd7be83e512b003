"""Where a perturbation is added: the spaces that attacks work in.

A space is a value, not a strategy: it names the tensor of the model that the adversary moves.
`textadv.models` knows how to reach that tensor in a Hugging Face model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

BYTES = 255


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
class Several:
    """Several places of one model at once (arXiv:2407.15549): delta is (B, N, S, D), one (S, D) for each of N places.

    units: what a delta of length 1 adds at each place, in the units of its vectors; empty: 1 everywhere. A relative
        radius sets them to the mean norms there, so that one radius means the same at every depth.
    """

    places: tuple[Embeddings | Hidden, ...]
    units: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.places or len(set(self.places)) < len(self.places):
            raise ValueError(f"threat.layers must name at least one place, each once, got {list(self.places)}.")
        if self.units and len(self.units) != len(self.places):
            raise ValueError(f"Several needs a unit for each of its {len(self.places)} places, got {len(self.units)}.")

    def __str__(self) -> str:
        return " and ".join(str(place) for place in self.places)


@dataclass(frozen=True)
class Ablation:
    """A direction taken out of the hidden states after each of `layers`, at every position (arXiv:2406.11717).

    The delta holds directions of unit length, (B, layers, D); a zero direction takes nothing out.
    """

    layers: tuple[int, ...]

    def __str__(self) -> str:
        return f"hidden states after layers {self.layers[0]} to {self.layers[-1]}, one direction ablated"


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


def radius_words(radius: float) -> str:
    """A radius as people write it: in four digits, or as "8/255" where these would say less than single precision."""
    digits, bytes_ = f"{radius:.4g}", radius * BYTES
    if not math.isclose(float(digits), radius, rel_tol=1e-6) and math.isclose(bytes_, round(bytes_), rel_tol=1e-6):
        return f"{round(bytes_)}/{BYTES}"
    return digits


Space = Embeddings | Hidden | Several | Ablation | Pixels


def per_position(space: Space) -> bool:
    """Whether a delta of this space has a vector for every position: (..., S, D)."""
    return isinstance(space, Embeddings | Hidden | Several)
