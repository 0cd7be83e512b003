"""Where a perturbation is added: the spaces that attacks work in.

A space is a value, not a strategy: it names the tensor of the model that the adversary moves.
`textadv.models` knows how to reach that tensor in a Hugging Face model.

Each says what is particular to it, so that no attack asks which one it is:

is_picture: whether the delta is added to the images that the model is given, channels by height by width, of which
    neighbours have something in common, and below which nothing is trained.
per_position: whether the delta has a vector for every position, (..., S, D).
box(inputs): the range of the rows' own values, None where there is none.
require_ball(per, relative): raises ValueError where a ball of that unit, or with a relative radius, has no meaning.
in_units(unit_of): the space, and the factor that makes a relative radius one in it; unit_of: the mean norm of a space.
perturbed_inputs(inputs, delta, embedded): what the model's own forward takes; embedded: makes the inputs of word
    embeddings.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, ClassVar, NamedTuple

if TYPE_CHECKING:
    import torch
    from torch import Tensor

BYTES = 255
# How far outside the box a pixel may be, as a share of its width.
OUTSIDE = 1e-4


class Box(NamedTuple):
    """clean: the values (B, ...) that a delta is added to. low, high: the range that they must stay in."""

    clean: Tensor
    low: float
    high: float

    @property
    def width(self) -> float:
        """From one end of the range to the other."""
        return self.high - self.low

    def bounds(self, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
        """The least and the most that each entry of a delta may be, (B, ...).

        They always hold 0: a value outside the range does not move by itself.
        """
        clean = self.clean.to(dtype)
        return (self.low - clean).clamp(max=0), (self.high - clean).clamp(min=0)

    def require_inside(self, editable: Tensor, ids: Tensor, name: str) -> None:
        """Raises ValueError at `editable` values outside the range, further than rounding could have led.

        name: of the values. ids: (B,), of the rows.
        """
        values, slack = self.clean, OUTSIDE * self.width
        if self.low >= 0 and self.high >= BYTES and float(values.max()) <= 1:
            raise ValueError(
                f"{name.capitalize()} are to be attacked, got values of at most {float(values.max()):g}: rows of "
                "images are in [0, 1]. Use Pixels(), with a radius such as 8/255."
            )
        inside = (values >= self.low - slack) & (values <= self.high + slack)
        inside = (inside | ~editable).flatten(1).all(dim=1)
        if not bool(inside.all()):
            raise ValueError(
                f"{name.capitalize()} are to be attacked, got values from {float(values.min()):g} to "
                f"{float(values.max()):g}, outside at row ids {ids[~inside].tolist()[:5]}. Divide bytes by 255, "
                "let the model normalise (as_classifier(module, mean, std)), or name the range: Pixels(low, high)."
            )


def _no_box(_space: Space, _inputs: Mapping[str, Tensor]) -> Box | None:
    return None


def _any_ball(_space: Space, per: str, relative: bool) -> None:
    return None


def _one_unit(space: Space, unit_of: Callable[[Space], float]) -> tuple[Space, float]:
    return space, unit_of(space)


def _inside(
    space: Space, _inputs: Mapping[str, Tensor], _delta: Tensor, _embedded: Callable[[], dict[str, Tensor]]
) -> dict[str, Tensor]:
    raise ValueError(
        f"A perturbation of {space} lies inside the model and is no input of it. Run textadv.forward("
        "model, attacked.batch), which adds it, or attack Pixels() or Embeddings()."
    )


@dataclass(frozen=True)
class Embeddings:
    """The output of the word embedding, before positions and types are added: delta is (B, S, D)."""

    is_picture: ClassVar[bool] = False
    per_position: ClassVar[bool] = True
    box = _no_box
    require_ball = _any_ball
    in_units = _one_unit

    def __str__(self) -> str:
        return "word embeddings"

    def perturbed_inputs(
        self, _inputs: Mapping[str, Tensor], _delta: Tensor, embedded: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The embeddings (B, S, D) in place of the tokens (B, S)."""
        return embedded()


