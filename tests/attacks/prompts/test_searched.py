"""Random search and BEAST: never better than trying all, the claimed loss is the text's, bad rows say why."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.attacks.prompts.talking import TARGET, asked, victim
from textadv.attacks.prompts.beast import Beast, next_logits
from textadv.attacks.prompts.first_suffix import first_row
from textadv.attacks.prompts.random_search import RandomSearch
from textadv.attacks.prompts.rewritten import RewritingAttack, Rewritten
from textadv.attacks.prompts.suffix_row import SuffixRow
from textadv.attacks.prompts.victim import ChatVictim
from textadv.models import prefix
from textadv.values.losses import cross_entropy

WORDS, TOKENS = 9, 2
SEARCHES: dict[str, Callable[[int], RewritingAttack]] = {
    "random search": lambda seed: RandomSearch(TOKENS, steps=8, candidates=4, restarts=2, seed=seed),
    "beast": lambda seed: Beast(TOKENS, beam=3, samples=4, seed=seed),
}
GAPS = {"random search": 0.2, "beast": 0.5}
"""How far above the best of all suffixes a search ends at most, in nats per token, over five seeds."""


def chat(length: int) -> SuffixRow:
    """The behaviour with so many slots."""
    return first_row(victim(WORDS), asked(), None, length, cross_entropy)


def least(lengths: tuple[int, ...]) -> float:
    """The least loss of all suffixes of these lengths that survive."""
    found = []
    for length in lengths:
        row = chat(length)
        rows = torch.cartesian_prod(*[row.victim.vocabulary] * length).reshape(-1, length)
        found.append(float(row.losses(rows[row.survives(rows)])[:, 0].min()))
    return min(found)


def remeasured(seen: ChatVictim, row: Rewritten) -> float:
    """The loss of the target after what is sent, as whoever sends it would find it."""
    ids = seen.template.tokens(row.messages, generation=True)
    assert tuple(ids) == row.ids
    return float(seen.losses([ids], [seen.reply(row.messages, TARGET)])[0])


@pytest.mark.parametrize("name", SEARCHES)
def test_no_search_is_better_than_trying_all_and_the_gap_is_small(name: str) -> None:
    bound = least((TOKENS,) if name == "random search" else (1, TOKENS))
    gaps = []
    for seed in range(5):
        (row,) = SEARCHES[name](seed)(victim(WORDS), [asked()])
        assert row.loss is not None
        gaps.append(row.loss - bound)
    assert min(gaps) > -1e-5, "trying all is the best there is"
    assert max(gaps) <= GAPS[name], gaps


@pytest.mark.parametrize("name", SEARCHES)
def test_the_text_has_the_tokens_and_the_loss_that_are_claimed(name: str) -> None:
    rows = [asked(3), asked(8, "Another request for it")]
    found = SEARCHES[name](0)(victim(), rows)
    for row, given in zip(found, rows, strict=True):
        assert row.loss == pytest.approx(remeasured(victim(), row), rel=1e-4)
        assert str(row.messages[-1]["content"]).startswith(str(given.messages[-1]["content"]))
        assert row.path[-1][1] == pytest.approx(row.loss, rel=1e-4)
        assert row.path == tuple(sorted(row.path, key=lambda at: (at[0], -at[1])))
        assert row.passes.forwards >= row.path[-1][0] and row.passes.backwards == 0
    alone = SEARCHES[name](0)(victim(), rows[1:])
    assert alone[0].messages == found[1].messages, "a row's result does not depend on those beside it"


@pytest.mark.parametrize("name", SEARCHES)
def test_more_effort_is_not_worse_and_the_seed_decides(name: str) -> None:
    more = {"random search": RandomSearch(TOKENS, steps=16, candidates=4, restarts=3), "beast": Beast(3, 3, 4)}
    (less,) = SEARCHES[name](0)(victim(), [asked()])
    (other,) = more[name](victim(), [asked()])
    assert less.loss is not None and other.loss is not None and other.loss <= less.loss
    assert SEARCHES[name](0)(victim(), [asked()]) == [less]
    assert SEARCHES[name](1)(victim(), [asked()])[0].messages != less.messages


def test_reached_is_that_the_model_begins_with_the_target() -> None:
    seen = victim(WORDS)
    (row,) = RandomSearch(1, steps=1)(seen, [asked()])
    logits = seen.model(input_ids=torch.tensor([row.ids])).logits[0, -1]
    said = seen.template.tokenizer.decode([int(logits.argmax())])
    assert row.status == "not_reached" and not TARGET.startswith(said.strip() or "?")


def test_beast_draws_what_the_model_would_write_there() -> None:
    seen = victim(WORDS)
    row = chat(1)
    suffix = seen.vocabulary[:2].unsqueeze(0)
    whole = torch.tensor([[*row.slotted.before, *suffix[0].tolist()]])
    assert torch.allclose(next_logits(row, suffix), seen.model(input_ids=whole).logits[:, -1], atol=1e-5)
    # Almost without temperature only the likeliest word is drawn, and it is the greedy one.
    (ended,) = Beast(1, beam=1, samples=1, temperature=1e-6)(seen, [asked()])
    greedy = next_logits(row, suffix[:, :0])[0, seen.vocabulary].argmax()
    assert int(seen.vocabulary[greedy]) in ended.ids


def test_beast_sends_what_stands_before_the_suffix_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With keys and values of it known the same suffix is found, in fewer tokens."""
    seen, beast = victim(), Beast(4, beam=2, samples=3, early_stop=False)
    beast(seen, [asked()])  # Whether the cache can be trusted is found out once.
    (quick,) = beast(seen, [asked()])
    monkeypatch.setitem(prefix._trusted, seen.model, False)
    (slow,) = beast(seen, [asked()])
    assert quick.messages == slow.messages and quick.ids == slow.ids
    assert quick.loss == pytest.approx(slow.loss, rel=1e-4)
    assert quick.passes.forward_tokens < slow.passes.forward_tokens / 2
    monkeypatch.setitem(prefix._trusted, seen.model, True)
    row = chat(1)
    for rows in (3, 2):
        next_logits(row, seen.vocabulary[: 2 * rows].reshape(rows, 2))
    assert row.passes.forward_tokens == len(row.slotted.before) + (3 + 2) * 3, "the last token before it, and its two"


