"""What a model said to each prompt, in a ledger: a line per answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

from torch import nn

from textadv.measuring.ledger import Files, keep
from textadv.values.flops import NOT_MEASURED, Flops
from textadv.values.host.writing import made
from textadv.values.processes import in_step, rank

Status = Literal["ok", "truncated", "thinking", "empty", "error"]


@dataclass(frozen=True)
class Answer:
    """What the model said to one prompt.

    status: `ok` where it ended by itself, `truncated` where it did not, `thinking` where it was cut off before an
        answer followed its thought, `empty` where it added nothing but white space or ended with its thought, `error`
        where it could not be made; `reason` then says why.
    text: the prefill and what the model added, without special tokens and thoughts. tokens: how many it added, the
        ending one and those of thoughts included. attack: the name of what was done to the prompt.
    forwards, backwards: passes that finding the perturbation took, counted with the first sample.
    thought: what the model thought, without the marks; see `thoughts.Speech`.
    search: what the search for the prompt's perturbation aimed at, in words; "" without one.
    restart: which of the attack's rounds asked; None: not told, by a version that did not keep it.
    sent: the messages that were sent, where an attack in text wrote others than were asked.
    forward_tokens, backward_tokens: what finding the prompt sent through, counted as passes are; None: not measured.
    shared: the attack whose answer this is, where another one asked the same of the same weights before; its passes are
        counted there. The attack itself, where an earlier round of it asked the same.
    key: what the answer is kept under, see `content_key`.
    reached: whether the search got where it aimed: the target (its first tokens, where the search looks at these
        alone), its end of turn left out, is what the model says greedily and at once under the perturbation, after what
        its template writes before answers, which it has to say as well. None where nothing was searched, or it aims
        elsewhere.
    search_flops: what finding the perturbation took, counted with the first sample. sampling_flops: what writing this
        answer took, prompt and answer. Of an answer that another attack has already they are what it would have taken
        here as well; of one that an earlier round of the same attack has, nothing.
    searched: see `Prompt`; kept in no line.
    beyond: whether it could be made because those before it were shorter than they might have been; kept in no line.
    """

    id: int
    sample: int
    status: Status
    text: str
    tokens: int
    attack: str = ""
    forwards: int = 0
    backwards: int = 0
    reason: str = ""
    thought: str = ""
    search: str = ""
    restart: int | None = 0
    shared: str = ""
    sent: tuple[Mapping[str, str], ...] = ()
    forward_tokens: int | None = None
    backward_tokens: int | None = None
    key: str = field(default="", compare=False)
    reached: bool | None = None
    search_flops: Flops = NOT_MEASURED
    sampling_flops: Flops = NOT_MEASURED
    searched: str = field(default="", compare=False)
    beyond: bool = False

    def __post_init__(self) -> None:
        # Read back it is a list.
        object.__setattr__(self, "sent", tuple(self.sent))
        for name in ("search_flops", "sampling_flops"):
            # As a line holds them.
            if isinstance(kept := vars(self)[name], dict):
                object.__setattr__(self, name, Flops(**kept))

    @property
    def flops(self) -> Flops:
        """What search and answer took together."""
        return self.search_flops + self.sampling_flops

    def under(self, attack: str, restart: int) -> Answer:
        """The answer as this round of this attack got it: without passes, where another one's made it."""
        if self.attack == attack and self.restart in (restart, None):
            return replace(self, restart=restart)
        free: dict[str, Any] = {name: 0 for name in PASSES if vars(self)[name] is not None}
        return replace(self, attack=attack, restart=restart, shared=self.shared or self.attack, sent=(), **free)


PASSES = ("forwards", "backwards", "forward_tokens", "backward_tokens")
"""What finding the prompt of an answer took."""
UNTOLD = ("sent", "forward_tokens", "backward_tokens", "reached", "search_flops", "sampling_flops")
"""What a line leaves out where it is not known."""
_UNKEPT = {"key", "searched", "beyond"}
_FIELDS = {field.name for field in fields(Answer)} - _UNKEPT
_ALWAYS = {"id", "sample", "status", "text", "tokens", "attack"}


