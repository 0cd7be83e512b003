"""Texts in windows: the numbers are transformers' own for each, and the worst window decides and is attacked."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from textadv.attacks import L2, ThreatModel, pgd
from textadv.data import DataError, EncodedRows, Examples, encode, reviews_tokenizer
from textadv.models import LoadedModel, evaluating, forward, load_classifier, running
from textadv.models.running import hidden_states
from textadv.models.victim import Asked, Victim
from textadv.models.windows import SEARCHED_WINDOWS
from textadv.values.batch import Batch
from textadv.values.errors import ModelError
from textadv.values.spaces import Embeddings, Hidden, Several
from textadv.values.texts import Windows
from textadv.values.windows import apart

TEXTS = ("a good film . " * 9, "good", "", "an awful plot " * 3 + "a nice end " * 14, "bad " * 14)
WINDOWS = Windows(length=16, overlap=4, toward=1)
INJECTION, FILLER = "awful", "a good film . "
sides = pytest.mark.parametrize("side", ["right", "left"])


@pytest.fixture(scope="module")
def tiny() -> LoadedModel:
    return load_classifier("builtin:tiny-encoder", ["benign", "injection"], seed=0)


def examples(*texts: str) -> Examples:
    return Examples(texts, None, (1,) * len(texts), tuple(range(len(texts))))


def rows_of(tiny: LoadedModel, side: str = "right", windows: Windows | None = WINDOWS) -> EncodedRows:
    tokenizer = reviews_tokenizer()
    tokenizer.padding_side = side
    return encode(examples(*TEXTS), tokenizer, 16, windows=windows)


def own_windows(model: nn.Module, text: str, side: str = "right") -> Tensor:
    """The logits (W, C) of each window of one text, by transformers alone."""
    tokenizer = reviews_tokenizer()
    tokenizer.padding_side = side
    encoded = tokenizer(
        text,
        truncation=True,
        max_length=16,
        stride=4,
        return_overflowing_tokens=True,
        padding=True,
        return_tensors="pt",
    )
    encoded.pop("overflow_to_sample_mapping")
    with evaluating(model), torch.no_grad():
        found: Tensor = model(**encoded).logits
    return found


@sides
def test_a_text_has_the_logits_of_its_worst_window_by_transformers_alone(tiny: LoadedModel, side: str) -> None:
    rows = rows_of(tiny, side)
    # A BERT that is padded on the left counts its positions from there: shorter rows are others beside longer ones.
    texts = TEXTS if side == "right" else (TEXTS[0], TEXTS[3], TEXTS[4])
    places = [TEXTS.index(text) for text in texts]
    with evaluating(tiny.model), torch.no_grad():
        found = forward(tiny.model, rows.batch(places))
        alone = torch.cat([forward(tiny.model, rows.batch([place])) for place in places])
    counts = []
    for place, text in enumerate(texts):
        each = own_windows(tiny.model, text, side)
        counts.append(len(each))
        worst = each[(each[:, 1] - each[:, 0]).argmax()]
        torch.testing.assert_close(found[place], worst, atol=1e-6, rtol=0)
    torch.testing.assert_close(found, alone, atol=1e-6, rtol=0)
    assert max(counts) > SEARCHED_WINDOWS and min(counts) == (1 if side == "right" else 3)


def test_the_other_class_may_decide(tiny: LoadedModel) -> None:
    rows = rows_of(tiny, windows=Windows(16, 4, toward=0))
    with evaluating(tiny.model), torch.no_grad():
        found = forward(tiny.model, rows.batch([0]))[0]
    each = own_windows(tiny.model, TEXTS[0])
    torch.testing.assert_close(found, each[(each[:, 0] - each[:, 1]).argmax()], atol=1e-6, rtol=0)


@pytest.mark.parametrize("space", [Embeddings(), Hidden(0), Several((Embeddings(), Hidden(0)))])
@sides
def test_a_delta_moves_the_tokens_of_every_window(tiny: LoadedModel, side: str, space: object) -> None:
    rows = rows_of(tiny, side)
    batch = rows.batch(range(len(TEXTS)))
    width = tiny.model.config.hidden_size
    places = (2,) if isinstance(space, Several) else ()
    draw = torch.Generator().manual_seed(0)
    delta = torch.randn((len(TEXTS), *places, batch.editable.shape[1], width), generator=draw) / 10
    moved = batch.perturbed(space, delta)  # type: ignore[arg-type]
    with evaluating(tiny.model), torch.no_grad():
        clean, found = forward(tiny.model, batch), forward(tiny.model, moved)
        parts = apart(moved)
        each = forward(tiny.model, parts.batch)
    for row in range(len(TEXTS)):
        own = each[parts.row == row]
        torch.testing.assert_close(found[row], own[(own[:, 1] - own[:, 0]).argmax()], atol=1e-6, rtol=0)
    assert float((found - clean).abs().max()) > 1e-4


def test_training_takes_the_gradient_of_the_window_that_decides(tiny: LoadedModel) -> None:
    rows, model = rows_of(tiny), tiny.model
    model.eval()
    batch = rows.batch([0])
    loss = forward(model, batch)[0, 1]
    found = torch.autograd.grad(loss, list(model.parameters()), allow_unused=True)
    parts = apart(batch)
    with torch.no_grad():
        worst = parts.worst(forward(model, parts.batch))
    expected = torch.autograd.grad(
        forward(model, parts.batch.rows(worst))[0, 1], list(model.parameters()), allow_unused=True
    )
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            torch.testing.assert_close(one, other)


def windows_with_gradient(model: nn.Module, batch: Batch) -> set[int]:
    """Which windows of the batch's one row a gradient reaches."""
    delta = torch.zeros(*batch.editable.shape, model.config.hidden_size, requires_grad=True)  # type: ignore[union-attr, arg-type, call-overload]
    (grad,) = torch.autograd.grad(forward(model, batch.perturbed(Embeddings(), delta)).sum(), delta)
    return set((grad[0].abs().sum(dim=-1).nonzero().squeeze(1) // WINDOWS.length).tolist())


def test_a_search_sees_the_worst_windows_and_training_one(tiny: LoadedModel) -> None:
    batch = rows_of(tiny).batch([0])
    tiny.model.eval()
    assert len(windows_with_gradient(tiny.model, batch)) == SEARCHED_WINDOWS
    tiny.model.train()
    assert len(windows_with_gradient(tiny.model, batch)) == 1
    tiny.model.eval()


def trigger_model() -> tuple[nn.Module, int]:
    """A model that sums over words, and the token that it looks for."""
    tokenizer = reviews_tokenizer()
    (token,) = tokenizer(f" {INJECTION}", add_special_tokens=False)["input_ids"][-1:]
    return Words(len(tokenizer), token), token


class Words(nn.Module):
    """Logit 1 is the sum of 4 for each trigger, logit 0 is 1."""

    def __init__(self, size: int, trigger: int) -> None:
        super().__init__()
        self.embeddings = nn.Embedding(size, 1)
        with torch.no_grad():
            self.embeddings.weight.zero_()
            self.embeddings.weight[trigger] = 4.0

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor, **_: Tensor) -> Tensor:
        score = (self.embeddings(input_ids).squeeze(-1) * attention_mask).sum(dim=1)
        return torch.stack([torch.ones_like(score), score], dim=1)


def test_an_injection_behind_the_last_token_that_is_read_is_found_in_windows() -> None:
    model, _ = trigger_model()
    padded = FILLER * 20 + INJECTION
    for text, cut, read in ((INJECTION, 1, 1), (padded, 0, 1), (FILLER * 20, 0, 0)):
        for windows, expected in ((None, cut), (WINDOWS, read)):
            batch = encode(examples(text), reviews_tokenizer(), 16, windows=windows).batch([0])
            with torch.no_grad():
                assert int(forward(model, batch).argmax(dim=1)) == expected, (text[-20:], windows)
            logits = Victim(model, reviews_tokenizer(), 16, windows=windows).logits([Asked(text)])
            assert int(logits.argmax(dim=1)) == expected


def test_a_victim_in_windows_knows_where_every_token_stands() -> None:
    model, trigger = trigger_model()
    victim = Victim(model, reviews_tokenizer(), 16, windows=WINDOWS)
    text = FILLER * 8 + INJECTION
    assert victim.read(Asked(text)) == (0, len(text))
    assert Victim(model, reviews_tokenizer(), 16).read(Asked(text))[1] < len(text)
    (found,) = victim.slopes([Asked(text)], lambda logits, _: logits[:, 1])
    (place,) = {n for n, token in enumerate(found.tokens) if token == trigger}
    start, stop = found.spans[place]
    assert text[start:stop] in INJECTION and start >= len(text) - len(INJECTION)


def test_an_attack_turns_a_row_only_where_it_turns_all_its_windows() -> None:
    model, _ = trigger_model()
    # Five windows with a trigger each: every one of them has to fall below.
    text = (f"{INJECTION} " + FILLER * 3) * 5
    batch = encode(examples(text), reviews_tokenizer(), 16, windows=WINDOWS).batch([0])
    attacked = pgd(ThreatModel(Embeddings(), L2(radius=1.0)), steps=12)(model, batch)
    with torch.no_grad():
        assert int(forward(model, batch).argmax(dim=1)) == 1
        assert int(forward(model, attacked.batch).argmax(dim=1)) == 0


def test_hidden_states_of_windows_are_refused(tiny: LoadedModel) -> None:
    with pytest.raises(ModelError, match="have no one shape. Set data.windows: null"):
        hidden_states(tiny.model, rows_of(tiny).batch([0]), [0])


def test_windows_that_cannot_be_read_are_refused() -> None:
    tokenizer = reviews_tokenizer()
    pairs = Examples(("a",), ("b",), (0,), (0,))
    with pytest.raises(
        DataError, match="data.windows reads one text in windows, and data.text_pair gives each row two"
    ):
        encode(pairs, tokenizer, 16, windows=WINDOWS)
    message = r"data.windows.overlap must be below the 14 tokens of a text in a window .*got 14. Lower it"
    with pytest.raises(DataError, match=message):
        encode(examples("a"), tokenizer, 16, windows=Windows(16, 14, 1))
    with pytest.raises(ValueError, match="Windows of 16 tokens need max_length 16, got 32"):
        encode(examples("a"), tokenizer, 32, windows=WINDOWS)


def test_fsdp_is_refused_for_windows(tiny: LoadedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "FSDPModule", nn.Module)
    batch = rows_of(tiny).batch([1])
    with pytest.raises(ModelError, match="data.windows makes processes run different numbers of passes, which FSDP"):
        forward(tiny.model, batch)
    forward(tiny.model, replace(batch, windows=None))
