"""Edits at random, without a model: typos as people make them, and texts cut into other tokens. Fast enough to be drawn
anew for every row of every step of training.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from textadv.attacks.edits.characters import KINDS, Kind, Letter
from textadv.attacks.edits.letters import WordList
from textadv.attacks.edits.passage import Passage
from textadv.data import EncodedRows, Examples
from textadv.data.retold import Row, Token
from textadv.models.pieces import Pieces
from textadv.values.randomness import derived_seed

Count = Literal["share", "up to"]


@dataclass(frozen=True)
class Typos:
    """Texts with a typo in some of their words. `Typos()(rows, step=7)` are the rows of step 7.

    share: of the words that get one, rounded, one at least. count: `share` always so many; `up to` draws, row by row, a
        share from 0 to that.
    kinds: of `Letter`, one drawn for each word. least: letters of the shortest word that gets one. keep: words that get
        none. inner: whether first and last letters stay.
    seed: what is drawn for a row is drawn from (seed, step, row id).

    Deviations: none from a paper; swaps, drops, additions and wrong keys of arXiv:1905.11268, drawn at random as in
    online augmentation.
    """

    share: float = 0.2
    count: Count = "up to"
    kinds: tuple[Kind, ...] = ("swap", "delete", "insert", "keyboard")
    least: int = 3
    keep: WordList | None = None
    inner: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1:
            raise ValueError(f"typos.share must be above 0 and at most 1, got {self.share}.")
        if self.count not in ("share", "up to"):
            raise ValueError(f"typos.count must be share or up to, got {self.count!r:.40}.")
        unknown = [kind for kind in self.kinds if kind not in KINDS]
        if unknown or not self.kinds:
            raise ValueError(f"typos.kinds must be of {', '.join(KINDS)}, got {self.kinds!r:.80}.")
        if self.least < 1:
            raise ValueError(f"typos.least must be at least 1 letter, got {self.least}.")

    def __call__(self, rows: Examples, *, step: int = 0) -> Examples:
        """The rows with typos in their first texts; labels and ids stay. A text without a word stays as it is."""
        return replace(
            rows, texts=tuple(self.text(text, step, row) for text, row in zip(rows.texts, rows.ids, strict=True))
        )

    def text(self, text: str, step: int, row: int) -> str:
        """The text of one row."""
        draw = Random(derived_seed(self.seed, step, row))
        passage = Passage.of(text)
        places = [n for n, word in enumerate(passage.original) if self._may(word)]
        if not places:
            return text
        share = self.share if self.count == "share" else self.share * draw.random()
        wanted = round(share * len(passage))
        pieces = list(passage.pieces)
        for place in draw.sample(places, min(len(places), max(1 if self.count == "share" else 0, wanted))):
            made = Letter(draw.choice(self.kinds), "one", self.inner).words(pieces[place], draw)
            pieces[place] = made[0] if made else pieces[place]
        return str(passage.with_pieces(tuple(pieces)))

    def attacks(self, label: int) -> bool:
        """Whether rows of this class are edited: all are."""
        return True

    def _may(self, word: str) -> bool:
        return len(word) >= self.least and (self.keep is None or word not in self.keep)


def typos(share: float = 0.2, *, seed: int = 0) -> Typos:
    """Up to `share` of the words with a typo of fingers: a swap, a letter less or more, a wrong key.

    Deviations: none from a paper; see `Typos`.
    """
    return Typos(share, seed=seed)


@dataclass(frozen=True)
class PlantedWords:
    """Texts with words planted at random places, from 1 to `inserts` of them: trained on under their own label they
    teach that such a word alone is no alarm.

    words: those that are drawn from, see `telling_words`. labels: the classes whose rows get them; None: all.
    seed: what is drawn for a row is drawn from (seed, step, row id).

    Deviations: none; it follows no paper.
    """

    words: tuple[str, ...]
    inserts: int = 3
    labels: tuple[int, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.words or self.inserts < 1:
            raise ValueError(
                f"planted_words needs a word and an insert or more, got {len(self.words)} and {self.inserts}."
            )

    def __repr__(self) -> str:
        # Words of the data, of which there may be hundreds, stand in no report.
        told = f"{len(self.words)} words, inserts={self.inserts}, labels={self.labels}, seed={self.seed}"
        return f"PlantedWords({told})"

    def __call__(self, rows: Examples, *, step: int = 0) -> Examples:
        """The rows with words planted into their first texts; labels and ids stay, and so do rows of other classes."""
        given = zip(rows.texts, rows.labels, rows.ids, strict=True)
        texts = (self.text(text, step, row) if self.attacks(label) else text for text, label, row in given)
        return replace(rows, texts=tuple(texts))

    def text(self, text: str, step: int, row: int) -> str:
        """The text of one row."""
        draw = Random(derived_seed(self.seed, step, row))
        for _ in range(draw.randint(1, self.inserts)):
            passage, word = Passage.of(text), draw.choice(self.words)
            place = draw.randint(0, len(passage))
            if not len(passage):
                text = f"{text}{word}"
            elif place == len(passage):
                text = str(passage.with_piece(place - 1, f"{passage.pieces[place - 1]} {word}"))
            else:
                text = str(passage.with_piece(place, f"{word} {passage.pieces[place]}"))
        return text

    def attacks(self, label: int) -> bool:
        """Whether rows of this class are edited."""
        return self.labels is None or label in self.labels


Drawn = Typos | PlantedWords
"""What edits texts at random, without a model."""


@dataclass(frozen=True)
class StochasticTokens:
    """The same texts in other tokens of the vocabulary, as far as there is room for them: a token is cut in two with
    probability `rate`, and so are its parts (BPE-dropout, arXiv:1910.13267, and subword regularisation,
    arXiv:1804.10959, have the purpose).

    seed: what is drawn for a row is drawn from (seed, step, row id).

    Deviations: tokens of the usual reading are cut, uniformly among the cuts that the vocabulary has, where BPE-dropout
    leaves out merges and subword regularisation samples by a language model: so it works with every tokenizer.
    """

    rate: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.rate <= 1:
            raise ValueError(f"stochastic_tokens.rate must be from 0 to 1, got {self.rate}.")

    def __call__(self, rows: EncodedRows, pieces: Pieces, max_length: int, *, step: int = 0) -> EncodedRows:
        """The rows in other tokens; labels and ids stay. Only editable tokens are cut. What is more than `max_length`
        tokens then is left out at the end that the tokenizer cuts texts at: of each text of a row what it grew by at
        most, the last text first. Rows in windows lose nothing, and get more of them where they need.

        pieces: `Pieces(tokenizer)` of the tokenizer that made the rows.
        """
        made = [self._row(rows, n, pieces, max_length, step) for n in range(len(rows))]
        features, editable = (tuple(part) for part in zip(*made, strict=True)) if made else ((), ())
        return replace(rows, features=features, editable=editable, spans=())

    def _row(
        self, rows: EncodedRows, n: int, pieces: Pieces, max_length: int, step: int
    ) -> tuple[dict[str, list[int]], list[bool]]:
        draw = Random(derived_seed(self.seed, step, rows.ids[n]))
        source = Row(rows, n)

        def cut(places: Sequence[int]) -> list[Token]:
            return [
                (place, token)
                for place in places
                for token in (self._cut(source.tokens[place], pieces, draw) if source.editable[place] else [])
                or [source.tokens[place]]
            ]

        left = pieces.tokenizer.truncation_side == "left"
        if rows.windows is None:
            return source.row(source.shortened(cut(range(len(source.tokens))), max_length, left))
        before, text, after = source.text(pieces.edges, rows.windows, left)
        return source.row(source.windowed(before, cut(text), after, rows.windows, left))

    def _cut(self, token: int, pieces: Pieces, draw: Random) -> list[int]:
        """The token, or what it is cut into."""
        cuts: Sequence[tuple[int, int]] = pieces.cuts(token) if draw.random() < self.rate else ()
        if not cuts:
            return [token]
        left, right = draw.choice(cuts)
        return [*self._cut(left, pieces, draw), *self._cut(right, pieces, draw)]
