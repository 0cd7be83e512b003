"""What attacks on a chat model take: tokens counted by hooks on the model, beside what every answer says of itself."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.measuring.steered import REFUSALS
from tests.measuring.talking import FORBIDDEN_CHATS, NO, SORRY, Watching, Words, searching, untrained
from textadv.attacks.parts.attacked import Sent
from textadv.measuring.safety.adversaries import Adversary, Direct, EmbeddingAttack, Prefill, behaviours_of
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.budget import least_of
from textadv.measuring.safety.elicitation import Elicitation, elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import Some
from textadv.measuring.safety.search_panel import GOALS, Search
from textadv.models import counted_parameters
from textadv.values.flops import NONE_SPENT, NOT_MEASURED, Flops

# Rows of one head, so that what their prefix holds is the same alone and together.
ROWS = Some(FORBIDDEN_CHATS, (0, 2, 4, 6))
REQUESTS = [FORBIDDEN_CHATS.requests[place] for place in ROWS.index]
SAMPLED = Decoding(max_new_tokens=5, temperature=1.0, samples=3, batch_size=5)
BEGINNINGS = Beginnings(Words(), REFUSALS, ((SORRY, NO), (NO,)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A model whose cache is trusted already: trying it out is no attack's."""
    made = untrained()
    told(made, {"warm": EmbeddingAttack(searching(steps=1))}, Decoding(1))
    return made


@dataclass
class Meter:
    """Tokens that really went through a model, padding left out."""

    forward: int = 0
    backward: int = 0


@contextmanager
def metered(model: nn.Module) -> Iterator[Meter]:
    meter = Meter()

    def back(tokens: int) -> None:
        meter.backward += tokens

    def count(_module: nn.Module, _args: object, options: dict[str, Tensor], output: object) -> None:
        width = options["input_ids"].shape[1]
        tokens = int(options["attention_mask"][:, -width:].sum())
        meter.forward += tokens
        logits: Tensor = output.logits  # type: ignore[attr-defined]
        if logits.requires_grad:
            logits.register_hook(lambda grad: back(tokens))

    with torch.no_grad():
        handle = model.register_forward_hook(count, with_kwargs=True)
    try:
        yield meter
    finally:
        handle.remove()


def told(
    model: nn.Module, attacks: dict[str, Adversary], decoding: Decoding = SAMPLED, **options: object
) -> Elicitation:
    return elicit(model, Words(), ROWS, REQUESTS, attacks, Watching(), decoding, **options)  # type: ignore[arg-type]


def searches(*names: str, steps: int = 3, restarts: int | None = None, early_stop: bool = False) -> EmbeddingAttack:
    attack = searching(steps=steps, early_stop=early_stop)
    aims = tuple(Search(*GOALS[name]) for name in names)
    return EmbeddingAttack(attack, restarts or len(names), batch_size=3, searches=aims, beginnings=BEGINNINGS)


@pytest.mark.parametrize(
    "attack",
    [
        Direct(),
        Prefill(2),
        searches("elicit"),
        searches("early", "both"),
        searches("away"),
        searches("own"),
        searches("early", "elicit", restarts=3, early_stop=True, steps=8),
    ],
    ids=["direct", "prefill", "elicit", "two searches", "away", "own", "early stop"],
)
def test_answers_and_searches_take_what_went_through_the_model(model: nn.Module, attack: Adversary) -> None:
    with metered(model) as meter:
        found = told(model, {"attack": attack} if not isinstance(attack, Direct) else {"direct": attack})
    parameters = counted_parameters(model)
    spent = [found.worst_case.search_flops, found.worst_case.sampling_flops]
    assert found.worst_case.uncounted == 0
    assert spent[0] + spent[1] == Flops.of(parameters, forward=meter.forward, activation_backward=meter.backward)
    assert spent[1].activation_backward == 0 and spent[0].weight_backward == 0
    searched = isinstance(attack, EmbeddingAttack)
    assert (spent[0] != NONE_SPENT) == searched == (meter.backward > 0)


def test_every_answer_says_what_it_took_and_the_first_what_its_search_did(model: nn.Module, tmp_path: Path) -> None:
    found = told(model, {"search": searches("early", "away")}, store=tmp_path / "answers.jsonl")
    lines = [json.loads(line)["answer"] for line in (tmp_path / "answers.jsonl").read_text().splitlines()]
    parameters, behaviours = counted_parameters(model), {row.id: row for row in behaviours_of(ROWS)}
    assert len(lines) == len(ROWS) * 3 * (1 + 2)
    for line in lines:
        tokens = len(behaviours[line["id"]].ids) + line["tokens"] - 1
        assert line["sampling_flops"] == vars(Flops.of(parameters, forward=tokens))
        searched = line["attack"] == "search" and line["sample"] == 0
        assert (line["search_flops"]["activation_backward"] > 0) == searched
    reached = {line["search"].split(",")[0]: line.get("reached", "nothing") for line in lines if line["search"]}
    assert reached.keys() == {"first 6 tokens", "away from the first 6 tokens"}
    assert isinstance(reached["first 6 tokens"], bool) and reached["away from the first 6 tokens"] == "nothing"
    again = told(model, {"search": searches("early", "away")}, store=tmp_path / "answers.jsonl")
    assert [one.flops for one in again.attacks] == [one.flops for one in found.attacks], "read back as it was written"


def test_what_nobody_counted_is_not_measured_and_not_0(model: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("textadv.attacks.parts.record.Record.sent", None)
    found = told(model, {"search": searches("elicit")})
    attack = next(one for one in found.attacks if one.name == "search")
    first = [outcome.answers[0] for outcome in found.outcomes if outcome.attack == "search"]
    assert all(answer.search_flops == NOT_MEASURED and answer.sampling_flops.total for answer in first)
    assert attack.uncounted == len(ROWS) and attack.flops == NOT_MEASURED
    # What the other samples took is known, and said to be without these.
    assert attack.search_flops == NONE_SPENT and attack.sampling_flops.total


@pytest.mark.parametrize("names", [("elicit",), ("early", "both"), ("away",), ("own", "away")], ids=", ".join)
def test_no_try_takes_more_than_it_is_said_to_take_at_most(model: nn.Module, names: tuple[str, ...]) -> None:
    attack = searches(*names)
    found = told(model, {"search": attack})
    decoding, parameters = SAMPLED, counted_parameters(model)
    least = least_of(attack, model, parameters, behaviours_of(ROWS), decoding)
    assert least is not None
    for outcome in found.outcomes:
        if outcome.attack == "search":
            for restart, most in enumerate(least[outcome.id]):
                (first,) = [a for a in outcome.answers if (a.restart, a.sample) == (restart, 0)]
                took = first.flops.total
                assert took is not None and most / 3 < took <= most


def test_tokens_are_those_of_rows_alone_whatever_stands_beside_them(model: nn.Module) -> None:
    """Every second row has a longer head: together a shorter prefix is cached."""
    rows = FORBIDDEN_CHATS

    def sent(index: list[int]) -> Sent:
        batch = rows.batch(index).answering("harmful")
        found = searching(steps=2, early_stop=False)(model, batch, measure=False).sent
        assert found is not None
        return found

    together = sent([0, 1])
    for row in range(2):
        alone = sent([row])
        assert int(alone.forward[0]) == int(together.forward[row])
        assert int(alone.backward[0]) == int(together.backward[row])
