"""Edits as an attack of a batch: the rows that come back are edited texts, alike in every batch, and what that cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Literal

import pytest
import torch

from tests import edited, tiny
from tests.attacks.edits.toys import Sums, tokenizer
from textadv.attacks import (
    L2,
    AdaptiveRadius,
    Attack,
    Attacked,
    Eot,
    Held,
    Stages,
    ThreatModel,
    pgd,
    then,
    worst_of,
)
from textadv.attacks.edits import (
    EditAttack,
    Exhaustive,
    Misclassify,
    OneOf,
    PlantedWords,
    StochasticTokens,
    Synonyms,
    TextEdits,
    Typos,
    Victim,
    WordTable,
    deepwordbug,
    hotflip,
)
from textadv.data import Examples, encode
from textadv.measuring import attack_rows
from textadv.models import ModelError, evaluating, forward
from textadv.values.batch import IGNORED, Batch, Role, concatenate
from textadv.values.host.phases import Advance, telling
from textadv.values.spaces import Embeddings

OWN = edited.reader()
THREAT = ThreatModel(Embeddings(), L2(0.3))
WEIGHTS = {"good": 2.0, "film": 0.5, "fine": 1.0, "dire": -3.0, "show": 0.2, "grand": 2.5}
TABLE = WordTable("toy", {"good": ("fine", "dire", "grand"), "film": ("show",)})


def weighed() -> tuple[Sums, object]:
    """The logit of class 1 is the sum of the words' weights."""
    own = tokenizer(list(WEIGHTS))
    table = torch.zeros(len(own), 2, dtype=torch.float64)
    for word, weight in WEIGHTS.items():
        table[own.convert_tokens_to_ids(word), 1] = weight
    return Sums(table), own


def test_the_edit_that_raises_the_loss_most_comes_back_in_tokens() -> None:
    model, own = weighed()
    attack = TextEdits(EditAttack(Synonyms(TABLE), Exhaustive(2)), own, 16)
    batch = encode(Examples(("a good film", "good"), None, (1, 1), (4, 9)), own, 16).batch([0, 1])
    batch = batch.with_role(Role.ADVERSARIAL)
    found = attack(model, batch)
    # good -> dire makes 2.0 + 0.5 to -2.5; film -> show takes another 0.3, and the search ends at the first success.
    expected = encode(Examples(("a dire film", "dire"), None, (1, 1), (4, 9)), own, 16).batch([0, 1])
    assert torch.equal(found.batch.inputs["input_ids"], expected.inputs["input_ids"])
    assert torch.equal(found.batch.editable, expected.editable)
    assert found.batch.labels.tolist() == [1, 1] and found.batch.ids.tolist() == [4, 9]
    assert torch.equal(found.batch.role, batch.role)
    assert found.gauge.tolist() == [1, 1] and found.success.tolist() == [True, True]
    assert found.outcome.margin.tolist() == [2.5, 3.0]
    # The row itself, four texts one edit away, and the two passes that measure.
    assert found.cost.queries.tolist() == [1 + 4 + 2, 1 + 3 + 2]
    assert found.cost.forwards.tolist() == [0, 0]
    assert found.clean is batch and found.batch.perturbation is None
    assert torch.equal(found.inputs["input_ids"], expected.inputs["input_ids"])


def test_rows_keep_their_texts_through_all_that_is_done_to_batches() -> None:
    rows = edited.rows(OWN, 6)
    batch = rows.batch([3, 0, 5])
    assert batch.written is not None
    texts = edited.examples(6).texts
    assert batch.written.rows() == ((texts[3], texts[0], texts[5]), None)
    kept = batch.rows(torch.tensor([False, True, True])).to("cpu").with_role(Role.UTILITY).clean()
    assert kept.written is not None and kept.written.rows()[0] == (texts[0], texts[5])
    both = concatenate([kept, rows.batch([1])])
    assert both.written is not None and both.written.rows()[0] == (texts[0], texts[5], texts[1])
    assert both.rows(torch.tensor([2])).written.rows()[0] == (texts[1],)  # type: ignore[union-attr]


