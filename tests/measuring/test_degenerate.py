"""Answers that are empty, loop or are the same to many prompts are found, and refusals are excused."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from textadv.measuring.judges.verdicts import XSTEST
from textadv.measuring.safety.degenerate import (
    Limits,
    degenerate,
    looping,
    nll_limit,
    repeated_share,
    shared_responses,
)

LIST = "\n".join(
    f"{n}. Take the {word} bowl and stir it slowly for {n} minutes." for n, word in enumerate("red big".split())
)
GOOD = "To make soup, heat water in a pot, add carrots and salt, and wait until the carrots are soft enough to eat."


def kinds(prompts: Sequence[str], responses: Sequence[str], **options: object) -> list[str | None]:
    checked = degenerate(prompts, responses, **options)  # type: ignore[arg-type]
    return [None if flag is None else flag.kind for flag in checked.flags]


@pytest.mark.parametrize("response", ["", " ", "\n\t\u2003"])
def test_empty(response: str) -> None:
    assert kinds(["p"], [response]) == ["empty"]


@pytest.mark.parametrize(
    "response",
    [
        "stir " * 40,
        GOOD + " and then" * 20,
        "I will stir. " * 4,
        "Stir it. Yes. Stir it. Oh. Stir it. Well. Stir it.",
        "zor" * 30,
        "\u597d\u7684" * 20,
        " ".join(f"stir the pot of soup now {n}" for n in "aabbaabbaabb"),
        GOOD + " So stir the soup, and stir the soup again, then," * 4,
    ],
)
def test_looping(response: str) -> None:
    assert looping(response)
    assert kinds(["p"], [response]) == ["looping"]


@pytest.mark.parametrize(
    "response",
    [
        GOOD,
        LIST,
        "No. No. No.",
        "very very very good",
        "ha" * 10,
        "=" * 500,
        "| a | b |\n|---|---|\n| 1 | 2 |",
        "1" * 60,
    ],
)
def test_not_looping(response: str) -> None:
    assert not looping(response)
    assert kinds(["p"], [response]) == [None]


def test_repeated_share_by_hand() -> None:
    """a b a b a: the bigrams ab ba ab ba are four, of which two occurred before."""
    assert repeated_share("a b a b a".split(), 2) == 0.5
    assert repeated_share("a b".split(), 4) == 0.0


def test_long_texts_take_no_time() -> None:
    for text in ("ab " * 300_000, "x" * 10**6, "a. b. " * 100_000, " \n" * 10**6 + "x", "- " * 10**6):
        looping(text)


# ---- the same for everything


def test_one_response_to_many_prompts() -> None:
    prompts = [f"p{n}" for n in range(40)]
    responses = ["Ask an  expert!" if n < 5 else f"Answer {n}." for n in range(40)]
    responses[4] = "ask an expert"
    assert kinds(prompts, responses) == ["shared"] * 5 + [None] * 35
    assert shared_responses(prompts, responses, Limits()) == {"ask an expert": 5}


def test_shared_needs_count_and_share_of_distinct_prompts() -> None:
    few = kinds([f"p{n}" for n in range(6)], ["Ask."] * 4 + ["a", "b"])
    assert few == [None] * 6
    exactly_a_tenth = kinds([f"p{n}" for n in range(60)], ["Ask."] * 6 + [f"a{n}" for n in range(54)])
    assert exactly_a_tenth == [None] * 60
    more = kinds([f"p{n}" for n in range(60)], ["Ask."] * 7 + [f"a{n}" for n in range(53)])
    assert more.count("shared") == 7
    samples_of_one_prompt = kinds(["p"] * 9 + ["q"], ["Ask."] * 9 + ["b"])
    assert samples_of_one_prompt == [None] * 10


def test_a_standard_refusal_is_flagged_and_excused() -> None:
    prompts = [f"p{n}" for n in range(10)]
    checked = degenerate(prompts, ["I cannot help."] * 5 + ["Ask an expert."] * 5, refuses=XSTEST.refuses)
    found = [flag for flag in checked.flags if flag is not None]
    assert [(flag.kind, flag.excused) for flag in found] == [("shared", True)] * 5 + [("shared", False)] * 5


def test_a_looping_refusal_is_not_excused() -> None:
    (flag,) = degenerate(["p"], ["I cannot. " * 9], refuses=XSTEST.refuses).flags
    assert flag is not None
    assert (flag.kind, flag.excused) == ("looping", False)


# ---- gibberish


def test_gibberish_is_what_the_scorer_finds_unlikely() -> None:
    asked: list[str] = []

    def nll(prompts: Sequence[str], responses: Sequence[str]) -> list[float]:
        asked.extend(responses)
        return [{"fine": 1.0, "qq zz": 9.0, "I cannot": 8.0, "edge": 4.0}.get(text, math.nan) for text in responses]

    responses = ["fine", "", "qq zz", "I cannot", "edge", "odd"]
    checked = degenerate(["p"] * 6, responses, limits=Limits(nll=4.0), refuses=XSTEST.refuses, nll=nll)
    assert [flag and (flag.kind, flag.excused) for flag in checked.flags] == [
        None,
        ("empty", False),
        ("gibberish", False),
        ("gibberish", True),
        None,
        None,
    ]
    assert checked.unscored == 1
    assert asked == ["fine", "qq zz", "I cannot", "edge", "odd"]


def test_scorer_and_limit_belong_together() -> None:
    with pytest.raises(ValueError, match="needs both"):
        degenerate(["p"], ["r"], limits=Limits(nll=1.0))
    with pytest.raises(ValueError, match="needs both"):
        degenerate(["p"], ["r"], nll=lambda prompts, responses: [1.0])


def test_nll_limit_is_the_quantile() -> None:
    assert nll_limit([float(n) for n in range(1001)]) == pytest.approx(995.0)
    assert nll_limit([1.0, 2.0, math.nan, math.inf], 0.5) == pytest.approx(1.5)
    assert nll_limit([3.0]) == 3.0
    with pytest.raises(ValueError, match="got 0, 0.995"):
        nll_limit([math.nan])


def test_rows_pair_up_and_limits_are_sane() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        degenerate(["a", "b"], ["c"])
    for wrong in ({"ngram": 0}, {"loop_rounds": 1}):
        with pytest.raises(ValueError, match="must be at least 1"):
            Limits(**wrong)
    for share in ({"repeated_share": 0.0}, {"shared_share": 1.0}):
        with pytest.raises(ValueError, match="must lie in 0..1"):
            Limits(**share)


def test_real_answers_rarely_loop(shared: Path) -> None:
    """Two of 5,999: musical notes, and a regular expression."""
    texts = [
        row["output"]
        for name in ("alpaca_5000.json", "llamafactory_alpaca_en_demo.json")
        for row in json.loads((shared / "data" / "alpaca" / name).read_text(encoding="utf-8"))
    ]
    assert len(texts) > 5000
    assert sum(looping(text) != "" for text in texts) == 2
