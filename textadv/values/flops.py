"""What passes through a model take in floating-point operations, apart by what is computed.

A count of passes says little of what an attack takes: a pass over a cached prompt reads one token, another reads them
all. Counted are the tokens that are really sent, two operations for each of them and each parameter (a multiplication
and an addition; arXiv:2001.08361), forward and for each kind of gradient.

What was not measured is None and stays None in every sum: it is never 0, and a sum of which a part is unknown is
unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce

PER_PARAMETER = 2


@dataclass(frozen=True)
class Flops:
    """Floating-point operations by kind; None: not measured.

    activation_backward: of gradients with respect to what goes through the model, which is all that an attack on its
    input needs. weight_backward: of gradients with respect to weights, which training needs besides.
    """

    forward: int | None = None
    activation_backward: int | None = None
    weight_backward: int | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            if value is not None and value < 0:
                raise ValueError(
                    f"Floating-point operations must be 0 or more, or None (not measured), got {name} {value}."
                )

    @classmethod
    def of(cls, parameters: int, *, forward: int = 0, activation_backward: int = 0, weight_backward: int = 0) -> Flops:
        """Of so many tokens sent through a model: forward, and back for each kind of gradient.

        parameters: those that a token is multiplied with, see `textadv.models.counted_parameters`.
        """
        tokens = (forward, activation_backward, weight_backward)
        return cls(*(PER_PARAMETER * parameters * count for count in tokens))

    @property
    def total(self) -> int | None:
        """All kinds together; None where one of them was not measured."""
        known = [value for value in vars(self).values() if value is not None]
        return sum(known) if len(known) == len(vars(self)) else None

    def __add__(self, other: Flops) -> Flops:
        return Flops(*map(_plus, vars(self).values(), vars(other).values()))


NONE_SPENT = Flops(0, 0, 0)
"""Nothing was sent through the model: measured, and 0."""
NOT_MEASURED = Flops()


def summed(each: Iterable[Flops]) -> Flops:
    """All together; of nothing, none spent."""
    return reduce(Flops.__add__, each, NONE_SPENT)


def flops_text(value: int | float | None) -> str:
    """The operations in three digits, `1.23e+12`; `not measured` where they were not."""
    return "not measured" if value is None else f"{value:.2e}" if value else "0"


def _plus(one: int | None, other: int | None) -> int | None:
    return None if one is None or other is None else one + other
