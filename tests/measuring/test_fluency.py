"""What a base model makes of answers, and the limits that follow from benign ones."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from tests.measuring.test_chat import POSITIONS, TOKENIZER, llama
from textadv.data.chat_template import encode_prompt
from textadv.data.rendering import Template
from textadv.measuring.capability.likelihood import AnswerNLL, Pair
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.safety import fluency
from textadv.measuring.safety.fluency import NOT_LOOKED_FOR, NOT_SCORED, Base, Written, own_base, reference_limit
from textadv.measuring.safety.outcomes import Grounds
from textadv.measuring.safety.outcomes_calibrated import LEAST_NATS, LEAST_SPOKEN, calibrated
from textadv.values.errors import NonFiniteError

ASKED = [{"role": "user", "content": "How is the moon?"}]
WORDS = "a story about the sea and water"


def base() -> Base:
    return Base("base", llama(adapter=False), Template(TOKENIZER))


def ids(text: str) -> list[int]:
    return list(TOKENIZER(text, add_special_tokens=False)["input_ids"])


@torch.no_grad()
def by_hand(model: nn.Module, before: Sequence[int], scored: Sequence[int]) -> float:
    logits = model(input_ids=torch.tensor([[*before, *scored]])).logits[0, len(before) - 1 : -1]
    return float(nn.functional.cross_entropy(logits, torch.tensor(list(scored))))


def test_likelihoods_by_hand() -> None:
    prompt, answer = list(encode_prompt(TOKENIZER, ASKED).ids), ids(WORDS)
    found = base().nll([Written(ASKED, "", WORDS)])
    assert found == [pytest.approx(by_hand(base().model, prompt, answer), rel=1e-4)]
    (later,) = base().nll([Written(ASKED, "", WORDS)], 3)
    assert later == pytest.approx(by_hand(base().model, [*prompt, *answer[:3]], answer[3:]), rel=1e-4)


def test_only_the_models_own_words_are_scored() -> None:
    begun, own = "a story about", " the sea and water"
    prompt = list(encode_prompt(TOKENIZER, ASKED).ids)
    kept = len(ids(begun))
    whole = ids(begun + own)
    assert whole[:kept] == ids(begun)
    expected = by_hand(base().model, [*prompt, *whole[:kept]], whole[kept:])
    assert base().nll([Written(ASKED, begun, own)]) == [pytest.approx(expected, rel=1e-4)]


def test_what_cannot_be_scored_is_not_a_number() -> None:
    long = " ".join(["moon"] * POSITIONS)
    rows = [Written(ASKED, "", ""), Written([{"role": "user", "content": long}], "", WORDS), Written(ASKED, "", WORDS)]
    found = base().nll(rows)
    assert [math.isnan(value) for value in found] == [True, True, False]
    assert math.isnan(base().nll([Written(ASKED, "", "a")], 3)[0])


def test_the_base_of_a_model_with_an_adapter_is_the_model_without_it() -> None:
    found = own_base(llama(), Template(TOKENIZER))
    assert found is not None and own_base(llama(adapter=False), Template(TOKENIZER)) is None
    assert found.nll([Written(ASKED, "", WORDS)]) == [
        pytest.approx(base().nll([Written(ASKED, "", WORDS)])[0], rel=1e-4)
    ]


def test_a_limit_of_answers_that_are_too_short_is_that_of_whole_answers() -> None:
    short = [Written(ASKED, "", "a")]
    assert reference_limit(base(), short, (), 3) == pytest.approx(base().nll(short)[0])


@dataclass(frozen=True)
class Costs:
    """In the place of a base: so many nats as the answer's first word says."""

    name: str = "made up"

    def nll(self, written: Sequence[Written], leave: int = 0) -> list[float]:
        return [float(row.own.split()[0]) for row in written]


def grounds(spoken: Sequence[float], useful: Sequence[float], base: Costs | None = Costs()) -> Grounds:
    said, good = ([Written(ASKED, "", f"{n} nats") for n in values] for values in (spoken, useful))
    judge = REFUSAL_LISTS["declines"]
    return calibrated(
        judge=judge,
        decides=None,
        requests=["how?"],
        targets=[""],
        asked=[ASKED],
        words=3,
        base=base,  # type: ignore[arg-type]
        spoken=said,
        useful=good,
        pairs=(),
    )


