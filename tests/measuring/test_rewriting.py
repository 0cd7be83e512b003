"""Attacks in text as a way to ask: what they claim is measured again, what they found is kept, what failed says why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import pytest

from tests.attacks.prompts.suffixes import TARGET, victim
from textadv.attacks.prompts.best_of_n import BestOfN
from textadv.attacks.prompts.rewritten import AskedFor, Found, Passes, Rewritten
from textadv.attacks.prompts.victim import ChatVictim, failed, with_text
from textadv.attacks.prompts.worded import Worded
from textadv.data import Chat, encode_chats
from textadv.data.rendering import one_turn
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.ledger import read, rewrite
from textadv.measuring.safety.adversaries import behaviours_of
from textadv.measuring.safety.elicitation import Elicitation, elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.rewriting import Rewriting
from textadv.values.batch import Role
from textadv.values.flops import NONE_SPENT

TEXTS = ("Tell me a story", "How do I bake bread at home?", "Answer in one line.")
CHATS = tuple(
    Chat(tuple(one_turn(text)), {"harmful": TARGET, "safe": "Sorry."}, Role.ADVERSARIAL, 10 + row, "here")
    for row, text in enumerate(TEXTS)
)


@dataclass(frozen=True)
class Polite:
    """Adds a word; of row 11 it claims or gives what it is told to, and at row `stops` it is interrupted."""

    says: float | None = None
    word: str = " please"
    lies: bool = False
    rude: bool = False
    universal: bool = False
    variants: int = 1
    stops: int | None = field(default=None, repr=False)
    searched: list[int] = field(default_factory=list, repr=False, compare=False)

    def __str__(self) -> str:
        return "polite"

    def __call__(
        self, victim: ChatVictim, asked: Sequence[AskedFor], *, variant: int = 0, found: Found | None = None
    ) -> list[Rewritten]:
        ended = []
        for one in asked:
            if one.id == self.stops:
                raise KeyboardInterrupt
            self.searched.append(one.id)
            row = victim.measured(one, with_text(one.messages, self.word * (1 + variant)), Passes(5, 2, 50, 20))
            if one.id == 11:
                row = replace(row, loss=row.loss if self.says is None else self.says)
                row = replace(row, ids=(*row.ids, 5)) if self.lies else row
                row = failed(one, "it has no manners") if self.rude else row
            ended.append(row)
            if found is not None:
                found(row)
        return ended


def asked_with(attack: Polite, store: Path | None = None, key: str = "weights", judges: int = 1) -> Elicitation:
    one = victim()
    rows = encode_chats(CHATS, one.template, 200)
    decoding = Decoding(4, batch_size=2)
    requests = [chat.request for chat in CHATS]
    attacks = {"polite": Rewriting(attack, CHATS, one.template)}
    judge = REFUSAL_LISTS["declines"]
    for _ in range(judges):
        found = elicit(
            one.model, one.template.tokenizer, rows, requests, attacks, judge, decoding, store=store, key=key
        )
    return found


def lines(store: Path) -> list[dict[str, object]]:
    return [line["answer"] for line in read(store)[0] if line["answer"]["attack"] == "polite"]


def test_the_answers_tell_what_was_sent_and_what_it_took(tmp_path: Path) -> None:
    attack = Polite(variants=2)
    found = asked_with(attack, tmp_path / "answers" / "model.jsonl")
    told = lines(tmp_path / "answers" / "model.jsonl")
    sent = {(line["id"], line["restart"]): line["sent"] for line in told}
    assert sent == {
        (chat.id, variant): [{"role": "user", "content": chat.prompt + " please" * (1 + variant)}]
        for chat in CHATS
        for variant in range(2)
    }
    # The loss of what was found is measured once: of whole rows, in tokens.
    assert {line["forwards"] for line in told} == {6} and {line["backwards"] for line in told} == {2}
    assert all(line["forward_tokens"] > 50 and line["backward_tokens"] == 20 for line in told)
    direct, polite = found.attacks
    assert (polite.threat, polite.description) == ("text of the prompt", "polite")
    assert (polite.forwards, direct.forwards) == (36, 0) and polite.answers.get("error") is None


def test_what_was_found_is_not_searched_again(tmp_path: Path) -> None:
    store = tmp_path / "answers" / "model.jsonl"
    with pytest.raises(KeyboardInterrupt):
        asked_with(Polite(stops=12), store)
    assert not lines(store), "it was interrupted in its search, before anything was answered"
    again = Polite()
    found = asked_with(again, store)
    assert again.searched == [12]
    assert found.outcomes == asked_with(Polite()).outcomes
    others = Polite()
    asked_with(others, store, key="other weights")
    assert others.searched == [10, 11, 12]
    changed = Polite(word=" please!")
    asked_with(changed, store)
    assert changed.searched == [10, 11, 12]


def test_a_kept_row_that_is_no_more_as_it_was_said_is_searched_again(tmp_path: Path) -> None:
    """An error of it would stay: whatever it was found on, another machine or library, is not there any more."""
    store = tmp_path / "answers" / "model.jsonl"
    first = asked_with(Polite(), store)
    kept = store.parent / "rewritten" / "model.jsonl"
    told = read(kept)[0]
    stale = [line for line in told if line["rewritten"]["id"] == 11]
    stale[0]["rewritten"]["loss"] += 1
    rewrite(kept, told)
    again, last = Polite(), Polite()
    found = asked_with(again, store, judges=2)
    assert again.searched == [11] and found.outcomes == first.outcomes
    asked_with(last, store)
    assert last.searched == []


def test_a_row_that_was_said_wrongly_is_searched_again_by_the_next_evaluation_alone(tmp_path: Path) -> None:
    store = tmp_path / "answers" / "model.jsonl"
    first, second = Polite(says=0.001), Polite(says=0.001)
    asked_with(first, store, judges=2)
    asked_with(second, store, judges=2)
    assert first.searched == [10, 11, 12] and second.searched == [11]


def test_a_text_for_all_rows_is_searched_for_all_again(tmp_path: Path) -> None:
    store = tmp_path / "answers" / "model.jsonl"
    with pytest.raises(KeyboardInterrupt):
        asked_with(Polite(universal=True, stops=12), store)
    again, last = Polite(universal=True), Polite(universal=True)
    asked_with(again, store)
    asked_with(last, store)
    assert again.searched == [10, 11, 12] and last.searched == []


@pytest.mark.parametrize(
    ("attack", "why"),
    [
        (Polite(says=0.001), "the attack said a loss of 0.001 and the text has one of"),
        (Polite(lies=True), "the text that the attack gave back has other tokens than those that it gave back"),
        (Polite(rude=True), "it has no manners"),
    ],
)
def test_what_is_not_as_it_was_claimed_is_an_error_of_its_row(attack: Polite, why: str) -> None:
    found = asked_with(attack)
    answers = [answer for outcome in found.outcomes if outcome.attack == "polite" for answer in outcome.answers]
    assert [answer.status == "error" for answer in answers] == [False, True, False]
    assert why in answers[1].reason and answers[1].verdict == "error"


def test_of_a_row_that_cannot_be_sent_it_is_known_that_no_answer_was_written() -> None:
    """Otherwise what the attack takes would be unknown for the one row that it has nothing for."""
    found = asked_with(Polite(rude=True))
    lost = next(one for one in found.outcomes if (one.attack, one.id) == ("polite", 11)).answers[0]
    assert (lost.status, lost.sampling_flops) == ("error", NONE_SPENT)
    took = next(one for one in found.attacks if one.name == "polite")
    assert took.uncounted == 0 and took.flops.total is not None


def test_an_attack_without_a_search_reaches_nothing() -> None:
    """Other words for a request can always be sent: a refusal of them is none that a search was led to."""
    one = victim()
    words = Rewriting(Worded(BestOfN(2, 0.4)), CHATS, one.template)
    rows = encode_chats(CHATS, one.template, 200)
    given = [prompt for each in words.rounds(one.model, rows, behaviours_of(rows)) for prompt in each.prompts]
    assert [(prompt.reached, prompt.search, prompt.failed) for prompt in given] == [(None, "reworded", "")] * 6
    polite = Rewriting(Polite(), CHATS, one.template).rounds(one.model, rows, behaviours_of(rows))
    assert {prompt.reached for each in polite for prompt in each.prompts} <= {True, False}


def test_a_row_that_failed_has_a_line_that_says_why_and_is_tried_again(tmp_path: Path) -> None:
    store = tmp_path / "answers" / "model.jsonl"
    for _ in range(2):
        again = Polite(rude=True, variants=2)
        asked_with(again, store)
        told = {(line["id"], line["restart"]): (line["status"], line.get("reason")) for line in lines(store)}
        assert len(told) == len(lines(store)) == 6
        assert {told[11, 0], told[11, 1]} == {("error", "it has no manners")}
        spent = [line["sampling_flops"] for line in lines(store) if line["status"] == "error"]
        assert spent == 2 * [asdict(NONE_SPENT)], "nothing was answered, and that is known"
        assert not any(line.get("sent") for line in lines(store) if line["status"] == "error")
        assert "error" not in {told[row, variant][0] for row in (10, 12) for variant in range(2)}
    assert again.searched == [11, 11]


@pytest.mark.parametrize("universal", [False, True])
def test_a_row_that_failed_is_not_searched_again_for_another_judge(universal: bool, tmp_path: Path) -> None:
    attack = Polite(rude=True, universal=universal)
    asked_with(attack, tmp_path / "answers" / "model.jsonl", judges=3)
    assert attack.searched == [10, 11, 12]


def test_a_text_for_all_rows_that_is_none_for_one_is_not_searched_again(tmp_path: Path) -> None:
    store = tmp_path / "answers" / "model.jsonl"
    first = asked_with(Polite(rude=True, universal=True), store)
    again = Polite(rude=True, universal=True)
    assert asked_with(again, store).outcomes == first.outcomes
    assert again.searched == []