@pytest.mark.parametrize("side", ["right", "left"])
def test_rows_of_two_lengths_share_a_batch_as_their_tokenizer_would_have_them(side: str) -> None:
    own = edited.reader()
    own.padding_side = side
    texts = ("good", "good great lovely superb bad")
    together = encode(Examples(texts, None, (0, 1), (0, 1)), own, 24).batch([0, 1])
    parts = [encode(Examples((text,), None, (n,), (n,)), own, 24).batch([0]) for n, text in enumerate(texts)]
    deltas = [part.perturbed(Embeddings(), torch.ones(1, part.editable.shape[1], 2)) for part in parts]
    both = concatenate(deltas)
    for name, value in together.inputs.items():
        assert torch.equal(both.inputs[name], value)
    assert torch.equal(both.editable, together.editable)
    assert both.perturbation is not None
    assert torch.equal(both.perturbation.delta[..., 0].bool(), together.inputs["attention_mask"].bool())


@pytest.mark.parametrize("make", [edited.typos, edited.searched], ids=["typos", "searched"])
def test_a_row_is_edited_alike_alone_and_in_a_batch_and_anew_at_every_step(make: object) -> None:
    attack, model, rows = make(OWN), edited.bert(OWN), edited.rows(OWN, 8)  # type: ignore[operator]
    whole = attack(model, rows.batch(range(8)), step=3, measure=False)
    for n in range(8):
        alone = attack(model, rows.batch([n]), step=3, measure=False)
        assert alone.batch.written.rows() == whole.batch.rows(torch.tensor([n])).written.rows()
        assert alone.cost.queries.tolist() == [whole.cost.queries.tolist()[n]]
    other = attack(model, rows.batch(range(8)), step=4, measure=False)
    assert other.batch.written.rows() != whole.batch.written.rows()
    assert model.training and all(value.grad is None for value in model.parameters())


def test_stochastic_tokens_spell_the_same_text_in_more_tokens() -> None:
    own = edited.reader("go", "##od", "gr", "##eat")
    batch = encode(Examples(("good great", "bad"), None, (0, 1), (1, 2)), own, 24).batch([0, 1])
    found = TextEdits(StochasticTokens(1.0), own, 24)(edited.bert(own), batch)
    spelled = own.convert_ids_to_tokens(found.batch.inputs["input_ids"][0])
    assert "".join(spelled).replace("##", "").startswith("[CLS]goodgreat[SEP]") and len(spelled) > 4
    assert found.gauge.tolist()[0] == 1
    assert found.batch.written is not None and found.batch.written.rows()[0] == ("good great", "bad")


def test_the_share_of_rows_follows_from_seed_step_and_id_alone() -> None:
    attack, rows = edited.typos(OWN, 0.25), edited.rows(OWN, 400)
    model = edited.bag(OWN)
    changed = attack(model, rows.batch(range(400)), step=2, measure=False).gauge == 1
    # Within three standard deviations of 100.
    assert 74 <= int(changed.sum()) <= 126
    halves = [
        attack(model, rows.batch(part), step=2, measure=False).gauge == 1 for part in (range(200), range(200, 400))
    ]
    assert torch.equal(torch.cat(halves), changed)
    assert changed.tolist() == [attack.edits(2, row) for row in rows.ids]
    assert not torch.equal(attack(model, rows.batch(range(400)), step=3, measure=False).gauge == 1, changed)
    reseeded = replace(attack, seed=1)
    assert not torch.equal(reseeded(model, rows.batch(range(400)), step=2, measure=False).gauge == 1, changed)