@dataclass(frozen=True)
class Hidden:
    """The output of transformer block `layer` (0 is the first): delta is (B, S, D)."""

    layer: int
    is_picture: ClassVar[bool] = False
    per_position: ClassVar[bool] = True
    box = _no_box
    require_ball = _any_ball
    in_units = _one_unit
    perturbed_inputs = _inside

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
    is_picture: ClassVar[bool] = False
    per_position: ClassVar[bool] = True
    box = _no_box
    require_ball = _any_ball
    perturbed_inputs = _inside

    def __post_init__(self) -> None:
        if not self.places or len(set(self.places)) < len(self.places):
            raise ValueError(f"threat.layers must name at least one place, each once, got {list(self.places)}.")
        if self.units and len(self.units) != len(self.places):
            raise ValueError(f"Several needs a unit for each of its {len(self.places)} places, got {len(self.units)}.")

    def __str__(self) -> str:
        return " and ".join(str(place) for place in self.places)

    def in_units(self, unit_of: Callable[[Space], float]) -> tuple[Several, float]:
        """A unit for each place, the radius as it is."""
        return replace(self, units=tuple(unit_of(place) for place in self.places)), 1


@dataclass(frozen=True)
class Ablation:
    """A direction taken out of the hidden states after each of `layers`, at every position (arXiv:2406.11717).

    The delta holds directions of unit length, (B, layers, D); a zero direction takes nothing out.
    """

    layers: tuple[int, ...]
    is_picture: ClassVar[bool] = False
    per_position: ClassVar[bool] = False
    box = _no_box
    in_units = _one_unit
    perturbed_inputs = _inside

    def __str__(self) -> str:
        return f"hidden states after layers {self.layers[0]} to {self.layers[-1]}, one direction ablated"

    def require_ball(self, _per: str, _relative: bool) -> None:
        """No ball has a meaning here."""
        raise ValueError(
            "A search moves embeddings, hidden states or pixels in a ball, got directions to ablate. Use "
            "RefusalDirection, which computes them."
        )


@dataclass(frozen=True)
class Pixels:
    """The image in [low, high] before normalisation: delta is (B, channels, height, width)."""

    low: float = 0.0
    high: float = 1.0
    is_picture: ClassVar[bool] = True
    per_position: ClassVar[bool] = False
    in_units = _one_unit

    def __post_init__(self) -> None:
        if not self.low < self.high:
            raise ValueError(f"Pixels needs low < high, got low={self.low}, high={self.high}.")

    def __str__(self) -> str:
        return f"pixels in [{self.low:g}, {self.high:g}]"

    def box(self, inputs: Mapping[str, Tensor]) -> Box | None:
        """The range of the images (B, channels, height, width), where there are any."""
        pixels = inputs.get("pixel_values")
        return None if pixels is None else Box(pixels, self.low, self.high)

    def require_ball(self, per: str, relative: bool) -> None:
        """Balls per example, of an absolute radius."""
        if per == "token":
            raise ValueError("threat.per: token has no meaning for pixels. Set threat.per: example.")
        if relative:
            raise ValueError("threat.relative_radius has no meaning for pixels. Give threat.radius, e.g. 8/255.")

    def perturbed_inputs(
        self, inputs: Mapping[str, Tensor], delta: Tensor, _embedded: Callable[[], dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        """The images (B, channels, height, width) with the delta, (B, channels, height, width), added."""
        pixels = inputs["pixel_values"]
        return {**inputs, "pixel_values": pixels + delta.detach().to(pixels.dtype)}


def radius_words(radius: float) -> str:
    """A radius as people write it: in four digits, or as "8/255" where these would say less than single precision."""
    digits, bytes_ = f"{radius:.4g}", radius * BYTES
    if not math.isclose(float(digits), radius, rel_tol=1e-6) and math.isclose(bytes_, round(bytes_), rel_tol=1e-6):
        return f"{round(bytes_)}/{BYTES}"
    return digits


Space = Embeddings | Hidden | Several | Ablation | Pixels
