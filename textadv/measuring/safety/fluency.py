"""How likely the base model, which training started from, finds an answer: what tells fluent text from gibberish.

One base model reads the answers of every model of a comparison, by its own tokenizer and chat template, so that none is
its own measure. Of a model with an adapter the base is what remains when the adapter is switched off.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import takewhile
from typing import Any, NamedTuple

from torch import nn

from textadv.data import DataError
from textadv.data.chat_template import encode_opening, encode_prompt
from textadv.data.rendering import Template
from textadv.measuring.capability.likelihood import AnswerNLL, Pair, answer_nll
from textadv.measuring.safety.degenerate import nll_limit
from textadv.models import ModelError, as_reference
from textadv.models.decoding import context_length
from textadv.values.errors import NonFiniteError
from textadv.values.host.phases import within

Messages = Sequence[Mapping[str, Any]]
NOT_LOOKED_FOR = (
    "gibberish not looked for: no base model is known that could tell it; name the model that training started from in "
    "evaluation.base_model"
)

NOT_SCORED = (
    "gibberish not looked for: the base model could score none of the good answers that say what fluent text costs; "
    "set evaluation.base_model to a model whose chat template takes their turns and whose positions hold them"
)


class Written(NamedTuple):
    """An answer to score: the turns before it, what was put into the model's mouth, and what it added."""

    asked: Messages
    begun: str
    own: str


@dataclass(frozen=True, eq=False)
class Base:
    """A model that scores the answers of others.

    name: what reports call it. template: of its own tokenizer. adapted: it is the measured model itself, whose adapter
    is switched off meanwhile.
    """

    name: str
    model: nn.Module
    template: Template
    adapted: bool = False

    def nll(self, written: Sequence[Written], leave: int = 0) -> list[float]:
        """Nats per token of each answer's own part, given all that stands before it.

        leave: so many of its first tokens are read and not scored. nan where none is left, the prompt fits neither
        this model's chat template nor its positions, or the model itself says so; infinite where it does. An answer
        that is longer than the model's positions is scored as far as it fits.
        """
        before: dict[str, list[int]] = {}
        pairs = []
        for row in written:
            key = json.dumps([*map(dict, row.asked)], sort_keys=True)
            if key not in before:
                before[key] = self._before(row.asked)
            pairs.append(self._pair(before[key], row, leave))
        return self.of_tokens(pairs)

    def of_tokens(self, pairs: Sequence[Pair]) -> list[float]:
        """The same of (what stands before, answer) as tokens of this model's own tokenizer; nan where one is empty."""
        limit = context_length(self.model)
        fitting = (
            (before, answer if limit is None else answer[: max(limit - len(before), 0)]) for before, answer in pairs
        )
        scored = {place: pair for place, pair in enumerate(fitting) if len(pair[0]) and len(pair[1])}
        with self._reading(), within("base model"):
            said = self._likelihoods(list(scored.values())) if scored else []
        found = {place: row.nll / row.tokens for place, row in zip(scored, said, strict=True)}
        return [found.get(place, math.nan) for place in range(len(pairs))]

    def _likelihoods(self, pairs: list[Pair]) -> list[AnswerNLL]:
        try:
            return answer_nll(self.model, pairs)
        except NonFiniteError:
            return answer_nll(self.model, pairs, finite=False)

    @property
    def blind(self) -> float:
        """Nats per token of tokens drawn blindly from the vocabulary: no limit of gibberish is above it."""
        return math.log(len(self.template.tokenizer))

    def unread(self, useful: Sequence[Written]) -> tuple[int, str]:
        """How many of these answers cannot be scored, for their turns or their length, and why the first cannot."""
        count, reason = 0, ""
        limit = context_length(self.model)
        for row in useful:
            try:
                before = self._opened(row.asked)
                told = "" if limit is None or len(before) < limit else f"{len(before)} tokens, {limit} positions"
            except DataError as error:
                told = str(error)
            if told:
                count, reason = count + 1, reason or told
        return count, reason

    def _before(self, asked: Messages) -> list[int]:
        """The tokens up to where an answer begins; none where the chat template does not take these turns."""
        try:
            return self._opened(asked)
        except DataError:
            return []

    def _opened(self, asked: Messages) -> list[int]:
        prompt = encode_prompt(self.template, asked)
        return [*prompt.ids, *encode_opening(self.template, asked, prompt)]

    def _pair(self, before: list[int], row: Written, leave: int) -> tuple[list[int], list[int]]:
        begun, whole = self._tokens(row.begun), self._tokens(row.begun + row.own)
        same = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(begun, whole, strict=False)))
        kept = same + leave
        return ([*before, *whole[:kept]], whole[kept:]) if before else ([], [])

    def _tokens(self, text: str) -> list[int]:
        return list(self.template.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) if text else []

    @contextmanager
    def _reading(self) -> Iterator[None]:
        if not self.adapted:
            yield
            return
        with as_reference(self.model):
            yield


def own_base(model: nn.Module, template: Template) -> Base | None:
    """The model without its adapter; None where it has none."""
    try:
        with as_reference(model):
            pass
    except ModelError:
        return None
    return Base("the model without its adapter", model, template, adapted=True)


def reference_limit(base: Base, useful: Sequence[Written], pairs: Sequence[Pair], leave: int = 0) -> float | None:
    """From how many nats per token on an answer is gibberish, by good answers of others: see `nll_limit`.

    useful: such answers as texts; where there are none, `pairs` of this base's own tokens. leave: as in `Base.nll`;
    where none of the answers is longer than that, they are scored whole. Never more than `Base.blind`; None where the
    base can score none of them.
    """
    if useful:
        values = base.nll(useful, leave)
    else:
        values = base.of_tokens([([*before, *answer[:leave]], answer[leave:]) for before, answer in pairs])
    if any(map(math.isfinite, values)):
        # Whatever else scores in the place of a base has no vocabulary.
        return min(nll_limit(values), base.blind if isinstance(base, Base) else math.inf)
    return reference_limit(base, useful, pairs) if leave else None


def said_nll(
    base: Base, turns: Mapping[str, Messages], prompts: Sequence[str], responses: Sequence[str]
) -> list[float]:
    """Nats per token of whole responses. turns: of the chats, by the text of each."""
    return base.nll([Written(turns[prompt], "", own) for prompt, own in zip(prompts, responses, strict=True)])
