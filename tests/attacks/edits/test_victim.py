"""Texts asked in batches of many rows: the logits of the package's own forward, one by one or together."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from transformers import BertConfig, BertForSequenceClassification, PreTrainedTokenizerFast

from tests.attacks.edits.toys import Sums, rows, tokenizer, victim
from textadv.attacks.edits import EditAttack, Greedy, Letter, NotTwice, Victim
from textadv.data import EncodedRows, Examples, encode
from textadv.models import ModelError, evaluating, forward
from textadv.models.victim import Asked, parted
from textadv.values.randomness import seeded_scope

TEXTS = ("a good film", "bad", "", "a long and very tedious film that goes on and on and on", "good good good")


def bert(tokens: int = 400, **settings: int) -> Victim:
    """A BERT of random weights whose words are pieces of one letter."""
    own = tokenizer(["good", "bad", "film"], letters=True)
    config = BertConfig(
        vocab_size=len(own),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=32,
        max_position_embeddings=64,
        num_labels=3,
        initializer_range=0.4,
    )
    with seeded_scope(1):
        model = BertForSequenceClassification(config).train()
    return Victim(model, own, max_length=40, tokens_per_batch=tokens, **settings)


def test_the_logits_are_those_of_encode_and_forward() -> None:
    own = bert()
    encoded = encode(Examples(TEXTS, None, (0,) * 5, tuple(range(5))), own.tokenizer, 40)
    with evaluating(own.model), torch.no_grad():
        each = torch.cat([forward(own.model, encoded.batch([n])) for n in range(5)])
    assert torch.allclose(own.logits([Asked(text) for text in TEXTS]), each, atol=1e-5)
    assert float((each[0] - each[1]).abs().max()) > 1e-2


@pytest.mark.parametrize("tokens", [1, 60, 400])
def test_batched_is_one_by_one_and_no_batch_exceeds_its_tokens(tokens: int) -> None:
    own, one = bert(tokens), bert(1)
    asked = [Asked(text) for text in TEXTS * 3]
    shapes: list[tuple[int, int]] = []
    handle = own.model.register_forward_pre_hook(
        lambda _m, _a, options: shapes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    together = own.logits(asked)
    handle.remove()
    assert torch.allclose(together, torch.cat([one.logits([text]) for text in asked]), atol=1e-5)
    assert all(count * width <= tokens or count == 1 for count, width in shapes)
    assert (len(shapes) == 5) == (tokens == 1)


def test_texts_of_the_same_tokens_go_through_the_model_once() -> None:
    own = bert()
    assert isinstance(own.model, BertForSequenceClassification)
    seen: list[int] = []
    handle = own.model.register_forward_pre_hook(
        lambda _m, _a, options: seen.append(len(options["input_ids"])), with_kwargs=True
    )
    found = own.logits([Asked("good film"), Asked("bad"), Asked("Good  film"), Asked("good", "film")])
    handle.remove()
    assert sum(seen) == 3 and torch.equal(found[0], found[2])
    assert not torch.equal(found[0], found[3]), "a pair is read as one"


def test_a_batch_ends_where_padding_costs_more_than_a_pass() -> None:
    assert list(parted([2, 9, 8], 100, 5)) == [[1, 2], [0]]
    assert list(parted([2, 9, 8], 100, 8)) == [[1, 2, 0]]
    assert list(parted([2, 9, 8], 100, 0)) == [[1], [2], [0]]
    assert list(parted([5, 5, 5, 5], 11, 0)) == [[0, 1], [2, 3]] and list(parted([30, 1], 11, 99)) == [[0], [1]]


@given(st.lists(st.integers(1, 40), max_size=30), st.integers(1, 200), st.integers(0, 60))
def test_every_text_is_in_one_batch(lengths: list[int], most: int, spared: int) -> None:
    parts = list(parted(lengths, most, spared))
    assert sorted(place for part in parts for place in part) == list(range(len(lengths)))
    for part in parts:
        width = max(lengths[place] for place in part)
        assert len(part) == 1 or len(part) * width <= most
        assert sum(width - lengths[place] for place in part) <= spared


def test_what_texts_are_read_by_is_known_by_a_hash() -> None:
    own = bert()
    before = own.reading
    own.logits([Asked("good")])
    assert own.reading == before, "a call leaves lengths in the tokenizer"
    longer = Victim(own.model, own.tokenizer, max_length=41)
    other = Victim(own.model, tokenizer(["good", "bad"], letters=True), max_length=40)
    assert len({before, longer.reading, other.reading}) == 3


def test_what_tokenizer_config_alone_says_changes_the_hash() -> None:
    own = bert()
    before = own.reading
    own.tokenizer.truncation_side = "left"
    cut = own.reading
    own.tokenizer.split_special_tokens = True
    assert len({before, cut, own.reading}) == 3


def test_no_question_leaves_a_length_in_the_tokenizer() -> None:
    own = bert()
    assert isinstance(own.tokenizer, PreTrainedTokenizerFast)
    own.read(Asked("good film"))
    own.slopes([Asked("good film")], lambda logits, _index: logits[:, 0])
    assert own.tokenizer.backend_tokenizer.truncation is None


def test_long_texts_are_tokenised_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    own = bert()
    asked = [Asked(text) for text in TEXTS * 3]
    together = own.logits(asked)
    sizes: list[int] = []
    plain = Victim._encoded

    def counted(self: Victim, asked: Sequence[Asked], spans: bool = False) -> EncodedRows:
        sizes.append(sum(len(one.text) for one in asked))
        return plain(self, asked, spans)

    monkeypatch.setattr(Victim, "_encoded", counted)
    monkeypatch.setattr("textadv.models.victim.CHARACTERS_AT_ONCE", 60)
    assert torch.allclose(own.logits(asked), together, atol=1e-5)
    assert len(sizes) > 3 and max(sizes) <= 60


def test_pairs_are_encoded_as_pairs() -> None:
    own = bert()
    encoded = encode(Examples(("a film",), ("bad",), (0,), (0,)), own.tokenizer, 40)
    with evaluating(own.model), torch.no_grad():
        expected = forward(own.model, encoded.batch([0]))
    assert torch.allclose(own.logits([Asked("a film", "bad")]), expected, atol=1e-5)
    assert not torch.allclose(own.logits([Asked("a film")]), expected, atol=1e-3)


def test_a_row_whose_second_text_is_empty_is_told_as_it_is_read() -> None:
    """The second text's end takes a token away from the first: here the word `film`."""
    own = Victim(bert().model, bert().tokenizer, max_length=5)
    asked = Asked("good bad film", "")
    encoded = encode(Examples(("good bad film",), ("",), (0,), (0,)), own.tokenizer, 5)
    (slopes,) = own.slopes([asked], lambda logits, _index: logits[:, 0])
    assert list(slopes.tokens) == encoded.tokens[0]
    assert slopes.spans == ((0, 0), (0, 4), (5, 8), (0, 0), (0, 0)) and len(slopes.gradient) == 5
    assert own.read(asked) == (0, 8) and own.read(Asked("good bad film")) == (0, 13)