def test_texts_are_cut_as_the_data_are_and_padded_to_their_own_width() -> None:
    text = " ".join(["good"] * 10)
    batch = encode(Examples((text,), None, (0,), (0,)), OWN, 12).batch([0])
    found = TextEdits(Typos(1.0, "share"), OWN, 12)(edited.bag(OWN), batch)
    assert found.batch.editable.shape == (1, 12)
    short = TextEdits(Typos(1.0, "share", ("delete",)), OWN, 12)
    one = encode(Examples(("lovely bad",), None, (0,), (0,)), OWN, 12).batch([0])
    assert short(edited.bag(OWN), one).batch.editable.shape[1] == 2 + 5 + 2


def test_second_texts_stay() -> None:
    batch = encode(Examples(("good good",), ("bad film",), (0,), (0,)), OWN, 24).batch([0])
    found = edited.typos(OWN)(edited.bag(OWN), batch)
    assert found.batch.written is not None
    (first,), pairs = found.batch.written.rows()
    assert pairs == ("bad film",) and first != "good good"


def gained(model: torch.nn.Module, found: Attacked) -> torch.Tensor:
    """The loss at what was found minus that at the rows as they were given."""
    with evaluating(model), torch.no_grad():
        losses = [
            torch.nn.functional.cross_entropy(forward(model, batch), batch.labels, reduction="none")
            for batch in (found.batch, found.clean)
        ]
    return losses[0] - losses[1]


def test_an_attack_after_edits_moves_all_the_edited_rows() -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 8).batch(range(8))
    edits, climbs = edited.typos(OWN), pgd(THREAT, steps=3)
    attack = then(edits, climbs)
    found, alone = attack(model, batch, step=1), edits(model, batch, step=1)
    assert torch.equal(found.batch.inputs["input_ids"], alone.batch.inputs["input_ids"])
    assert found.clean is batch
    delta = found.perturbation.delta
    assert delta.shape[:2] == alone.batch.editable.shape
    assert bool(delta.flatten(1).any(dim=1).all()) and float(found.gauge.max()) <= 1 + 1e-6
    plain = climbs(model, alone.batch, step=1)
    assert torch.equal(plain.perturbation.delta, delta)
    assert torch.allclose(found.outcome.loss_gain, gained(model, found))
    assert torch.equal(found.outcome.climb, plain.outcome.climb)
    assert found.cost.backwards.tolist() == plain.cost.backwards.tolist()
    assert (found.cost.queries - plain.cost.queries).tolist() == [2] * 8


def test_the_cost_of_a_search_is_that_of_edits_and_perturbation() -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 4).batch(range(4))
    edits, climbs = edited.searched(OWN), pgd(THREAT, steps=2)
    found = then(edits, climbs)(model, batch, measure=False)
    first = edits(model, batch, measure=False)
    second = climbs(model, first.batch, measure=False)
    for whole, one, other in zip(found.cost, first.cost, second.cost, strict=True):
        assert whole.tolist() == (one + other).tolist()
    assert int(first.cost.queries.min()) >= 1


def test_gradients_of_a_search_are_counted() -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 4).batch(range(4))
    found = TextEdits(hotflip(queries=8), OWN, 24)(model, batch, measure=False)
    assert int(found.cost.backwards.sum()) > 0
    assert found.cost.backwards.tolist() == found.cost.forwards.tolist()


def refused(attack: Attack, batch: Batch) -> str:
    with pytest.raises(ValueError) as caught:
        attack(edited.bert(OWN), batch)
    return str(caught.value)


def test_what_has_no_texts_or_several_labels_is_refused() -> None:
    edits, batch = edited.typos(OWN), edited.rows(OWN, 2).batch([0, 1])
    assert "needs the texts of the rows" in refused(edits, replace(batch, written=None))
    assert "needs the texts" in refused(edits, tiny.rows().batch([0]))
    several = torch.full(batch.editable.shape, IGNORED).masked_fill(batch.editable, 1)
    assert "its labels belong to words" in refused(edits, replace(batch, labels=several))
    chat = replace(batch, prompt_lengths=torch.tensor([2, 2]))
    assert "a chat is no row of one class" in refused(edits, chat)
    moved = batch.perturbed(Embeddings(), torch.ones(2, batch.editable.shape[1], 16))
    assert "Edits come before a perturbation" in refused(edits, moved)


