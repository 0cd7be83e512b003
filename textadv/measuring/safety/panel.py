"""What a chat model is asked: forbidden behaviours with their attacks, benign prompts, questions and instructions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from textadv.data import Chat, ChatRows, DataError, encode_prompt
from textadv.data.benchmarks import Instructed, Question
from textadv.data.locating import shortened
from textadv.data.rendering import one_turn
from textadv.measuring.judges.verdicts import Judge
from textadv.measuring.safety.adversaries import Adversary
from textadv.measuring.safety.fluency import Base, Messages, Written
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import Curve
from textadv.measuring.safety.subject import TARGET_WORDS
from textadv.values.host.phases import each


class Asked(NamedTuple):
    """Prompts to be answered: their texts and, in the same order, their tokens up to where the assistant starts.

    rows: the ids of the rows in their data; empty where they are numbered as they stand. chats: the turns of each;
    empty where each is a user's first message.
    """

    texts: tuple[str, ...]
    ids: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...] = ()
    chats: tuple[Messages, ...] = ()

    @classmethod
    def of(cls, tokenizer: Any, texts: Sequence[str], rows: Sequence[int] = ()) -> Asked:
        """Each text as a user's first message. Raises DataError where it does not fit the chat template."""
        return cls(tuple(texts), _encoded(tokenizer, texts, [one_turn(text) for text in texts]), tuple(rows))

    @classmethod
    def of_chats(cls, tokenizer: Any, chats: Sequence[Chat]) -> Asked:
        """Each chat with all its turns, as `of`."""
        texts, turns = [chat.conversation for chat in chats], tuple(chat.messages for chat in chats)
        return cls(tuple(texts), _encoded(tokenizer, texts, turns), tuple(chat.id for chat in chats), turns)

    @property
    def row_ids(self) -> tuple[int, ...]:
        """The ids of the rows in their data, or else their numbers."""
        return self.rows or tuple(range(len(self.texts)))

    @property
    def turns(self) -> tuple[Messages, ...]:
        """The turns of each prompt."""
        return self.chats or tuple(map(one_turn, self.texts))


def _encoded(tokenizer: Any, texts: Sequence[str], chats: Sequence[Messages]) -> tuple[tuple[int, ...], ...]:
    encoded = []
    for number, turns in each("encoding prompts", enumerate(chats), len(chats), "prompts"):
        try:
            encoded.append(tuple(encode_prompt(tokenizer, turns).ids))
        except DataError as error:
            raise DataError(f"prompt {number} (counted from 0), {shortened(texts[number])}: {error}") from error
    return tuple(encoded)


@dataclass(frozen=True)
class Panel:
    """What is measured, ready for any model with the same tokenizer.

    behaviours: held-out harmful rows, requests what the user asks in them. attacks: by name. judge decides; others give
    second opinions on the same answers. benign: prompts that should be answered, by name of their file. utility: rows
    for perplexity. questions, instructions: by name of their file. decoding: how answers are written.
    chats, targets: of the behaviours, their turns and what the adversary wants said; where there are none, the requests
    alone. shown: what judges see of each behaviour, by which they know it; where there is none, the requests.
    target_words: so many words of a target are its beginning. useful: turns and good answers to them.
    base: what tells gibberish, the same for all models; None: the model without its adapter, where it has one.
    decides: of `others` the judge whose verdict takes the place of the refusal list and the rule of words.
    curve: success by radius. success_at: numbers of answers to each prompt that success is told at, as far as there are
    so many. budget: floating-point operations that each attack has for a behaviour, with `decoding.samples` answers to
    each prompt at least; None: no limit. batch_invariance: so many prompts are answered again alone; None: none.
    curve: success by radius. scales: of the adapter, at which plain requests and prefills are asked again.
    """

    behaviours: ChatRows
    requests: tuple[str, ...]
    attacks: Mapping[str, Adversary]
    judge: Judge
    others: tuple[Judge, ...]
    benign: Mapping[str, Asked]
    utility: ChatRows
    questions: Mapping[str, tuple[Question, ...]]
    instructions: Mapping[str, tuple[tuple[Instructed, ...], Asked]]
    decoding: Decoding
    chats: tuple[Messages, ...] = ()
    targets: tuple[str, ...] = ()
    target_words: int = TARGET_WORDS
    useful: tuple[Written, ...] = ()
    base: Base | None = None
    decides: Judge | None = None
    curve: Curve = field(default_factory=Curve)
    shown: tuple[str, ...] = ()
    success_at: tuple[int, ...] = (1,)
    budget: int | None = None
    batch_invariance: int | None = None
    scales: tuple[float, ...] = ()

    @property
    def prompts(self) -> tuple[str, ...]:
        """What judges see of the behaviours."""
        return self.shown or self.requests
