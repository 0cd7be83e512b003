"""Searches that meet no slope at all: an error where no row has one, rows that simply hold where others have."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from textadv.models import PerturbationError


@dataclass
class Slopes:
    """What several searches met together. met: a gradient that is not zero. complaint: of the first that met none."""

    met: bool = False
    complaint: str | None = None

    def require(self) -> None:
        """Raises PerturbationError where a search met no slope, and no other did."""
        if self.complaint is not None and not self.met:
            raise PerturbationError(self.complaint)


_together: ContextVar[Slopes | None] = ContextVar("together", default=None)


def note_slope(met: bool, complaint: str) -> None:
    """What every search that follows gradients says of itself: whether any was not zero, and what is wrong if none was.

    Raises PerturbationError where none was, unless a block of `noting_slopes` waits for other searches.
    """
    slopes = _together.get() or Slopes()
    slopes.met |= met
    if not met and slopes.complaint is None:
        slopes.complaint = complaint
    if _together.get() is None:
        slopes.require()


@contextmanager
def noting_slopes() -> Iterator[Slopes]:
    """Inside the block a search that met no slope hands back what it found: the caller asks `require` in the end.

    So whether single rows are flat does not depend on which other rows share their batch.
    """
    slopes = Slopes()
    token = _together.set(slopes)
    try:
        yield slopes
    finally:
        _together.reset(token)


@contextmanager
def as_one_search() -> Iterator[None]:
    """Inside the block searches on the same rows count as one, which met a slope where any of them did."""
    with noting_slopes() as slopes:
        yield
    if slopes.met or slopes.complaint is not None:
        note_slope(slopes.met, slopes.complaint or "")