def test_beast_tries_only_what_survives() -> None:
    row = first_row(victim(), asked(), None, 1, cross_entropy)
    every = victim().vocabulary.unsqueeze(1)
    assert not bool(row.survives(every).all()), "some tokens are others once they are text"
    rows = Beast(2, 3, 5)._longer(row, torch.zeros((1, 0), dtype=torch.int64), 60, torch.Generator().manual_seed(0))
    assert len(rows) == 60 and bool(row.survives(rows).all())


def test_the_best_of_all_lengths_is_sent() -> None:
    lengths = []
    for seed in range(6):
        (row,) = Beast(3, 1, 1, seed=seed)(victim(WORDS), [asked()])
        lengths.append(len(row.ids) - len(chat(1).slotted.before) - len(chat(1).slotted.after))
        assert row.loss == pytest.approx(min(loss for _, loss in row.path), rel=1e-4)
    assert min(lengths) < 3, "a longer one need not be better"


def test_changes_are_at_places_of_their_own() -> None:
    search, start = RandomSearch(9, candidates=40, replaced=2), torch.full((9,), -1)
    rows = search._changed(start, victim(WORDS).vocabulary, torch.Generator().manual_seed(0))
    places = [row.ne(-1).nonzero().flatten().tolist() for row in rows]
    assert all(len(place) == 2 for place in places)
    assert any(last - first > 1 for first, last in places), "not neighbours alone"


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_wrong_with_a_row_is_its_own_status(name: str) -> None:
    rows = [asked(1, target=""), asked(2, ""), asked(4), asked(5, "word " * 90)]
    told: list[Rewritten] = []
    found = SEARCHES[name](0)(victim(), rows, found=told.append)
    assert told == found and [row.status == "failed" for row in found] == [True, True, False, True]
    assert "there is no target to aim at" in found[0].why and "needs text of a user" in found[1].why
    assert "the model reads 96" in found[3].why and found[3].messages == rows[3].messages


def test_a_suffix_that_does_not_fit_is_told_with_the_key() -> None:
    (row,) = Beast(90)(victim(), [asked()])
    assert row.status == "failed" and "a suffix of 90 tokens" in row.why and "Set length lower" in row.why


def test_settings_out_of_range_are_told() -> None:
    with pytest.raises(ValueError, match="replaced of random_search must be at most length, 2, got 3"):
        RandomSearch(2, replaced=3)
    with pytest.raises(ValueError, match="temperature of beast must be above 0"):
        Beast(temperature=0)
    with pytest.raises(ValueError, match="beam of beast must be at least 1, got 0"):
        Beast(beam=0)
