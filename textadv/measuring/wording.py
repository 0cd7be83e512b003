"""Numbers as reports and verdicts write them."""

from __future__ import annotations

import math

from textadv.measuring.measured import Change, Compared, Measure
from textadv.measuring.rates import MISSING, percent, rate_text, signed

__all__ = ["MISSING", "change_text", "change_words", "p_text", "percent", "points_text", "rate_text", "value_text"]


def value_text(measure: Measure) -> str:
    """A rate in percent, "12.5 [6.9, 21.5]"; a perplexity or its own text as it is; "-" where there is none."""
    if measure.text or measure.unit in ("count", "cost"):
        return measure.text or f"{measure.value:,.0f}"
    factor, digits = (1.0, 2) if measure.unit == "perplexity" else (100.0, 1)
    value, low, high = (f"{factor * number:.{digits}f}" for number in (measure.value, measure.low, measure.high))
    if math.isnan(measure.value) or (measure.total == 0 and measure.unit == "share"):
        return MISSING
    return value if math.isnan(measure.low) else f"{value} [{low}, {high}]"


def change_text(measure: Measure, change: Change, unit: str = "") -> str:
    """A paired change in points, "-87.5 [-93.0, -78.5], p < 0.001", `unit` after them; of a perplexity the factor."""
    if measure.unit == "perplexity":
        value, low, high = (f"{math.exp(nats):.3f}" for nats in (change.value, change.low, change.high))
        return f"x {value}" if math.isnan(change.low) else f"x {value} [{low}, {high}]"
    text = points_text(change) + unit
    return text if change.p is None else f"{text}, {p_text(change.p)}"


def points_text(change: Change) -> str:
    """A change of a share with its interval in percentage points, "+21.5 [+15.1, +27.4]"."""
    if math.isnan(change.value):
        return MISSING
    low, value, high = (signed(100 * part) for part in (change.low, change.value, change.high))
    return f"{value} [{low}, {high}]"


def change_words(compared: Compared) -> str:
    """As `change_text`, in a sentence: with its unit."""
    return change_text(compared.before, compared.change, " points")


def p_text(p: float) -> str:
    """A p-value, "p = 0.031" or "p < 0.001"."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"
