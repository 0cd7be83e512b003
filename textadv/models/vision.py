"""Image classifiers as attacks see them: pixels in [0, 1] go in, logits come out, normalisation happens inside."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from peft import PeftModel
from torch import Tensor, nn

from textadv.models.finite import is_finite, overflow
from textadv.models.places import bare, dtype_of, pretrained, space_module
from textadv.models.running import THIRD_PARTY, evaluating, forward, output_logits
from textadv.values.batch import Batch
from textadv.values.decisions import Decisions
from textadv.values.errors import ModelError
from textadv.values.kinds import require_kind
from textadv.values.spaces import Hidden

EXACT, ROUNDED = 1e-5, 2e-2


class Normalised(nn.Module):
    """An image classifier that takes pixels in [0, 1] and returns logits (B, C).

    model: takes normalised pixels and returns logits, or an output that holds them as Hugging Face models do.
    mean, std: (channels,), subtracted from the pixels and divided by; no part of the saved weights. flipped: the model
    gets the channels in the opposite order, blue first. It gets pixels in the number format of its own parameters.
    """

    def __init__(self, model: nn.Module, mean: Sequence[float], std: Sequence[float], flipped: bool = False) -> None:
        super().__init__()
        self.model = model
        self.flipped = flipped
        self.register_buffer("mean", torch.tensor(mean).reshape(-1, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).reshape(-1, 1, 1), persistent=False)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """The logits (B, C) of pixels (B, channels, height, width) in [0, 1]."""
        mean, std = self.get_buffer("mean"), self.get_buffer("std")
        dtype = next((value.dtype for value in self.model.parameters()), pixel_values.dtype)
        if len(mean) not in (1, pixel_values.shape[1]) or len(std) not in (1, pixel_values.shape[1]):
            raise ModelError(
                f"The model's pixels are normalised in {max(len(mean), len(std))} channels, and the images have "
                f"{pixel_values.shape[1]}. Give as_classifier one mean and std per channel of the images."
            )
        normalised = ((pixel_values - mean) / std).to(dtype)
        output = self.model(normalised.flip(1) if self.flipped else normalised)
        return output_logits(output)

    @property
    def config(self) -> object:
        """The configuration of the Hugging Face model inside; an AttributeError where it is none."""
        return pretrained(self.model).config

    def get_input_embeddings(self) -> nn.Module:
        """What the Hugging Face model inside calls its input embeddings."""
        return pretrained(self.model).get_input_embeddings()


def as_classifier(
    module: nn.Module, mean: Sequence[float] | None = None, std: Sequence[float] | None = None
) -> Normalised:
    """Any module that maps images to logits, as everything here takes it.

    mean, std: one number per channel, of pixels in [0, 1], if the module wants its images normalised; by default it
    gets them as they are. Raises ValueError where they do not fit each other, or were meant for pixels of 0 to 255, and
    TypeError where the module is none.
    """
    require_kind(
        "module", module, nn.Module, "a torch module", "Wrap a function in an nn.Module whose forward calls it."
    )
    for name, given in (("mean", mean), ("std", std)):
        if isinstance(given, int | float):
            raise ValueError(f"{name} needs one number per channel, such as [{given:g}], got the number {given:g}.")
    if mean is not None and any(value > 1 for value in mean):
        raise ValueError(f"mean is of pixels in [0, 1], got {list(mean)}. Divide mean and std by 255.")
    if std is not None and any(value <= 0 for value in std):
        raise ValueError(f"std must be above 0 in every channel, got {list(std)}.")
    if mean is not None and std is not None and len(mean) != len(std):
        raise ValueError(f"mean and std need one number per channel each, got {len(mean)} and {len(std)}.")
    return Normalised(module, [0.0] if mean is None else mean, [1.0] if std is None else std)


@torch.no_grad()
def clean_outputs(model: nn.Module, batch: Batch) -> Tensor:
    """What the model returns for these rows' N decisions, (N, C) float32, in evaluation mode; of one class N = B.

    Raises ModelError where it does not take images, or returns anything but one row of numbers per row.
    """
    try:
        with evaluating(model):
            output = forward(model, batch)
    except ModelError:
        raise
    except THIRD_PARTY as error:
        if "pixel_values" not in batch.inputs:
            raise
        shape = tuple(batch.inputs["pixel_values"].shape[1:])
        raise ModelError(
            f"The model does not take images of {shape[0]} channels and {shape[1]} x {shape[2]} pixels: {error} Set "
            "data.channels and data.image_size to what it was made for."
        ) from error
    if not is_finite(output):
        raise ModelError(f"The model returns numbers that are not finite. {overflow(model, batch)}")
    if batch.one_each:
        require_logits(output, len(batch))
    return Decisions.of(output, batch).logits.float()


def require_logits(output: Tensor, rows: int) -> None:
    """Raises ModelError unless this is what a classifier returns for so many rows: logits (B, C)."""
    if output.dim() != 2 or len(output) != rows:
        raise ModelError(
            f"The model returns {tuple(output.shape)} for {rows} rows, and a classifier returns logits of shape "
            "(rows, classes). Wrap it so that it does."
        )
    if output.shape[1] == 1:
        raise ModelError(
            "The model returns one number per row, and a classifier returns one for each class. Where it is the logit "
            "of class 1 against 0, return torch.cat([torch.zeros_like(z), z], dim=1); a regression has no classes."
        )


def logits_warning(model: nn.Module, batch: Batch) -> str | None:
    """A sentence for the report where the model returns log-probabilities, or seems to end in a sigmoid; None else.

    Every loss and attack here is the same for log-probabilities, being logits up to a constant per row.

    batch: some images or texts. Raises ModelError where the model does not take them, or returns probabilities: their
    cross-entropy is not the model's, their gradients vanish where it is sure, and attacks would fail for that reason.
    """
    output = clean_outputs(model, batch)
    half = dtype_of(model).itemsize < torch.float32.itemsize
    tolerance = ROUNDED if half else EXACT
    if bool((output >= 0).all()) and bool((output <= 1).all()) and _near(output.sum(dim=1), 1.0, tolerance):
        raise ModelError(
            f"The model returns probabilities, not logits: all of {len(output)} rows lie in [0, 1] and sum to 1. "
            "Attacks on probabilities fail for want of a gradient and look like robustness. Remove the softmax (or "
            "sigmoid) from the model's end, or return torch.log of its output."
        )
    if bool((output >= 0).all()) and bool((output <= 1).all()) and bool((output > 0.5).any()) and not _linear(model):
        return (
            f"model: all its outputs for {len(output)} rows lie in [0, 1]. If a sigmoid ends it, attacks fail for want "
            "of a gradient and look like robustness: remove the sigmoid."
        )
    if bool((output <= 0).all()) and _near(output.logsumexp(dim=1), 0.0, tolerance):
        return "model: it returns log-probabilities; losses and attacks take them as logits, which is the same."
    return None


def _linear(model: nn.Module) -> bool:
    """Whether this is a model of transformers, whose heads end in a linear layer."""
    inner = bare(model)
    if isinstance(inner, Normalised):
        inner = inner.model
    if isinstance(inner, PeftModel):
        inner = inner.get_base_model()
    return type(inner).__module__.startswith("transformers.models.")


def _near(values: Tensor, wanted: float, tolerance: float) -> bool:
    return bool(((values - wanted).abs() <= tolerance).all())


@torch.no_grad()
def patch_positions(model: nn.Module, batch: Batch, layer: int) -> tuple[int, int]:
    """How many positions the hidden states after `layer` have, and at which the image's patches start.

    Raises ModelError where the model has no such layer, or its states are not (B, S, D) with one D for all layers, as
    those of ViT and DeiT are.
    """
    try:
        module = space_module(model, Hidden(layer))
        settings = pretrained(model).config
    except AttributeError as error:
        raise ModelError(
            "threat.space: hidden needs a model with transformer blocks, such as ViT. Set threat.space: pixels."
        ) from error
    seen: list[Tensor] = []

    def record(_module: nn.Module, _args: object, output: Tensor | tuple[Tensor, ...]) -> None:
        seen.append(output[0] if isinstance(output, tuple) else output)

    handle = module.register_forward_hook(record)
    try:
        clean_outputs(model, batch)
    finally:
        handle.remove()
    known = settings.to_dict()
    height, width = batch.inputs["pixel_values"].shape[2:]
    patch = known.get("patch_size")
    states = tuple(seen[0].shape)
    plain = isinstance(patch, int) and len(states) == 3 and states[2] == known["hidden_size"]
    patches = (height // patch) * (width // patch) if plain and isinstance(patch, int) else 0
    if not plain or states[1] < patches:
        raise ModelError(
            f"threat.space: hidden needs blocks that return (images, patches, hidden_size), as those of ViT and DeiT "
            f"do; block {layer} of this model returns {states}. Set threat.space: pixels."
        )
    return states[1], states[1] - patches