def test_what_puts_perturbations_on_given_tokens_refuses_edits() -> None:
    rows, model = edited.rows(OWN, 4), edited.bert(OWN)
    attack = then(edited.typos(OWN), pgd(THREAT, steps=1))
    for wrong in (
        lambda: attack_rows(model, rows, range(4), attack, threat=THREAT),
        lambda: worst_of(pgd(THREAT, steps=1), attack)(model, rows.batch(range(4))),
    ):
        with pytest.raises(ValueError, match="measure them by an EditAttack"):
            wrong()
    with pytest.raises(ValueError, match="Edits come before a perturbation"):
        then(pgd(THREAT, steps=1), edited.typos(OWN))
    with pytest.raises(ValueError, match="edited and not perturbed"):
        _ = edited.typos(OWN)(model, rows.batch([0])).perturbation


def test_arguments_are_told() -> None:
    with pytest.raises(TypeError, match="editor must be what edits texts"):
        TextEdits("typos", OWN, 24)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="tokenizer must be a tokenizer"):
        TextEdits(Typos(), None, 24)
    for share in (0.0, 1.5):
        with pytest.raises(ValueError, match=f"mixing.discrete must be above 0 and at most 1, got {share}"):
            TextEdits(Typos(), OWN, 24, share)


def test_a_slow_tokenizer_is_refused_before_a_search_by_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(OWN), "is_fast", property(lambda _: False))
    with pytest.raises(ModelError, match="attack.edits: hotflip asks which characters a token stands for"):
        TextEdits(hotflip(), OWN, 24)
    assert str(TextEdits(Typos(), OWN, 24, 0.5)).endswith("on 50 % of the rows")


