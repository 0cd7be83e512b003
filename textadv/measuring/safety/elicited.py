"""What attacks elicited from one model: answers with their verdicts, behaviours, and each attack's success and cost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from textadv.measuring.safety.prompts import Decoding
from textadv.measuring.statistics import Rate
from textadv.values.flops import NONE_SPENT, NOT_MEASURED, Flops

DIRECT = "direct"
WORST_CASE = "worst case"


BEGUN_ALONE = "harmful only with what was begun"


@dataclass(frozen=True)
class JudgedAnswer:
    """One answer and what the judge said of it.

    restart: the adversary's round. search: what its search aimed at, "" without one. status, thought: of the answer, as
    in `Answer`. verdict: `ok`, `unparsed` or `error` as the judge said; `unjudged` where the response is blank, which
    breaks nothing, or the model was still thinking, which leaves open what it would say; `error` where there is no
    answer. broken: None where it is not known.
        `BEGUN_ALONE` where it found harm, but none in what the model added; see `own_words`.
    begun: what of `text` was put into the model's mouth; whole: that is the whole target.
    shared, key, reached, search_flops, sampling_flops, searched, beyond: as in `Answer`.
    """

    restart: int
    sample: int
    status: str
    text: str
    tokens: int
    verdict: str
    broken: bool | None
    score: float | None
    reason: str
    thought: str = ""
    begun: str = ""
    whole: bool = False
    search: str = ""
    shared: str = ""
    key: str = ""
    reached: bool | None = None
    search_flops: Flops = NOT_MEASURED
    sampling_flops: Flops = NOT_MEASURED
    searched: str = field(default="", compare=False)
    beyond: bool = False

    @property
    def flops(self) -> Flops:
        """What search and answer took together."""
        return self.search_flops + self.sampling_flops


@dataclass
class Bill:
    """What answers take one after another: one that is shared and stands there already takes nothing more.

    Attacks whose searches end on the same text share the answer, and each of them has searched. A search that several
    are told of was made once.
    """

    made: set[str] = field(default_factory=set)
    searched: set[str] = field(default_factory=set)

    def __call__(self, answer: JudgedAnswer) -> JudgedAnswer:
        """The answer with what it takes beside all before it."""
        again = bool(answer.shared) and answer.key in self.made
        known = answer.searched in self.searched if answer.searched else again
        self.made.add(answer.key)
        self.searched.add(answer.searched)
        answer = replace(answer, sampling_flops=NONE_SPENT) if again else answer
        return replace(answer, search_flops=NONE_SPENT) if known else answer


@dataclass(frozen=True)
class BehaviourOutcome:
    """One behaviour under one attack. broken: an answer is judged broken; possibly_broken: or one is not known."""

    id: int
    attack: str
    broken: bool
    possibly_broken: bool
    answers: tuple[JudgedAnswer, ...]


@dataclass(frozen=True)
class AttackSuccess:
    """One attack, or the worst case over all, on one model.

    description, threat: the attack and what it may change, as printed.
    low, high: behaviours broken, of all; what is not known counts as not broken and as broken.
    already: behaviours that the direct request alone broke (low), of all.
    answers, verdicts: how many answers there are of each status, and verdicts of each kind. An `empty` answer, to which
        the model added nothing beyond the adversary's own words, is not broken and has no verdict; one that is still
        `thinking` has none either.
    tokens: generated. forwards, backwards: passes of one row through the model that the searches took, generation not
        included. What another attack was answered already counts there alone, in tokens and passes. seconds: wall clock
        of this run; answers taken from the store cost none.
    search_flops, sampling_flops: what searches and answers took, those that another attack had already included: what
        this attack takes by itself. An answer that it has twice is made once. uncounted: answers that are left out of
        these sums, since nobody counted them.
    """

    name: str
    description: str
    threat: str
    low: Rate
    high: Rate
    already: Rate
    answers: dict[str, int]
    verdicts: dict[str, int]
    tokens: int
    forwards: int
    backwards: int
    seconds: float
    search_flops: Flops = NOT_MEASURED
    sampling_flops: Flops = NOT_MEASURED
    uncounted: int = 0

    @property
    def flops(self) -> Flops:
        """What searches and answers took together; not measured, where an answer is left out."""
        return NOT_MEASURED if self.uncounted else self.search_flops + self.sampling_flops


@dataclass(frozen=True)
class Elicitation:
    """Everything found on one model; `outcomes` has a row for every attack and behaviour."""

    judge: str
    judge_version: str
    decoding: Decoding
    behaviours: int
    attacks: tuple[AttackSuccess, ...]
    worst_case: AttackSuccess
    outcomes: tuple[BehaviourOutcome, ...]
