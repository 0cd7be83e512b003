"""The scale of LoRA adapters: whoever holds an adapter may add more or less of it than it was trained with."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

from peft import LoraConfig, PeftModel
from peft.helpers import rescale_adapter_scale
from peft.tuners.lora import LoraLayer
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import nn

from textadv.models.places import bare
from textadv.values.errors import ModelError

REWRITING = ("pissa", "olora", "corda", "loftq")
"""How `init_lora_weights` begins where PEFT changes the base model's own weights as it puts the adapter on."""


def has_adapter(model: nn.Module) -> bool:
    """Whether there is a LoRA adapter in the model."""
    return any(isinstance(module, LoraLayer) for module in bare(model).modules())


def unscaled(model: nn.Module) -> str | None:
    """What the adapter changes and no scale of its factors takes back, in words; None: at 0 nothing of it is left."""
    inner = bare(model)
    found = [words for module in inner.modules() if (words := _beside_factors(module)) is not None]
    if isinstance(inner, PeftModel):
        settings = [one for one in inner.peft_config.values() if isinstance(one, LoraConfig)]
        found += [words for one in settings for words in _beside_layers(one)]
    return " and ".join(dict.fromkeys(found)) or None


def _beside_factors(module: nn.Module) -> str | None:
    """What this module has of an adapter that is no factor of LoRA, in words."""
    if isinstance(module, ModulesToSaveWrapper):
        return "modules that are trained whole (modules_to_save)"
    if isinstance(module, TrainableTokensLayer):
        return "trained tokens (trainable_token_indices)"
    return "magnitudes (use_dora)" if isinstance(module, LoraLayer) and module.lora_magnitude_vector else None


def _beside_layers(settings: LoraConfig) -> Iterator[str]:
    """What these settings change in the base model itself, in words."""
    if settings.bias != "none":
        yield f"trained biases (bias: {settings.bias})"
    if str(settings.init_lora_weights).lower().startswith(REWRITING):
        yield f"changed base weights (init_lora_weights: {settings.init_lora_weights})"
    if settings.kasa_config is not None:
        yield "changed base weights (kasa_config)"
    if settings.layer_replication:
        yield "repeated layers (layer_replication)"


def adapter_moves(model: nn.Module) -> bool:
    """Whether the adapter changes anything: a new one, of which one factor is zero, does not at any scale.

    One of more than factors counts as one that does, trained or not: see `unscaled`.
    """
    if unscaled(model) is not None:
        return True
    factors = {
        name: bool(part.detach().ne(0).any()) for name, part in bare(model).named_parameters() if "lora_" in name
    }
    # Which of the two is zero at first depends on the kind of layer; a bias of B (lora_bias) is added for itself.
    pairs = {name: re.sub(r"(lora_(?:embedding_)?)A", r"\1B", name) for name in factors}
    shifts = any(moves for name, moves in factors.items() if re.search(r"lora_B\.[^.]+\.bias$", name))
    return shifts or any(factors[one] and factors.get(other, False) for one, other in pairs.items() if one != other)


@contextmanager
def adapter_scaled(model: nn.Module, scale: float) -> Iterator[None]:
    """Inside the block the adapter counts `scale` times: 0 is the model without it, 1 the model as it is.

    Raises ModelError where there is none, or one of more than factors, which a scale would take back in part.
    """
    if not has_adapter(model):
        raise ModelError(
            "The scale of an adapter needs one, and this model has none. Measure the adapter's own folder in place of "
            "the merged model, or ask for no other scale."
        )
    beside = unscaled(model)
    if beside is not None:
        raise ModelError(
            f"The scale of an adapter counts its LoRA factors, and this one has {beside} too: at 0 it would not be the "
            "model without it. Measure the base model itself, or ask for no other scale."
        )
    with rescale_adapter_scale(bare(model), scale):
        yield
