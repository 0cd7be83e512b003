"""Image classifiers with normalisation inside: what they compute, what is refused, and where hidden states are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tests.vision import SIDE, tiny
from textadv.attacks import Linf, Square, ThreatModel, apgd_ce, pgd
from textadv.data import ImageRows
from textadv.models import ModelError, as_classifier, delta_shape, forward, logits_warning, patch_positions
from textadv.models.networks import NETWORKS
from textadv.values.batch import Batch
from textadv.values.spaces import Hidden, Pixels

ROWS = 6


def images(channels: int = 3, side: int = SIDE, count: int = ROWS) -> Batch:
    pixels = torch.rand(count, channels, side, side, generator=torch.Generator().manual_seed(0))
    return ImageRows(pixels, tuple(n % 4 for n in range(count)), tuple(range(count))).batch(range(count))


class Ending(nn.Module):
    """A linear classifier with something after it."""

    def __init__(self, end: nn.Module, channels: int = 3) -> None:
        super().__init__()
        self.linear = nn.Linear(channels * SIDE * SIDE, 4)
        self.end = end

    def forward(self, pixels: Tensor) -> Tensor:
        return self.end(self.linear(pixels.flatten(1)))


def test_pixels_are_normalised_inside_channel_by_channel() -> None:
    inner, batch = tiny("vit").eval(), images()
    model = as_classifier(inner, [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]).eval()
    pixels = batch.inputs["pixel_values"]
    shown = torch.stack([(pixels[:, n] - m) / s for n, (m, s) in enumerate([(0.5, 0.5), (0.4, 0.25), (0.3, 0.2)])], 1)
    with torch.no_grad():
        assert torch.equal(forward(model, batch), inner(pixel_values=shown).logits)
        plain = forward(as_classifier(inner).eval(), batch)
        assert torch.equal(plain, inner(pixel_values=pixels).logits)
    assert not torch.allclose(plain, forward(model, batch))
    assert set(model.state_dict()) == {f"model.{name}" for name in inner.state_dict()}


def test_a_delta_is_added_to_the_pixels_before_they_are_normalised() -> None:
    model, batch = as_classifier(Ending(nn.Identity()), [0.5] * 3, [0.1] * 3), images()
    delta = torch.full(delta_shape(model, batch, Pixels()), 0.01)
    moved = forward(model, batch.perturbed(Pixels(), delta))
    expected = forward(model, batch) + 0.1 * model.model.linear.weight.sum(dim=1)
    assert torch.allclose(moved, expected, atol=1e-5)


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("channels", "side"), [(1, 20), (3, 32), (1, 28)])
def test_built_in_networks_take_grey_and_colour_of_any_size(name: str, channels: int, side: int) -> None:
    model = as_classifier(NETWORKS[name](channels, side, side, 7)).eval()
    batch = images(channels, side)
    assert forward(model, batch).shape == (ROWS, 7)
    threat = ThreatModel(Pixels(), Linf(0.1, per="example"))
    attacked = pgd(threat, steps=3)(model, batch)
    assert float(attacked.outcome.loss_gain.min()) > 0 and float(attacked.gauge.max()) <= 1
    moved = batch.inputs["pixel_values"] + attacked.perturbation.delta
    assert float(moved.min()) >= 0 and float(moved.max()) <= 1


def test_the_small_cnn_is_the_network_of_the_paper() -> None:
    network = NETWORKS["builtin:small-cnn"](1, 28, 28, 10)
    # 320 + 9,248 + 18,496 + 36,928 in the convolutions, 1,024 features, 205,000 + 40,200 + 2,010 behind them.
    assert sum(value.numel() for value in network.parameters()) == 312_202


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_probabilities_are_named_and_log_probabilities_only_noted(dtype: torch.dtype) -> None:
    batch = images()
    assert logits_warning(as_classifier(Ending(nn.Identity()).to(dtype)), batch) is None
    with pytest.raises(ModelError, match="returns probabilities, not logits: all of 6 rows .* Remove the softmax"):
        logits_warning(as_classifier(Ending(nn.Softmax(dim=1)).to(dtype)), batch)
    noted = logits_warning(as_classifier(Ending(nn.LogSoftmax(dim=1)).to(dtype)), batch)
    assert noted is not None and "log-probabilities" in noted


def test_sigmoids_are_doubted_and_negative_logits_are_not_mistaken_for_probabilities() -> None:
    class Negative(nn.Module):
        def forward(self, logits: Tensor) -> Tensor:
            return -logits.abs()

    assert logits_warning(as_classifier(Ending(Negative())), images()) is None
    doubt = logits_warning(as_classifier(Ending(nn.Sigmoid())), images())
    assert doubt is not None and "all its outputs for 6 rows lie in [0, 1]. If a sigmoid ends it" in doubt


def test_small_logits_of_a_new_head_of_transformers_are_no_sigmoids() -> None:
    """Those of two classes lie in [0, 1] for every row by chance one time in four."""
    model = tiny("vit")
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.linspace(0.2, 0.6, len(model.classifier.bias)))
    assert logits_warning(as_classifier(model, [0.5] * 3, [0.5] * 3), images()) is None


def test_a_module_without_the_adapter_is_told_of_it() -> None:
    attack = pgd(ThreatModel(Pixels(), Linf(0.1, per="example")), steps=1)
    with pytest.raises(ModelError, match="Ending does not take its images by the name pixel_values.*as_classifier"):
        attack(Ending(nn.Identity()), images())


def test_an_output_without_logits_is_named() -> None:
    class Twice(nn.Module):
        def forward(self, logits: Tensor) -> tuple[Tensor, Tensor]:
            return logits, logits

    with pytest.raises(ModelError, match="The model returns tuple, which has no logits"):
        forward(as_classifier(Ending(Twice())), images())


def test_a_model_without_weights_is_attacked_too() -> None:
    class Brightness(nn.Module):
        def forward(self, pixels: Tensor) -> Tensor:
            lit = pixels.mean(dim=(1, 2, 3))
            return torch.stack([lit, -lit, lit * 0, lit * 0 - 1], dim=1)

    threat = ThreatModel(Pixels(), Linf(0.1, per="example"))
    for attack in (pgd(threat, steps=2), apgd_ce(threat, steps=3), Square(threat, 5)):
        attacked = attack(as_classifier(Brightness()), images())
        assert float(attacked.perturbation.delta.abs().max()) > 0


def test_log_probabilities_are_attacked_as_the_logits_are() -> None:
    plain, batch = Ending(nn.Identity()), images()
    logged = Ending(nn.LogSoftmax(dim=1))
    logged.load_state_dict(plain.state_dict())
    attack = pgd(ThreatModel(Pixels(), Linf(0.05, per="example")), steps=3)
    one, other = (attack(as_classifier(model), batch) for model in (plain, logged))
    assert torch.allclose(one.perturbation.delta, other.perturbation.delta, atol=1e-6)
    assert torch.allclose(one.outcome.loss_gain, other.outcome.loss_gain, atol=1e-5)


def test_a_model_that_does_not_take_the_images_or_returns_something_else_is_named() -> None:
    with pytest.raises(ModelError, match=r"does not take images of 1 channels and 20 x 20 pixels: .* data.channels"):
        logits_warning(as_classifier(Ending(nn.Identity())), images(1))
    with pytest.raises(ModelError, match=r"returns \(6, 2, 2\) for 6 rows"):
        logits_warning(as_classifier(Ending(nn.Unflatten(1, (2, 2)))), images())


def test_a_normalisation_of_one_number_or_of_bytes_is_refused() -> None:
    with pytest.raises(ValueError, match=r"mean needs one number per channel, such as \[0.5\], got the number 0.5"):
        as_classifier(Ending(nn.Identity()), 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"mean is of pixels in \[0, 1\], got .* Divide mean and std by 255"):
        as_classifier(Ending(nn.Identity()), [123.7, 116.3, 103.5], [58.4, 57.1, 57.4])


@pytest.mark.parametrize(("mean", "std"), [([0.5], [0.0]), ([0.5], [0.1, 0.2])])
def test_a_normalisation_that_cannot_be_is_refused(mean: list[float], std: list[float]) -> None:
    with pytest.raises(ValueError, match="std"):
        as_classifier(Ending(nn.Identity()), mean, std)


@pytest.mark.parametrize(("family", "first"), [("vit", 1), ("deit", 2)])
def test_hidden_states_of_transformers_are_moved_at_the_patches_only(family: str, first: int) -> None:
    model, batch = as_classifier(tiny(family)).eval(), images()
    assert patch_positions(model, batch, 0) == (16 + first, first)
    rows = ImageRows(
        batch.inputs["pixel_values"], tuple(batch.labels.tolist()), tuple(range(ROWS)), (16 + first, first)
    )
    moved = rows.batch(range(ROWS))
    assert moved.editable.shape == (ROWS, 16 + first)
    assert not moved.editable[:, :first].any() and moved.editable[:, first:].all()
    attacked = pgd(ThreatModel(Hidden(0), Linf(0.1, per="example")), steps=3)(model, moved)
    assert attacked.perturbation.delta.shape == (ROWS, 16 + first, 16)
    assert not attacked.perturbation.delta[:, :first].any()
    assert float(attacked.outcome.loss_gain.min()) > 0


@pytest.mark.parametrize("family", ["swin", "convnext", "resnet"])
def test_models_whose_states_change_shape_have_no_hidden_threat(family: str) -> None:
    with pytest.raises(ModelError, match="threat.space: hidden .*pixels|No list of"):
        patch_positions(as_classifier(tiny(family)), images(), 0)
    with pytest.raises(ModelError, match="threat.space: hidden needs a model with transformer blocks"):
        patch_positions(as_classifier(Ending(nn.Identity())), images(), 0)