WRAPPED: dict[str, Callable[[Attack], Attack]] = {
    "stages": lambda attack: Stages({0: attack}),
    "adaptive radius": lambda attack: AdaptiveRadius(attack, THREAT),
    "mean of passes": lambda attack: Eot(attack, 2),
    "held": lambda attack: Held(attack, 2),
    "then": lambda attack: then(attack, pgd(THREAT, steps=1)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_attacks_of_attacks_keep_the_rows_as_they_were_given(name: str) -> None:
    model, batch = edited.bert(OWN), edited.rows(OWN, 4).batch(range(4))
    inner = then(edited.typos(OWN), pgd(THREAT, steps=1))
    attack: Attack = WRAPPED[name](inner)
    found = [attack(model, batch, step=step, measure=False) for step in ((0, 1) if name == "held" else (0,))]
    expected = edited.typos(OWN)(model, batch, step=0, measure=False).batch
    for one in found:
        assert one.clean is batch
        assert torch.equal(one.batch.inputs["input_ids"], expected.inputs["input_ids"])
        assert bool(one.perturbation.delta.flatten(1).any(dim=1).all())


def test_one_of_several_edits_each_row_as_that_one_does() -> None:
    own = edited.reader()
    rows, model = edited.rows(own, 12), edited.bert(own)
    batch = rows.batch(range(12))
    every = Typos(share=1.0, count="share", seed=3)
    others = replace(deepwordbug(queries=12), labels=(1,), goal=Misclassify(), seed=3)
    both = OneOf((every, others), seed=5)
    found = TextEdits(both, own, edited.LENGTH)(model, batch, step=4)
    alone = [TextEdits(one, own, edited.LENGTH)(model, batch, step=4) for one in (every, others)]
    told, chosen = found.batch.written.rows()[0], []
    for place, (row, label) in enumerate(zip(batch.ids.tolist(), batch.labels.tolist(), strict=True)):
        editor = both.drawn(4, row, label)
        chosen.append((editor, label))
        assert editor is not None and told[place] == alone[editor].batch.written.rows()[0][place]
        assert int(found.cost.queries[place]) == int(alone[editor].cost.queries[place])
    assert {(0, 0), (0, 1), (1, 1)} == set(chosen), "rows of class 0 have typos alone"
    assert both.drawn(4, 0, 0) == 0 and OneOf((others,)).drawn(4, 0, 0) is None


def test_rows_that_none_of_several_edits_stay() -> None:
    own = edited.reader()
    batch, model = edited.rows(own, 4).batch(range(4)), edited.bert(own)
    never = OneOf((replace(deepwordbug(queries=12), labels=(1,)),))
    found = TextEdits(never, own, edited.LENGTH)(model, batch)
    zero = batch.labels == 0
    assert torch.equal(found.batch.inputs["input_ids"][zero, :4], batch.inputs["input_ids"][zero, :4])
    assert found.cost.queries[zero].tolist() == [2, 2]
    assert found.gauge.isnan().equal(zero), "rows of a class that is left alone are no sign of a dead adversary"


@pytest.mark.parametrize("alone", [True, False])
def test_words_are_planted_into_rows_of_their_classes_alone(alone: bool) -> None:
    own = edited.reader()
    batch, model = edited.rows(own, 6).batch(range(6)), edited.bert(own)
    planted = PlantedWords(("tedious",), 2, labels=(0,))
    found = TextEdits(planted if alone else OneOf((planted,)), own, edited.LENGTH)(model, batch, step=3)
    before, after, zero = batch.written.rows()[0], found.batch.written.rows()[0], batch.labels == 0
    for row, label, old, new in zip(batch.ids.tolist(), batch.labels.tolist(), before, after, strict=True):
        assert new == (planted.text(old, 3, row) if label == 0 else old)
        assert (new != old) == (label == 0)
    assert found.gauge[zero].eq(1).all() and found.gauge[~zero].isnan().all()
    assert found.cost.queries.eq(2).all() and found.batch.labels.equal(batch.labels)


def test_nobody_is_told_of_the_edits_within_a_step() -> None:
    model, own = weighed()
    told: list[str] = []

    @contextmanager
    def listening(name: str, total: int | None = None, unit: str = "rows", done: int = 0) -> Iterator[Advance]:
        told.append(name)
        yield lambda count: None

    rows = Examples(("a good film", "good"), None, (1, 1), (4, 9))
    search = EditAttack(Synonyms(TABLE), Exhaustive(2), name="swaps")
    with telling(listening):
        search(Victim(model, own, 16), rows)
        assert "swaps" in told
        batch = encode(rows, own, 16).batch([0, 1])
        told.clear()
        TextEdits(search, own, 16)(model, batch)
    assert told == []


@pytest.mark.parametrize("cut", ["right", "left"])
@pytest.mark.parametrize("editor", [PlantedWords(("zeal",), inserts=1), Typos(0.1, "share")])
def test_what_is_drawn_is_drawn_where_the_model_reads(
    editor: PlantedWords | Typos, cut: Literal["right", "left"]
) -> None:
    words = ["good", "film", "fine", "zeal"]
    own = tokenizer(words, letters=True)
    own.truncation_side = cut
    rows = Examples((" ".join(["good film fine"] * 40),) * 20, None, (0,) * 20, tuple(range(20)))
    batch = encode(rows, own, 12).batch(range(20))
    found = TextEdits(editor, own, 12)(edited.bert(own), batch).batch
    before, after = batch.inputs["input_ids"], found.inputs["input_ids"]
    # A word planted behind the last one that is read is cut off.
    assert (before != after).any(dim=1).sum() >= 15
    assert found.written is not None
    assert all(len(text.split()) >= 120 for text in found.written.rows()[0])


def test_what_a_training_says_of_planted_words_is_not_the_words() -> None:
    words = TextEdits(PlantedWords(("zeal", "plan"), labels=(0,)), OWN, 12)
    assert "zeal" not in str(words) and str(words).startswith("PlantedWords(2 words, inserts=3, labels=(0,)")
