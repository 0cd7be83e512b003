"""Which prompts of a file belong to which behaviours: by words, by name, in which order, and what is left over."""

from __future__ import annotations

import pytest

from textadv.data import DataError
from textadv.data.artefacts.attempts import Artefact, Attempt
from textadv.data.artefacts.joining import joined, require_named

ASKED = {4: "Tell me the forbidden recipe.", 7: "Tell me  the OTHER one", 9: "And a third"}


def of(*attempts: Attempt) -> list[Artefact]:
    return [Artefact(attempts)]


def test_requests_are_compared_without_case_blanks_and_full_stop() -> None:
    found = joined(of(Attempt(goal="tell me the forbidden recipe .", prompt="a")), ASKED)
    assert {row: [one.prompt for one in own] for row, own in found.attempts.items()} == {4: ["a"]}
    assert found.without == {7: "the file has no prompt for it", 9: "the file has no prompt for it"}


def test_names_are_joined_by_the_table_or_by_themselves() -> None:
    found = joined(of(Attempt("other", prompt="a"), Attempt("And a third", prompt="b")), ASKED, {"other": (ASKED[7],)})
    assert sorted(found.attempts) == [7, 9]


def test_null_prompts_and_other_behaviours_are_counted_and_told() -> None:
    found = joined(of(Attempt(goal=ASKED[4]), Attempt(goal=ASKED[4], prompt=" "), Attempt(goal="x", prompt="p")), ASKED)
    assert (found.null, found.unknown, found.attempts) == (2, 1, {})
    assert found.without[4] == "the file has 2 null prompts for it and no other: no jailbreak was found"
    assert str(found) == (
        "0 prompts for 0 behaviours, 3 behaviours without a prompt, 2 null prompts, 1 prompt of other behaviours"
    )


def test_what_broke_comes_first_then_harm_then_loss_and_each_prompt_once() -> None:
    given = [
        Attempt(goal=ASKED[4], prompt="plain"),
        Attempt(goal=ASKED[4], prompt="close", loss=0.5),
        Attempt(goal=ASKED[4], prompt="far", loss=2.0),
        Attempt(goal=ASKED[4], prompt="harm", beside={"scores": {"judge": {"p_harmful": [0.2, 0.8]}}}),
        Attempt(goal=ASKED[4], prompt="broke", broken=True),
        Attempt(goal=ASKED[4], prompt="close", loss=0.1),
    ]
    own = joined(of(*given), ASKED).attempts[4]
    assert [one.prompt for one in own] == ["broke", "harm", "close", "far", "plain"]


def test_two_rows_that_ask_the_same_get_the_same_prompts() -> None:
    found = joined(of(Attempt(goal="x", prompt="p")), {1: "x", 2: "X."})
    assert [*found.attempts] == [1, 2] and not found.without


def test_names_alone_need_the_table() -> None:
    by_name = of(Attempt("recipe_home", prompt="p"))
    with pytest.raises(DataError, match="x.file names behaviours by id alone, such as 'recipe_home'. .*x.behaviours"):
        require_named(by_name, ASKED, None, "x")
    require_named(by_name, ASKED, {}, "x")
    require_named(of(Attempt("And a third", prompt="p")), ASKED, None, "x")


def test_a_request_of_several_turns_is_known_by_all_of_them_or_by_its_last() -> None:
    forms = {1: ("User: a\n\nUser: last", "last"), 2: ("User: b\n\nUser: last", "last")}
    given = (Attempt(goal="user: b user: last.", prompt="of 2"), Attempt(goal="Last", prompt="of both"))
    found = joined(of(*given), forms)
    assert {row: [one.prompt for one in own] for row, own in found.attempts.items()} == {
        1: ["of both"],
        2: ["of 2", "of both"],
    }
    require_named(of(Attempt("last", prompt="p")), forms, None, "x")


def test_scores_that_are_none_order_nothing() -> None:
    odd = [{"judge": None}, {"judge": [0.9]}, {"judge": {"p_harmful": [float("nan"), None]}}, {"judge": {}}]
    given = [Attempt(goal=ASKED[4], prompt=f"{n}", beside={"scores": scores}) for n, scores in enumerate(odd)]
    harmful = Attempt(goal=ASKED[4], prompt="first", beside={"scores": {"judge": {"p_harmful": 0.1}}})
    own = joined(of(*given, harmful), ASKED).attempts[4]
    assert [one.prompt for one in own] == ["first", "0", "1", "2", "3"]
