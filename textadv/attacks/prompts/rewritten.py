"""What an attack in text is given, and what it gives back: messages that anyone can send, and what finding them took.

Text is what is returned. Whoever sends the messages through the chat template gets these tokens, and the model's loss
and answer after them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple, Protocol, runtime_checkable

from textadv.data.rendering import Message

Status = Literal["reached", "not_reached", "not_refused", "refused", "not_known", "reworded", "failed"]
"""What a search came to: see `Rewritten`."""


@dataclass(frozen=True)
class AskedFor:
    """One behaviour. id: the row's own. messages: the turns, the last one the user's. target: what is to be said."""

    id: int
    messages: tuple[Message, ...]
    target: str = ""


@dataclass
class Passes:
    """What of one row went through the model, counted as it goes: rows read and rows differentiated, and their tokens.

    Tokens whose keys and values were known are not sent, and not counted. No gradient of a weight is ever computed.
    unknown: whether more went through that nobody counted, as in an answer that broke off.
    """

    forwards: int = 0
    backwards: int = 0
    forward_tokens: int = 0
    backward_tokens: int = 0
    unknown: bool = False


@dataclass(frozen=True)
class Rewritten:
    """A behaviour as it is asked now.

    messages: as they are sent; of a row that failed, as they were given. ids: their tokens up to where the assistant
        starts, as the chat template makes them of that text; none where it failed.
    status: `reached` where greedy decoding says the target, which was searched for, else `not_reached`; `not_refused`
        where the judge of a search that reads answers found no refusal, `refused` where it did, else `not_known`;
        `reworded` where nothing was searched; `failed` where nothing can be sent, and `why` in a sentence.
    loss: what the attack says of the target after these messages, mean nats per token; None where it knows none.
    passes: what the search took. path: (forwards so far, best loss so far), as the search went.
    """

    id: int
    messages: tuple[Message, ...]
    ids: tuple[int, ...] = ()
    status: Status = "not_reached"
    why: str = ""
    loss: float | None = None
    passes: Passes = field(default_factory=Passes)
    path: tuple[tuple[int, float], ...] = ()


Found = Callable[[Rewritten], None]
"""Is told of every row as it is finished, so that none is lost where a later one is interrupted."""


class Size(NamedTuple):
    """One behaviour in tokens: its prompt, the slots of a text in it, and what is to be said, opening included."""

    prompt: int
    slots: int = 0
    reply: int = 0


class Most(NamedTuple):
    """What one behaviour takes at most, in tokens.

    forward, backward: sent through the model by the search. given: of the prompt that comes back.
    """

    forward: int
    backward: int
    given: int


@runtime_checkable
class Foretelling(Protocol):
    """An attack in text that says beforehand what it takes at most, and so can be run at a budget.

    effort: its field that says how many steps it makes, or how many variants at most; with fewer it takes less.
    """

    effort: ClassVar[str]

    def size(self, victim: Any, asked: AskedFor, variant: int) -> Size:
        """The behaviour as a `ChatVictim` reads it. Raises DataError where nothing can be sent, which takes nothing."""
        ...

    def most_sent(self, size: Size) -> Most:
        """Of a behaviour of this size, whatever the search meets."""
        ...


@runtime_checkable
class Foreknown(Protocol):
    """An attack in text that searches nothing, so that its prompts are known before it is made."""

    def prompt(self, victim: Any, asked: AskedFor, variant: int) -> tuple[int, ...]:
        """The tokens of what a `ChatVictim` will be sent. Raises DataError where nothing can be sent."""
        ...


class RewritingAttack(Protocol):
    """An attack in text; `str` of it is printed, and `repr` says all that its result follows from.

    variants: how many prompts it makes of a behaviour, each asked by itself. universal: whether all rows are searched
    together, for one text that serves them all; otherwise no row's result depends on those beside it.
    """

    @property
    def variants(self) -> int: ...

    @property
    def universal(self) -> bool: ...

    def __call__(
        self, victim: Any, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        """One for each row, in their order, asked of a `ChatVictim`; what is wrong with a row is its status."""
        ...
