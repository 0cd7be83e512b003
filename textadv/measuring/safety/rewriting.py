"""Attacks in text on a chat model: they rewrite what it is asked, and what they say of the result is measured again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

from torch import nn

from textadv.attacks.prompts.rewritten import (
    AskedFor,
    Foreknown,
    Foretelling,
    Passes,
    RewritingAttack,
    Rewritten,
    Size,
)
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data import Chat, Rows
from textadv.data.rendering import Template
from textadv.measuring.ledger import Files, keep
from textadv.measuring.safety.adversaries import Behaviour, Round, Try
from textadv.measuring.safety.generate import Prompt
from textadv.models import counted_parameters
from textadv.values.digests import digest
from textadv.values.errors import DataError
from textadv.values.flops import NOT_MEASURED, Flops
from textadv.values.host.phases import phase
from textadv.values.host.writing import made
from textadv.values.processes import from_shares, in_step, of_the_first, own_share, rank

FOLDER = "rewritten"
CLAIMS = "a target said at once, without what closes an answer"
"""What rows that are kept were searched for: those that an earlier version searched for otherwise are not taken."""
CLAIM_TOLERANCE = 0.02
"""What a loss that is measured again may differ by, in nats per token: batches of other sizes round otherwise."""


@dataclass(frozen=True, eq=False)
class Rewriting:
    """An attack in text as a way to ask; each of its variants is a round.

    chats: the behaviours' turns and targets, in the order of the rows. max_length: see `ChatVictim`. store, key: the
    file where answers go, and what names the weights; with them found rows are kept beside it, and not searched again.
    drawn: whether its variants are drawn alike, see `Drawn`. sizes: of rows, by id and variant; None of one of which
    nothing can be sent, or nothing but what an earlier variant sends. worded: the tokens of prompts that are known
    beforehand, alike. lost: rows that failed, which another judge is not to have searched again: what an endpoint
    writes then would be another prompt, and of what was said wrongly just now another search would say the same.

    What the attack says is not believed. The tokens are made of its text again, and the loss is measured again: where
    it is another one, the row is an error, and one that was kept is searched again. A row of which nothing can be sent
    is an error too, that says why.
    """

    attack: RewritingAttack
    chats: Sequence[Chat]
    template: Template
    max_length: int | None = None
    store: Path | None = None
    key: str = ""
    threat: str = "text of the prompt"
    drawn: bool = False
    lost: dict[str, Rewritten] = field(default_factory=dict, repr=False)
    sizes: dict[tuple[int, int], Size | None] = field(default_factory=dict, repr=False)
    worded: dict[tuple[int, int], tuple[int, ...]] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return str(self.attack)

    def keeping(self, store: Path | None, key: str) -> Rewriting:
        """The same, with what it finds kept beside these answers."""
        return replace(self, store=store, key=key)

    def rounds(self, model: nn.Module, rows: Rows, behaviours: Sequence[Behaviour]) -> Iterator[Round]:
        """One round for each variant. Raises ValueError where the chats are not the evaluated behaviours."""
        asked = self._asked
        if [row.id for row in asked] != list(rows.ids):
            raise ValueError("The chats of an attack in text must be the evaluated behaviours, in the same order.")
        victim = ChatVictim(model, self.template, self.max_length)
        for variant in range(self.attack.variants):
            keys = {row.id: self._key(asked if self.attack.universal else [row], row, variant) for row in asked}
            found = self._found(victim, asked, variant, keys)
            yield Round([_prompt(victim, found[row.id], keys[row.id]) for row in asked])

    @property
    def _asked(self) -> list[AskedFor]:
        return [AskedFor(chat.id, chat.messages, chat.answers["harmful"]) for chat in self.chats]

    def tries(self, model: nn.Module, behaviours: Sequence[Behaviour]) -> list[list[Try | None]] | None:
        """A round for each variant; None where the attack does not foretell what it takes. See `Bounded`."""
        if not isinstance(self.attack, Foretelling):
            return None
        victim, asked = ChatVictim(model, self.template, self.max_length), {row.id: row for row in self._asked}
        parameters, rounds = counted_parameters(model), []
        for variant in range(self.attack.variants):
            sizes = [self._size(victim, asked[row.id], variant) for row in behaviours]
            rounds.append([None if size is None else self._try(parameters, size) for size in sizes])
        return rounds

    def _try(self, parameters: int, size: Size) -> Try:
        assert isinstance(self.attack, Foretelling)
        most = self.attack.most_sent(size)
        spent = Flops.of(parameters, forward=most.forward, activation_backward=most.backward)
        return Try(spent.total or 0, most.given)

    def _size(self, victim: ChatVictim, row: AskedFor, variant: int) -> Size | None:
        """What is known of a row before it is searched; looked up once, whatever the steps of the attack."""
        assert isinstance(self.attack, Foretelling)
        if (row.id, variant) not in self.sizes:
            try:
                again = self._again(victim, row, variant)
                self.sizes[row.id, variant] = None if again else self.attack.size(victim, row, variant)
            except DataError:
                self.sizes[row.id, variant] = None
        return self.sizes[row.id, variant]

    def _again(self, victim: ChatVictim, row: AskedFor, variant: int) -> bool:
        """Whether an earlier variant sends the same, where that is known. Raises DataError where nothing is sent."""
        if not isinstance(self.attack, Foreknown):
            return False
        own = self.worded[row.id, variant] = self.attack.prompt(victim, row, variant)
        return any(self.worded.get((row.id, earlier)) == own for earlier in range(variant))

    @property
    def effort(self) -> int:
        """Steps of the attack, or its variants; see `Reducible`."""
        own = vars(self.attack)[self.attack.effort] if isinstance(self.attack, Foretelling) else None
        return self.attack.variants if own is None else int(own)

    def reduced(self, effort: int) -> Rewriting:
        """The same with less effort, where the attack foretells what it then takes."""
        if not isinstance(self.attack, Foretelling):
            return self
        changed: Any = replace(self.attack, **{self.attack.effort: effort})  # type: ignore[type-var]
        return replace(self, attack=changed)

    def _found(
        self, victim: ChatVictim, asked: Sequence[AskedFor], variant: int, keys: Mapping[int, str]
    ) -> dict[int, Checked]:
        """Every row rewritten, by id, on every process: those that were kept, and the others searched now.

        keys: what each is kept under, by id.
        """
        files = self._files()
        known = {} if files is None else self._standing(victim, asked, keys, _kept(files))
        missing = [row for row in asked if row.id not in known]
        if missing and self.attack.universal:
            missing = list(asked)
        mine = missing if self.attack.universal else own_share(missing, victim.model)
        with phase("rewriting prompts", len(mine), "prompts") as advance:
            # Processes that search the same rows leave it to one of them to write.
            writes = files is not None and not (rank() and (self.attack.universal or in_step(victim.model)))

            def one(row: Rewritten) -> None:
                if files is not None and writes and row.status != "failed":
                    keep(files.own, [{"key": keys[row.id], "rewritten": asdict(row)}])
                advance(1)

            made_now = self.attack(victim, mine, variant=variant, found=one) if mine else []
        shared = of_the_first(made_now) if self.attack.universal else from_shares(made_now, victim.model)
        lost = {keys[row.id]: row for row in shared if row.status == "failed"}
        plain = {row.id: row for row in asked}
        fresh = {row.id: _checked(victim, plain[row.id], row) for row in shared}
        if files is not None and self.key:
            self.lost.update({keys[number]: one.row for number, one in fresh.items() if one.why} | lost)
        if files is not None and writes and self.attack.universal and len(lost) < len(shared):
            # Of a search that came to its end: without them all rows would be searched again.
            keep(files.own, [{"key": key, "rewritten": asdict(row)} for key, row in lost.items()])
        return known | fresh

    def _standing(
        self,
        victim: ChatVictim,
        asked: Sequence[AskedFor],
        keys: Mapping[int, str],
        kept: Mapping[str, list[Rewritten]],
    ) -> dict[int, Checked]:
        """Rows that are not searched again, by id: lost ones, and of those that were kept the newest that still holds.

        In a distributed run every process must call it: the first one's rounding decides.
        """
        found: dict[int, Checked] = {}
        for row in asked:
            lost = self.lost.get(keys[row.id])
            if lost is not None:
                found[row.id] = _checked(victim, row, lost)
                continue
            checked = (_checked(victim, row, one) for one in reversed(kept.get(keys[row.id], [])))
            held = next((one for one in checked if not one.why or one.row.status == "failed"), None)
            if held is not None:
                found[row.id] = held
        return of_the_first(found)

    def _files(self) -> Files | None:
        if self.store is None:
            return None
        folder = self.store.parent / FOLDER
        made(folder)
        return Files(folder / self.store.name, f"{self.store.stem}-{{}}{self.store.suffix}")

    def _key(self, together: Sequence[AskedFor], row: AskedFor, variant: int) -> str:
        """A hash of all that a rewritten row follows from."""
        plain = [[one.id, [dict(message) for message in one.messages], one.target] for one in together]
        template = [str(self.template.tokenizer.chat_template), dict(self.template.variables), self.template.think]
        told = [self.key, repr(self.attack), variant, self.max_length, template, plain, row.id, CLAIMS]
        return digest([json.dumps(told, default=str).encode()])


class Checked(NamedTuple):
    """A row as the attack gave it back, and why it is an error; "" where it is as the attack said."""

    row: Rewritten
    why: str


def _checked(victim: ChatVictim, asked: AskedFor, row: Rewritten) -> Checked:
    return Checked(row, row.why or _doubt(victim, asked, row))


def _prompt(victim: ChatVictim, found: Checked, searched: str) -> Prompt:
    """What is answered: the tokens of the text as the template makes them, and what finding it took."""
    row, why = found
    spent = row.passes
    return Prompt(
        row.id,
        row.ids,
        forwards=spent.forwards,
        backwards=spent.backwards,
        forward_tokens=None if spent.unknown else spent.forward_tokens,
        backward_tokens=None if spent.unknown else spent.backward_tokens,
        sent=row.messages,
        search=row.status,
        searched=searched,
        flops=_flops(victim, row),
        reached=_reached(row),
        failed=why,
        origin=f"failed: {why}" if why else "",
    )


def _reached(row: Rewritten) -> bool | None:
    """Whether the search came where it wanted to; None where nothing was searched for, so that no loss is known."""
    return None if row.status == "failed" or row.loss is None else row.status == "reached"


def _flops(victim: ChatVictim, row: Rewritten) -> Flops:
    """What finding the row took, by the tokens that it sent through; an attack differentiates no weight."""
    spent, parameters = row.passes, counted_parameters(victim.model)
    if spent.unknown:
        return NOT_MEASURED
    return Flops.of(parameters, forward=spent.forward_tokens, activation_backward=spent.backward_tokens)


def _doubt(victim: ChatVictim, asked: AskedFor, row: Rewritten) -> str:
    """Why what an attack said of a row is not so; "" where it is."""
    try:
        ids = victim.encoded(row.messages)
        if ids != row.ids:
            return "the text that the attack gave back has other tokens than those that it gave back"
        if row.loss is None:
            return ""
        loss = float(victim.losses([ids], [victim.reply(row.messages, asked.target)])[0])
    except DataError as error:
        return str(error)
    if not abs(loss - row.loss) <= CLAIM_TOLERANCE * max(1.0, abs(loss)):
        return f"the attack said a loss of {row.loss:.4g} and the text has one of {loss:.4g}"
    return ""


def _kept(files: Files) -> dict[str, list[Rewritten]]:
    """What was found before, by key; of each process the oldest first."""
    found: dict[str, list[Rewritten]] = {}
    for told in (told for lines in files.read_back() for told in lines):
        key, row = told.get("key"), _read(told.get("rewritten"))
        if isinstance(key, str) and row is not None:
            found.setdefault(key, []).append(row)
    return found


def _read(told: Any) -> Rewritten | None:
    """A kept row; None where another version wrote it."""
    if not isinstance(told, Mapping):
        return None
    try:
        passes = Passes(**told["passes"])
        path = tuple((int(at), float(loss)) for at, loss in told["path"])
        return Rewritten(
            **{**told, "messages": tuple(told["messages"]), "ids": tuple(told["ids"]), "passes": passes, "path": path}
        )
    except (KeyError, TypeError, ValueError):
        return None
