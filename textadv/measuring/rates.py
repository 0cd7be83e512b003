"""Rates, radii and points as text."""

from __future__ import annotations

import math

from textadv.measuring.statistics import Rate
from textadv.values.spaces import radius_words

MISSING = "-"


def percent(share: float) -> str:
    """A share in 0..1 as "84.7 %"; "-" for nan."""
    return MISSING if math.isnan(share) else f"{100 * share:.1f} %"


def rate_text(rate: Rate) -> str:
    """A rate with its interval in percent, "84.7 % [79.8, 88.6]"."""
    if rate.total == 0:
        return MISSING
    return f"{percent(rate.value)} [{100 * rate.low:.1f}, {100 * rate.high:.1f}]"


def rate_cell(rate: Rate | None) -> str:
    """As `rate_text` in a table whose caption gives the unit, "84.7 [79.8, 88.6]"."""
    return MISSING if rate is None else rate_text(rate).replace(" %", "")


def signed(points: float) -> str:
    """Points with their sign, in one digit."""
    # Rounding must not leave a "-0.0".
    return f"{round(points, 1) + 0.0:+.1f}"


def radius_text(radius: float, relative_radius: float | None) -> str:
    """A radius as the user gave it, "relative radius 0.05" or "radius 8/255"."""
    return f"radius {radius_words(radius)}" if relative_radius is None else f"relative radius {relative_radius:g}"