def test_modes_and_gradients_are_as_before() -> None:
    own = bert()
    own.logits([Asked("good")])
    own.slopes([Asked("good")], lambda logits, _index: logits[:, 0])
    assert own.model.training and all(module.training for module in own.model.modules())
    assert all(weight.grad is None for weight in own.model.parameters())


def test_slopes_are_gradients_at_the_embeddings_with_the_characters_of_each_token() -> None:
    own = victim({"good": 2.0, "bad": -1.0})

    def value(logits: Tensor, index: Sequence[int]) -> Tensor:
        return logits[:, 0] - (1.0 + torch.tensor(index, dtype=logits.dtype)) * logits[:, 1]

    first, second = own.slopes([Asked("good x bad"), Asked("bad")], value)
    assert first.spans == ((0, 0), (0, 4), (5, 6), (7, 10), (0, 0))
    assert torch.equal(first.gradient, torch.tensor([[1.0, -1.0]]).expand(5, 2))
    assert torch.equal(second.gradient, torch.tensor([[1.0, -2.0]]).expand(3, 2))
    assert first.first_of(7, 10) == 3 and first.first_of(4, 5) is None and first.within(0, 6) == [1, 2]


def test_padding_on_the_left_moves_no_slope() -> None:
    own = victim({"good": 2.0, "bad": -1.0})
    right = own.slopes([Asked("good x bad"), Asked("bad")], lambda logits, _: logits[:, 1])
    own.tokenizer.padding_side = "left"
    left = own.slopes([Asked("good x bad"), Asked("bad")], lambda logits, _: logits[:, 1])
    assert all(torch.equal(a.gradient, b.gradient) and a.tokens == b.tokens for a, b in zip(right, left, strict=True))


