"""Chats that share their last message and differ before it are different behaviours, and are asked with all turns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from tests.measuring.test_answer_book import lines_of
from tests.measuring.test_chat import END, POSITIONS, TOKENIZER, Scripted, evaluated, likely, panel
from textadv.data import Chat, encode_chats, find_contamination
from textadv.data.rendering import Message
from textadv.measuring.judges.target_judge import TargetJudge
from textadv.measuring.judges.verdicts import DECLINES
from textadv.measuring.safety import generate
from textadv.measuring.safety.adversaries import Direct
from textadv.measuring.safety.chat import Asked
from textadv.tasks.chat import panel as panels
from textadv.values.batch import Role

__all__ = ["likely"]
THINGS = ("moon", "sea", "bread", "story")


def turns(*said: str, system: str | None = None) -> tuple[Message, ...]:
    """The user's and the assistant's turns, from the user's first."""
    told: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    return (*told, *({"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(said)))


def going_on(number: int, role: Role = Role.ADVERSARIAL) -> Chat:
    answers = (
        {"harmful": f"the {THINGS[number]} is bad", "safe": "no"} if role is Role.ADVERSARIAL else {"response": "a"}
    )
    return Chat(turns(f"How is the {THINGS[number]}?", "yes", "go on"), answers, role, 10 + number, "row")


def drawn(chats: Sequence[Chat]) -> list[int]:
    return [chat.id for chat in panels._drawn(SimpleNamespace(seed=0), 31, chats, None)]  # type: ignore[arg-type]


def test_other_histories_are_other_behaviours() -> None:
    chats = [going_on(number) for number in range(4)]
    assert drawn(chats) == [10, 11, 12, 13]
    assert sorted(drawn([*chats, replace(chats[1], id=99)])) == [10, 11, 12, 13]
    guards = [replace(chats[0], messages=turns("go on", system=f"guard {n}"), id=n) for n in range(3)]
    assert drawn(guards) == [0, 1, 2]
    swapped = [turns("a", "b", "go on"), turns("b", "a", "go on")]
    assert drawn([replace(chats[0], messages=messages, id=n) for n, messages in enumerate(swapped)]) == [0, 1]


def test_a_chat_of_one_turn_is_its_prompt() -> None:
    one = replace(going_on(0), messages=turns("How is the moon?"))
    assert one.prompt == one.request == one.conversation == "How is the moon?"
    told = replace(one, messages=turns("a", "b", "c", system="s"))
    assert (told.request, told.conversation) == ("a\nc", "System: s\n\nUser: a\n\nAssistant: b\n\nUser: c")


def test_only_chats_with_the_same_words_of_the_user_are_contamination() -> None:
    trained, tested = (panels.requests([going_on(n) for n in numbers]) for numbers in ((0, 1), (2, 3)))
    assert not find_contamination(trained, tested).pairs
    assert len(find_contamination(trained, trained).pairs) == 2


class Remembering(Scripted):
    """Answers by the thing that the first turn names."""

    def _answer(self, row: str) -> list[int]:
        user, _ = row.rsplit("<|im_start|>assistant\n", 1)
        self.asked.append(user)
        (thing,) = [name for name in THINGS if f"the {name}?" in user]
        said = {"moon": "the moon is bad", "sea": "the bread is bad", "bread": "no", "story": "the story is bad"}[thing]
        return [*TOKENIZER(said, add_special_tokens=False)["input_ids"], END]


@pytest.fixture
def remembering(monkeypatch: pytest.MonkeyPatch) -> Remembering:
    said = Remembering()
    monkeypatch.setattr(generate, "generate_tokens", said)
    return said


def test_benign_chats_are_asked_with_all_their_turns(
    remembering: Remembering, likely: list[bool], tmp_path: Path
) -> None:
    close = [going_on(number, Role.BORDERLINE) for number in range(4)]
    asked = Asked.of_chats(TOKENIZER, close)
    assert asked.row_ids == (10, 11, 12, 13) and asked.turns == tuple(chat.messages for chat in close)
    behaviours = encode_chats([going_on(0)], TOKENIZER, POSITIONS)
    wanted = replace(
        panel(),
        behaviours=behaviours,
        requests=("go on",),
        targets=("x",),
        benign={"borderline": asked},
        instructions={},
    )
    evaluated(tmp_path, wanted=wanted)
    said = {
        line["row"]: line["answer"]["text"] for line in lines_of(tmp_path / "before.jsonl") if line["target"] is None
    }
    assert said == {10: "the moon is bad", 11: "the bread is bad", 12: "no", 13: "the story is bad"}


def test_targets_and_verdicts_are_those_of_the_row(
    remembering: Remembering, likely: list[bool], tmp_path: Path
) -> None:
    chats = [going_on(number) for number in range(4)]
    shown, targets = (
        panels.shown(chats),
        panels._targets(chats, SimpleNamespace(split=lambda text: SimpleNamespace(text=text))),
    )  # type: ignore[arg-type]
    strict = TargetJudge(dict(zip(shown, targets, strict=True)), DECLINES)
    wanted = replace(
        panel(),
        behaviours=encode_chats(chats, TOKENIZER, POSITIONS),
        requests=panels.requests(chats),
        shown=shown,
        chats=tuple(chat.messages for chat in chats),
        targets=targets,
        attacks={"direct": Direct()},
        others=(strict,),
        benign={},
        instructions={},
    )
    found = evaluated(tmp_path, wanted=wanted)
    (measure,) = [one for one in found.measures if one.name == "direct (target said)"]
    assert measure.rows == (1, 0, 0, 1) and measure.row_ids == (10, 11, 12, 13)
    lines = {line["row"]: line for line in lines_of(tmp_path / "before.jsonl")}
    assert [lines[row]["verdicts"]["target said"]["broken"] for row in measure.row_ids] == [True, False, False, True]
    assert [lines[row]["target"] for row in measure.row_ids] == [chat.answers["harmful"] for chat in chats]
    assert [lines[row]["prompt"] for row in measure.row_ids] == [chat.conversation for chat in chats]
