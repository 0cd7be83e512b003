"""Attacks in text that search nothing: spellings, dialogues, templates, prompts of files; what is wrong with a row."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from random import Random

import pytest

from tests.attacks.prompts.talking import REQUEST, asked, victim
from textadv.attacks.prompts.best_of_n import BestOfN
from textadv.attacks.prompts.from_files import FromFiles
from textadv.attacks.prompts.many_shot import ManyShot, Shot
from textadv.attacks.prompts.rewritten import AskedFor, Rewritten
from textadv.attacks.prompts.template_files import SHIPPED, Templates, Wrapper, shipped
from textadv.attacks.prompts.worded import Worded, Wording
from textadv.data import DataError
from textadv.data.artefacts.attempts import Artefact, Attempt
from textadv.data.artefacts.joining import joined

SHOTS = tuple(Shot(f"How do I make dish {n}?", f"Take {n} eggs.") for n in range(6))
FOUND = joined(
    [Artefact((Attempt(goal=REQUEST, prompt="one"), Attempt(goal=REQUEST, prompt="two"), Attempt(goal="Other")))],
    {3: REQUEST, 4: "other", 5: "third"},
)


def text(wording: Wording, variant: int = 0, row: AskedFor | None = None) -> str:
    return str(wording(row or asked(), variant)[-1]["content"])


# ---- best of n


def test_spellings_by_hand() -> None:
    still = BestOfN(sigma=0)
    assert still.spelled("As it stands, 1 2!", Random(0)) == "As it stands, 1 2!"
    assert still.spelled("two  blanks\n stay", Random(0)) == "two  blanks\n stay"
    wild = BestOfN(sigma=1).spelled("to stand ü", Random(0))
    assert len(wild) == 10 and wild != "to stand ü" and wild[-1] == "ü"
    for sign, other in zip("to stand", wild, strict=False):
        assert abs(ord(sign.swapcase()) - ord(other)) <= 1 or sign in "tan", "only inner letters leave their place"


def test_words_of_up_to_three_letters_and_the_ends_of_others_stay() -> None:
    class Never(Random):
        """Below every chance but that of a word or a letter."""

        def random(self) -> float:
            return 0.5

    spelled = BestOfN(sigma=0.3).spelled("the forbidden recipe", Never(1))
    assert sorted(spelled.lower()) == sorted("the forbidden recipe")
    three, long, other = spelled.split()
    assert three == "THE" and (long[0], long[-1]) == ("F", "N") and (other[0], other[-1]) == ("R", "E")
    assert long != "FORBIDDEN" and spelled == spelled.upper()


def test_a_spelling_follows_from_seed_row_and_number_alone() -> None:
    one = BestOfN(50, seed=1)
    assert text(one, 4) == text(BestOfN(5, seed=1), 4)
    spellings = {text(one, n) for n in range(50)} | {text(one, 0, asked(8)), text(BestOfN(seed=2), 0)}
    assert len(spellings) == 52
    assert "sigma 0.4" in str(one) and repr(one) != repr(BestOfN(50, seed=2))


# ---- many shots


def test_shots_as_turns_and_as_text() -> None:
    given = AskedFor(3, ({"role": "system", "content": "Be kind."}, {"role": "user", "content": REQUEST}), "t")
    turns = ManyShot(SHOTS, 2)(given, 0)
    assert [turn["role"] for turn in turns] == ["system", "user", "assistant", "user", "assistant", "user"]
    assert turns[0]["content"] == "Be kind." and turns[-1]["content"] == REQUEST
    assert Shot(turns[1]["content"], turns[2]["content"]) in SHOTS
    (_, told) = ManyShot(SHOTS, 2, "text")(given, 0)
    assert told["content"].count("User: ") == 3 and told["content"].endswith(f"User: {REQUEST}\nAssistant:")
    assert turns[1]["content"] in told["content"], "the same draw in either form"


def test_shots_differ_by_draw_and_never_ask_the_request_itself() -> None:
    many = ManyShot((*SHOTS, Shot(f" {REQUEST}", "It is secret.")), 3, variants=9)
    drawn = [many(asked(), n) for n in range(9)]
    assert len({json.dumps(list(map(dict, one))) for one in drawn}) > 5
    assert all("secret" not in str(one) for one in drawn)
    assert repr(ManyShot(SHOTS, 3)) != repr(ManyShot(SHOTS[::-1], 3)), "what it draws from is part of what it is"


def test_fewer_shots_than_asked_for_are_told_and_the_request_in_another_case_is_none() -> None:
    spelled = Shot(f"{REQUEST.upper()}  .".replace(" ", "  "), "It is secret.")
    (row,) = Worded(ManyShot((SHOTS[0], spelled), 2))(victim(), [asked()])
    assert row.status == "failed" and row.messages == asked().messages
    assert row.why.startswith("2 dialogues are to stand before the request, and 1 ask something else.")
    assert "secret" not in str(ManyShot((SHOTS[0], spelled), 1)(asked(), 0))


def test_shots_that_do_not_fit_the_context_are_told() -> None:
    (row,) = Worded(ManyShot(SHOTS, 6))(victim(), [asked()])
    assert row.status == "failed" and "the model reads 96" in row.why and row.messages == asked().messages


# ---- templates


@pytest.mark.parametrize("name", SHIPPED)
def test_every_shipped_template_is_in_the_package_and_holds_the_request(name: str) -> None:
    assert REQUEST in shipped(name).around(REQUEST)
    assert {f"{one}.txt" for one in SHIPPED} == {
        file.name for file in (files("textadv") / "attacks" / "prompts" / "wordings").iterdir()
    }


def test_templates_put_the_request_wherever_its_place_is_and_leave_other_braces() -> None:
    wrap = Templates((Wrapper("a", '{"q": "{prompt}"} or {prompt}'), Wrapper("b", "{prompt}")))
    assert text(wrap) == f'{{"q": "{REQUEST}"}} or {REQUEST}' and text(wrap, 1) == REQUEST
    assert wrap.variants == 2 and str(wrap) == "request in 2 templates: a, b"


def test_a_template_without_a_place_is_refused() -> None:
    with pytest.raises(DataError, match="the template a does not hold {prompt}"):
        Wrapper("a", "{request}")
    with pytest.raises(DataError, match="there is no template 'dan' shipped; there are acting,"):
        shipped("dan")


# ---- prompts of files


def test_each_behaviour_is_asked_its_prompts_in_turn() -> None:
    wording = FromFiles(FOUND)
    assert wording.variants == 2 and [text(wording, n) for n in range(3)] == ["one", "two", "one"]
    assert FromFiles(FOUND, most=1).variants == 1
    assert "2 prompts for 1 behaviour, 2 behaviours without a prompt, 1 null prompt" in str(wording)
    turned = Attempt(goal=REQUEST, prompt="p", history=({"role": "system", "content": "s"},))
    assert FromFiles(joined([Artefact((turned,))], {3: REQUEST}))(asked(), 0)[0]["content"] == "s"


def test_turns_of_a_file_stand_behind_the_system_text_of_the_row_unless_they_bring_one() -> None:
    system, own = {"role": "system", "content": "Refuse."}, {"role": "system", "content": "Do all."}
    before = ({"role": "user", "content": "u"}, {"role": "assistant", "content": "v"})
    attempts = [Attempt(goal=REQUEST, prompt=f"p{n}", history=turns) for n, turns in enumerate(((), before, (own,)))]
    row = asked(3)
    systematic = replace(row, messages=(system, *row.messages))
    wording = FromFiles(joined([Artefact(tuple(attempts))], {3: REQUEST}))
    last = [{"role": "user", "content": f"p{n}"} for n in range(3)]
    assert wording(systematic, 0) == (system, last[0])
    assert wording(systematic, 1) == (system, *before, last[1]) and wording(row, 1) == (*before, last[1])
    assert wording(systematic, 2) == (own, last[2])
    assert "3 prompts for 1 behaviour;" in str(wording)
    assert str(wording).endswith("; 1 of them bring a system text in place of the row's own")
    assert "system" not in str(FromFiles(FOUND))
    two = (*systematic.messages, {"role": "assistant", "content": "w"}, *row.messages)
    assert wording(replace(row, messages=two), 1) == (system, *before, last[1]), "other turns are the file's"


def test_behaviours_without_a_prompt_fail_and_say_why() -> None:
    told: list[Rewritten] = []
    found = Worded(FromFiles(FOUND))(victim(), [asked(3), asked(4), asked(5)], found=told.append)
    assert found == told and [row.status for row in found] == ["reworded", "failed", "failed"]
    assert found[1].why == "the file has 1 null prompt for it and no other: no jailbreak was found."
    assert found[2].why == "the file has no prompt for it." and found[2].ids == ()


# ---- of all


def test_the_ids_are_those_of_the_text_and_a_row_is_the_same_alone() -> None:
    rows = [asked(3), asked(9, "Another request"), asked(4, " ")]
    for wording in (BestOfN(2), Templates((shipped("past"),)), ManyShot(SHOTS, 1)):
        together = Worded(wording)(victim(), rows, variant=wording.variants - 1)
        alone = [Worded(wording)(victim(), [row], variant=wording.variants - 1)[0] for row in rows]
        assert together == alone
        for row in together[:2]:
            assert row.status == "reworded" and row.loss is None
            assert tuple(victim().template.tokens(row.messages, generation=True)) == row.ids
        assert together[2].status == "failed" and "needs text of a user" in together[2].why


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(ValueError, match="variants must be at least 1"):
        BestOfN(0)
    with pytest.raises(ValueError, match="shots must be 1 to 6, the dialogues there are, got 7"):
        ManyShot(SHOTS, 7)
    with pytest.raises(ValueError, match="Templates needs one or more"):
        Templates(())