class Line(NamedTuple):
    """Under what a line of a model's file stands."""

    key: str
    attack: str
    restart: int | None


@dataclass
class Store:
    """Finished answers by content key; `path` is where this process appends, None for nowhere.

    told: the keys, attacks and restarts that lines tell of.
    """

    path: Path | None
    known: dict[str, Answer] = field(default_factory=dict)
    told: set[Line] = field(default_factory=set)

    def add(self, found: Mapping[str, Answer]) -> None:
        """Keeps these answers, on the disk. One that failed is kept until the end of the run, not in the file.

        Raises WriteError where the system refuses.
        """
        self.known |= found
        self._keep([answer for answer in found.values() if answer.status != "error"])

    def unasked(self, found: Mapping[str, Answer]) -> None:
        """Keeps errors that say why there was nothing to ask: a line each, which is read as no answer.

        Raises WriteError where the system refuses.
        """
        self.known |= found
        fresh = [answer for answer in found.values() if not self._tells(answer)]
        self._keep(fresh)
        self.told |= set(map(line_of_answer, fresh))

    def share(self, found: Iterable[Answer]) -> None:
        """Keeps a line for each answer that was made for another attack, where there is none yet; one process does.

        Every process gives the same. Raises WriteError where the system refuses.
        """
        fresh = [answer for answer in found if answer.shared and answer.status != "error" and not self._tells(answer)]
        if rank() == 0:
            self._keep(fresh)
        self.told |= set(map(line_of_answer, fresh))

    def _tells(self, answer: Answer) -> bool:
        return line_of_answer(answer) in self.told or line_of_answer(replace(answer, restart=None)) in self.told

    def _keep(self, found: Iterable[Answer]) -> None:
        if self.path is not None:
            keep(self.path, [{"key": answer.key, "answer": as_told(answer)} for answer in found])


def line_of_answer(answer: Answer) -> Line:
    """What tells its line from all others of a model."""
    return Line(answer.key, answer.attack, answer.restart)


def as_told(answer: Answer) -> dict[str, Any]:
    """The answer as its line holds it, beside its key; what is not known of a search and its cost is left out."""
    unknown = {name for name in UNTOLD if vars(answer)[name] in (None, (), NOT_MEASURED)}
    return {name: value for name, value in asdict(answer).items() if name not in _UNKEPT | unknown}


def opened(path: Path | None, model: nn.Module) -> Store:
    """What is in the file and those beside it, on every process, whichever of them can see the files.

    Lines that are not as they were written, or of another version, count for nothing: their answers are made again.
    """
    if path is None:
        return Store(None)
    made(path.parent)
    files = files_of(path)
    lines = (told for lines in files.read_back(fits) for told in lines)
    found = [answer for told in lines if (answer := answer_of(told)) is not None]
    # What was shared stands or falls with the answer that was made: its line alone has the passes.
    known = {answer.key: answer for answer in found if not answer.shared and answer.status != "error"}
    # Processes that are in step make the same answers, so one of them writes.
    return Store(None if rank() and in_step(model) else files.own, known, set(map(line_of_answer, found)))


def fits(path: Path, told: Mapping[str, Any]) -> bool:
    """Whether a line tells of an answer as this version keeps them."""
    answer = told.get("answer")
    return isinstance(told.get("key"), str) and isinstance(answer, dict) and _ALWAYS <= set(answer) <= _FIELDS


def answer_of(told: Mapping[str, Any]) -> Answer | None:
    """The answer that a line holds; None where another version wrote it, which knew another kind of answer."""
    answer = told.get("answer")
    try:
        if not isinstance(told.get("key"), str) or not isinstance(answer, dict):
            return None
        known: dict[str, Any] = {"restart": None, **answer}
        return Answer(**known, key=told["key"])
    except TypeError:
        return None


def files_of(path: Path) -> Files:
    """A store's file and those that other processes write beside it."""
    return Files(path, f"{path.stem}-{{}}{path.suffix}")
