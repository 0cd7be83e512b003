"""Rows that something beside the panel broke inside the threat: they count in the worst case, with what broke them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from textadv.data import Rows
from textadv.measuring.accuracy.attacked_rows import Hit
from textadv.measuring.sections.radii import MinimumRadii
from textadv.values.plurals import some

COUNTED = (
    " Rows that the masking alarm, the curve or the search for the smallest radius broke inside the radius count as "
    "broken too."
)


@dataclass
class Beside:
    """position -> what broke the row; the first that did is named.

    A worst case is never better than anything that the run itself found: whatever broke a row inside the threat, and
    was verified, counts, be it an attack of the panel or not.
    """

    rows: Rows
    found: dict[int, str] = field(default_factory=dict)

    def saw(self, hits: Iterable[Hit], what: str) -> None:
        """Takes note of the rows that `what` broke, a search within the threat."""
        for hit in hits:
            if hit.prediction != self.rows.labels[hit.position]:
                self.found.setdefault(hit.position, what)

    def measured(self, smallest: MinimumRadii | None, positions: Sequence[int]) -> None:
        """Takes note of the rows whose smallest radius is no larger than the threat's.

        It looks at single passes, so where the panel looks at means of several it proves nothing of those.
        """
        if smallest is None:
            return
        place = {self.rows.ids[position]: position for position in positions}
        for row in smallest.radii:
            if row.id in place and row.radius is not None and row.radius <= smallest.radius:
                self.found.setdefault(place[row.id], "the search for the smallest radius")


def counted(broken_by: Sequence[str]) -> str:
    """That rows were broken by these, beside the panel; "" of none."""
    if not broken_by:
        return ""
    parts = ", ".join(f"{count} by {what}" for what, count in Counter(broken_by).items())
    return f"the worst case counts {some(len(broken_by), 'row')} that no attack of the panel broke: {parts}"