def test_only_what_the_model_reads_is_edited() -> None:
    own = victim({"good": 2.0}, max_length=4)
    assert own.read(Asked("one good two three")) == (0, 8)
    spec = EditAttack(Letter("swap", "all"), Greedy("delete"), (NotTwice(),))
    (row,) = spec(own, rows("one good two three")).rows
    assert row.status.value == "succeeded" and row.edited.split()[2:] == ["two", "three"]


def test_only_what_the_model_reads_is_edited_where_the_beginning_is_cut_off() -> None:
    own = victim({"good": 2.0}, max_length=4)
    own.tokenizer.truncation_side = "left"
    assert own.read(Asked("one three good two")) == (10, 18)
    spec = EditAttack(Letter("swap", "all"), Greedy("delete"), (NotTwice(),))
    row, cut = spec(own, rows("one three good two", "good two three")).rows
    assert row.status.value == "succeeded" and row.edited.split()[:2] == ["one", "three"]
    assert cut.edited.split()[0] == "good"


def test_whole_words_and_their_neighbours() -> None:
    own = victim({"good": 2.0, "fine": 1.9, "bad": -1.0}, letters=True)
    names = [name for name, _ in own.words]
    assert {"good", "fine", "bad"} <= set(names) and not any(name.startswith("##") for name in names)
    assert own.nearest(["good", "Good", "bad"], 1, 0.9) == [("fine",), ("fine",), ()]
    assert own.nearest(["good"], 5, -1.0)[0][0] == "fine"


def test_the_cache_counts_apart_what_is_asked_again() -> None:
    own = victim({"good": 2.0, "film": 0.1}, letters=True)
    model = own.model
    assert isinstance(model, Sums)
    spec = EditAttack(Letter("swap", "all"), Greedy("unk"), (NotTwice(),))
    (row,) = spec(own, rows("film film good")).rows
    asked = sum(count for count, _ in model.rows)
    # One more text told how many classes there are.
    assert row.queries == asked - 1 and row.status.value == "succeeded"
    texts = rows("film film good", "film film good")
    assert [one.queries for one in spec(own, texts).rows] == [asked - 1, asked - 1]


def test_what_is_no_victim_is_told() -> None:
    own = tokenizer(["good"])
    with pytest.raises(TypeError, match="tokenizer must be a tokenizer, got the text 'bert'"):
        Victim(Sums(torch.zeros(5, 2)), "bert")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="victim must be a victim.*got a Sums"):
        EditAttack(Letter("swap"), Greedy())(Sums(torch.zeros(5, 2)), rows("a"))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="label 5, and the model has 2 classes"):
        EditAttack(Letter("swap"), Greedy())(Victim(Sums(torch.zeros(5, 2)), own), rows("good", label=5))


def test_a_slow_tokenizer_cannot_give_gradients() -> None:
    from transformers import CanineTokenizer

    slow = CanineTokenizer()
    with pytest.raises(ModelError, match="CanineTokenizer cannot say which characters"):
        Victim(Sums(torch.zeros(5, 2)), slow).slopes([Asked("a")], lambda logits, _: logits[:, 0])
