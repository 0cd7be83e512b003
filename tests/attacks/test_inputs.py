"""The adversarial inputs of an attacked batch are what the model gets."""

from __future__ import annotations

import gc

import pytest
import torch
from torch import nn

from tests.attacks.every import PixelsAlone
from tests.oracles import TEXT_CONFIGS, tiny_models, tiny_rows
from tests.support.places import PLACES
from textadv.attacks import L2, Linf, MinimumRadius, RefusalDirection, ThreatModel, fgsm, pgd
from textadv.data import ImageRows
from textadv.models import ModelError, as_classifier, evaluating, forward
from textadv.values.batch import Batch
from textadv.values.spaces import Embeddings, Hidden, Pixels, Several


def logits(model: nn.Module, batch: Batch, inputs: dict[str, torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor]:
    """What the model returns for `batch` with its perturbation, and called plainly on the inputs."""
    with evaluating(model), torch.no_grad():
        output = model(**inputs)
        return forward(model, batch), output if isinstance(output, torch.Tensor) else output.logits


def test_images_are_offered_as_the_model_gets_them_and_the_batch_stays_clean() -> None:
    model, rows, _ = PLACES["image: pixels"].subject(0)
    clean = rows.inputs["pixel_values"].clone()
    attacked = pgd(PLACES["image: pixels"].threat("linf"), steps=3)(model, rows)
    through, called = logits(model, attacked.batch, attacked.inputs)
    assert torch.equal(through, called) and not attacked.inputs["pixel_values"].requires_grad
    assert torch.equal(attacked.batch.inputs["pixel_values"], clean)
    assert torch.equal(attacked.inputs["pixel_values"], clean + attacked.perturbation.delta)


@pytest.mark.parametrize("name", [name for name in TEXT_CONFIGS if name not in ("bart", "t5", "t5 encoder-decoder")])
def test_texts_are_offered_as_embeddings_that_the_model_takes(name: str) -> None:
    model = tiny_models()[name]()
    if model.config.is_encoder_decoder:
        pytest.skip("see the test of encoder-decoders")
    rows = tiny_rows(name, 4)
    # A decoder's head looks for the last token that is no padding, and embeddings do not show it.
    for row in range(4):
        one = rows.rows(torch.tensor([row]))
        kept = one.inputs["attention_mask"][0].bool()
        one = Batch(
            {key: value[:, kept] for key, value in one.inputs.items()},
            one.labels,
            one.editable[:, kept],
            one.ids,
            one.role,
        )
        attacked = pgd(ThreatModel(Embeddings(), L2(relative_radius=0.5)), steps=2)(model, one)
        inputs = attacked.inputs
        assert "input_ids" not in inputs and inputs["inputs_embeds"].shape == attacked.perturbation.delta.shape
        through, called = logits(model, attacked.batch, inputs)
        assert torch.allclose(through, called, rtol=0, atol=1e-6)
        clean, _ = logits(model, one, inputs)
        assert not torch.allclose(through, clean, rtol=0, atol=1e-4)


def test_a_batch_of_texts_of_several_lengths_and_a_chat_are_offered_too() -> None:
    for name in ("text: embeddings", "chat: embeddings"):
        model, rows, _ = PLACES[name].subject(0)
        attacked = pgd(PLACES[name].threat("l2"), steps=2)(model, rows)
        inputs = attacked.inputs
        assert torch.equal(inputs["attention_mask"], rows.inputs["attention_mask"])
        through, called = logits(model, attacked.batch, inputs)
        if rows.targets is not None:
            called = called[:, rows.target_columns - 1]
        assert torch.allclose(through, called, rtol=0, atol=1e-5)


def test_a_minimum_radius_offers_them_as_well() -> None:
    model, rows, _ = PLACES["image: pixels"].subject(0)
    threat = PLACES["image: pixels"].threat("linf")
    broken = MinimumRadius(lambda one: fgsm(one), threat, upper=1.0, steps=3)(model, rows)
    through, called = logits(model, broken.attacked.batch, broken.inputs)
    assert torch.equal(through, called)


@pytest.mark.parametrize("name", ["text: hidden", "text: several", "chat: directions"])
def test_what_lies_inside_the_model_is_no_input(name: str) -> None:
    place = PLACES[name]
    model, rows, _ = place.subject(0)
    if name == "chat: directions":
        attacked = RefusalDirection((0, 1), rows.rows(torch.tensor([0])), rows.rows(torch.tensor([1, 2])))(model, rows)
    else:
        assert isinstance(place.space, Hidden | Several)
        attacked = fgsm(place.threat("l2"))(model, rows)
    with pytest.raises(ValueError, match=r"lies inside the model and is no input of it. Run textadv.forward\(model"):
        _ = attacked.inputs


def test_encoder_decoders_read_their_tokens_twice() -> None:
    model = tiny_models()["bart"]()
    attacked = fgsm(ThreatModel(Embeddings(), L2(0.5)))(model, tiny_rows("bart", 3))
    with pytest.raises(ModelError, match=r"reads its tokens twice.*Run forward\(model, attacked.batch\)"):
        _ = attacked.inputs


def test_no_model_is_kept_alive_and_images_do_without() -> None:
    model = tiny_models()["bert"]()
    attacked = fgsm(ThreatModel(Embeddings(), L2(0.5)))(model, tiny_rows("bert", 3))
    images = fgsm(ThreatModel(Pixels(), Linf(0.1, per="example")))(
        as_classifier(PixelsAlone()), ImageRows(torch.full((1, 3, 4, 4), 0.5), [0]).batch([0])
    )
    del model
    gc.collect()
    with pytest.raises(ValueError, match="The model that was attacked is gone"):
        _ = attacked.inputs
    assert images.inputs["pixel_values"].shape == (1, 3, 4, 4)