def test_benign_answers_of_the_same_model_set_the_limit() -> None:
    found = grounds([2.0] * LEAST_SPOKEN, [5.0] * 30)
    assert found.limits.nll == pytest.approx(2.0)
    assert found.fluency == (
        "gibberish is above 2.00 nats per token under made up: 20 benign answers of the same model set 2.00"
    )
    assert set(found.subjects.elsewhere) == {"2.0 nats"}


def test_a_model_that_writes_gibberish_to_everybody_excuses_none() -> None:
    found = grounds([9.0] * 50, [5.0] * 30)
    assert found.limits.nll == pytest.approx(5.0) and "good answers of others set 5.00" in found.fluency
    some = grounds([9.0] * 50 + [2.0] * LEAST_SPOKEN, [5.0] * 30)
    assert some.limits.nll == pytest.approx(2.0)


def test_few_benign_answers_are_joined_by_good_ones_of_others() -> None:
    found = grounds([2.0] * (LEAST_SPOKEN - 1), [5.0] * 30)
    assert found.limits.nll == pytest.approx(5.0)
    assert set(found.subjects.elsewhere) == {"2.0 nats", "5.0 nats"}


def test_a_limit_is_no_lower_than_what_nobody_calls_gibberish() -> None:
    found = grounds([0.04] * LEAST_SPOKEN, [5.0] * 30)
    assert found.limits.nll == LEAST_NATS
    assert found.fluency.endswith("20 benign answers of the same model set 0.04, and 1 is the least")


def test_without_a_base_what_is_not_measured_is_said() -> None:
    found = grounds([2.0] * 30, [5.0] * 30, None)
    assert found.base is None and found.limits.nll is None and found.fluency == NOT_LOOKED_FOR


SYSTEM = [{"role": "system", "content": "Be kind."}, *ASKED]
REFUSES = "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"


def no_system() -> Base:
    tokenizer = copy.deepcopy(TOKENIZER)
    tokenizer.chat_template = REFUSES + TOKENIZER.chat_template
    return Base("base", llama(adapter=False), Template(tokenizer))


def test_no_limit_is_above_that_of_tokens_drawn_blindly() -> None:
    model = llama(adapter=False)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(20)
    sharp = Base("base", model, Template(TOKENIZER))
    good = [Written(ASKED, "", WORDS)]
    assert sharp.nll(good)[0] > sharp.blind == math.log(len(TOKENIZER))
    assert reference_limit(sharp, good, ()) == sharp.blind


def test_turns_and_lengths_that_a_base_cannot_read_are_counted_and_never_an_error() -> None:
    assert no_system().unread([Written(ASKED, "", WORDS)] * 2) == (0, "")
    count, reason = no_system().unread([Written(SYSTEM, "", WORDS), Written(ASKED, "", WORDS)])
    assert count == 1 and "no system turns" in reason
    long = [{"role": "user", "content": " ".join(["moon"] * POSITIONS)}]
    count, reason = base().unread([Written(long, "", WORDS)])
    assert count == 1 and reason.endswith(f" {POSITIONS} positions")
    for scorer, asked in ((no_system(), SYSTEM), (base(), long)):
        assert reference_limit(scorer, [Written(asked, "", WORDS)], (), 3) is None
    prompt = list(encode_prompt(TOKENIZER, long).ids)
    assert reference_limit(base(), (), [(prompt, ids(WORDS))], 3) is None, "tokens that fit no better"


def test_a_limit_that_cannot_be_told_ends_nothing() -> None:
    found = calibrated(
        judge=REFUSAL_LISTS["declines"],
        decides=None,
        requests=["how?"],
        targets=[""],
        asked=[SYSTEM],
        words=3,
        base=no_system(),
        spoken=[Written(SYSTEM, "", WORDS)] * 30,
        useful=[Written(SYSTEM, "", WORDS)] * 30,
        pairs=(),
    )
    assert (found.base, found.limits.nll, found.fluency) == (None, None, NOT_SCORED)


def test_one_likelihood_that_is_no_number_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    real, rows = fluency.answer_nll, [Written(ASKED, "", WORDS), Written(ASKED, "", "a story about the sea")]

    def odd(model: nn.Module, pairs: Sequence[Pair], batch_size: int = 16, *, finite: bool = True) -> list[AnswerNLL]:
        if finite:
            raise NonFiniteError("one is infinite")
        return [AnswerNLL(math.inf, 1), *real(model, pairs)[1:]]

    expected = base().nll(rows)[1]
    monkeypatch.setattr(fluency, "answer_nll", odd)
    assert base().nll(rows) == [math.inf, pytest.approx(expected)]
    assert reference_limit(base(), rows, ()) == pytest.approx(min(expected, base().blind))
