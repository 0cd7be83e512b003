"""A row whose tokens are exchanged for others, laid out as `encode` would have: cut to its length, or in windows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from textadv.data.encoding import EncodedRows
from textadv.values.texts import Windows

Token = tuple[int, int]
"""The place of a row that a token comes from, -1 of padding, and the token."""


@dataclass(frozen=True)
class Row:
    """Row `n` as it was: its places are those that the tokens of a row laid out anew come from."""

    rows: EncodedRows
    n: int

    @property
    def tokens(self) -> list[int]:
        return self.rows.tokens[self.n]

    @property
    def editable(self) -> list[bool]:
        return self.rows.editable[self.n]

    def row(self, made: Sequence[Token]) -> tuple[dict[str, list[int]], list[bool]]:
        """The row of these tokens: what the model takes, and which of them are editable."""
        found = {
            name: [values[place] if place >= 0 else self.rows.pad[name] for place, _ in made]
            for name, values in self.rows.features[self.n].items()
        }
        return found | {"input_ids": [token for _, token in made]}, [
            place >= 0 and self.editable[place] for place, _ in made
        ]

    def shortened(self, made: Sequence[Token], most: int, left: bool) -> list[Token]:
        """At most `most` tokens: each run of editable ones loses what it grew by, the last run first."""
        over, out = len(made) - most, set[int]()
        for run in reversed(list(_runs([self.editable[place] for place, _ in made]))):
            grown = len(run) - len({made[at][0] for at in run})
            lost = max(0, min(over, grown))
            out |= set(run[:lost] if left else run[len(run) - lost :])
            over -= lost
        return [token for at, token in enumerate(made) if at not in out]

    def text(
        self, edges: tuple[int, int], windows: Windows, left: bool
    ) -> tuple[Sequence[int], list[int], Sequence[int]]:
        """Places of what the tokenizer adds before, of the whole text, each token once, and of what it adds after."""
        there = self.rows.features[self.n]["attention_mask"]
        starts = range(0, max(1, len(there)), windows.length)
        blocks = [[place for place in range(at, min(at + windows.length, len(there))) if there[place]] for at in starts]
        first, last = edges
        parts = [block[first : len(block) - last] for block in (reversed(blocks) if left else blocks)]
        text = parts[0] + [place for part in parts[1:] for place in part[windows.overlap :]]
        return blocks[0][:first], text, blocks[0][len(blocks[0]) - last :]

    def windowed(
        self, before: Sequence[int], text: Sequence[Token], after: Sequence[int], windows: Windows, left: bool
    ) -> list[Token]:
        """The tokens in windows, as `encode` lays them out. left: they go from the end of the text to its start."""
        room = windows.length - len(before) - len(after)
        step, size = room - windows.overlap, len(text)
        count = 1 + max(0, -(-(size - room) // step))
        spans = [
            (max(0, size - n * step - room), size - n * step) if left else (n * step, n * step + room)
            for n in range(count)
        ]
        made: list[Token] = []
        for n, (start, stop) in enumerate(spans):
            own = [*self._taken(before), *text[start:stop], *self._taken(after)]
            filled = count > 1 and (self.rows.padding_side == "left" or n + 1 < count)
            padding = [(-1, self.rows.pad["input_ids"])] * (windows.length - len(own) if filled else 0)
            made += [*padding, *own] if self.rows.padding_side == "left" else [*own, *padding]
        return made

    def _taken(self, places: Sequence[int]) -> list[Token]:
        return [(place, self.tokens[place]) for place in places]


def _runs(wanted: Sequence[bool]) -> Iterator[list[int]]:
    """Positions of each unbroken run of True."""
    for own, group in groupby(range(len(wanted)), key=wanted.__getitem__):
        if own:
            yield list(group)
