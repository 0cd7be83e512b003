"""Putting an adapter on a model: a saved one, with the vocabulary that it was trained with, or a new one.

Does what PEFT's AutoPeftModel does, and raises where PEFT warns or draws at random what the adapter does not hold.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal

from peft import LoraConfig, PeftModel, TaskType, get_peft_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PretrainedConfig
from transformers.pytorch_utils import Conv1D

from textadv.models.adapters import BASE_KEY, CONFIG_FILE, HEADS, PREFIX, WEIGHTS_FILE, Adapter
from textadv.models.places import pretrained
from textadv.models.sources import UNUSABLE, told
from textadv.values.errors import ModelError

TIED, WHOLE = "tie_word_embeddings", "modules_to_save"


@dataclass(frozen=True)
class Lora:
    """Low-rank adapters (arXiv:2106.09685): rank, scale alpha / r, dropout, and the linear layers they sit on."""

    r: int = 8
    alpha: int = 16
    dropout: float = 0.0
    targets: Literal["all-linear"] | Sequence[str] = "all-linear"


def new_adapter(
    model: nn.Module,
    lora: Lora,
    *,
    task: TaskType | None = None,
    exclude: str | None = None,
    whole: Sequence[str] | None = None,
    revision: str | None = None,
) -> PeftModel:
    """The model with LoRA on it, all else frozen.

    task: PEFT's own name of it. exclude: a regular expression of the modules that carry none. whole: modules that are
    trained and saved whole. revision: of the base model, for those who load the adapter.

    Raises ModelError where `lora.targets` match no layer, or one whose weight another layer shares for good.
    """
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        task_type=task,
        exclude_modules=exclude,
        modules_to_save=None if whole is None else list(whole),
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),
    )
    kind = type(model).__name__
    try:
        with warnings.catch_warnings():
            # Tied layers are untied when they are merged; PEFT sets fan_in_fan_out right layer by layer.
            warnings.filterwarnings("ignore", r"Model has `tie_word_embeddings=True`|fan_in_fan_out is set to")
            found = get_peft_model(pretrained(model), settings, revision=revision)
    except ValueError as error:
        raise ModelError(
            f"model.lora.targets {targets!r} match no layer of {kind}: {told(error)} Use 'all-linear', or names that "
            "model.named_modules() prints."
        ) from error
    shared = shared_layers(found)
    if shared and _always_tied(pretrained(found.get_base_model()).config):
        raise ModelError(
            f"model.lora.targets: the weight of {shared[0]} is shared with another layer, and a {kind} cannot hold "
            "them apart, so that no plain model could be what was trained. Leave it out of model.lora.targets."
        )
    return found


def shared_layers(model: PeftModel) -> list[str]:
    """The layers with an adapter whose own weight is another layer's too, as of an output layer tied to embeddings."""
    owners = Counter(id(value) for module in model.modules() for value in module.parameters(recurse=False))
    return [
        name
        for name, module in model.get_base_model().named_modules()
        if isinstance(module, BaseTunerLayer)
        and any(owners[id(value)] > 1 for value in module.get_base_layer().parameters(recurse=False))
    ]


def _always_tied(config: PretrainedConfig) -> bool:
    """Whether a configuration of this kind shares the embeddings whatever it is told, as T5's does."""
    return tied(type(config).from_dict({**config.to_dict(), TIED: False}))


def tied(config: PretrainedConfig) -> bool:
    """Whether a configuration says that input and output embeddings are one weight."""
    return bool(config.to_dict().get(TIED))


def untie(model: PeftModel) -> None:
    """Gives every module a weight of its own where a layer with an adapter shares one, and the configuration says so.

    Nothing that the model computes changes; merging then reaches the layer with the adapter and no other.
    """
    if not shared_layers(model):
        return
    seen: set[int] = set()
    for module in model.modules():
        for name, value in module.named_parameters(recurse=False):
            if id(value) in seen:
                setattr(module, name, nn.Parameter(value.detach().clone(), requires_grad=value.requires_grad))
            seen.add(id(value))
    pretrained(model.get_base_model()).config.tie_word_embeddings = False


def attach(adapter: Adapter, model: nn.Module, new: Collection[str] = ()) -> PeftModel:
    """The base model with the adapter on it, which is trained on where it is trained.

    new: weights that the base model's checkpoint lacked, such as a head: the adapter must hold them.

    Raises ModelError where the adapter lacks weights, or holds some that have no place in the model.
    """
    _require_shapes(adapter, model)
    unknown = sorted({name for name, _ in model.named_parameters()} & set(new) - set(adapter.shapes))
    if unknown:
        raise ModelError(
            f"model.name {adapter.name!r}: {unknown[0]} is in neither its {WEIGHTS_FILE} nor its base model "
            f"{adapter.base!r}, so it would be random. Where it was trained, merge it and save the whole model, or "
            f"train it with modules_to_save: [{unknown[0].rpartition('.')[0]}]."
        )
    try:
        with warnings.catch_warnings():
            # What PEFT warns of here is an error below, or was looked after: tied embeddings when they are merged.
            warnings.simplefilter("ignore")
            found = PeftModel.from_pretrained(
                pretrained(model), str(adapter.folder), config=adapter.settings, is_trainable=True
            )
            # PEFT tells what did not fit to those only who load weights a second time.
            report = found.load_adapter(str(adapter.folder), "default", is_trainable=True)
    except UNUSABLE as error:
        why = f"the weight {error} is missing from its {WEIGHTS_FILE}"
        if not isinstance(error, KeyError) or PREFIX not in str(error):
            why = told(error).rstrip(".")
        raise ModelError(_misfit(adapter, why)) from error
    if report.missing_keys:
        raise ModelError(_misfit(adapter, f"its {WEIGHTS_FILE} lacks {_listed(report.missing_keys)}"))
    # Of embeddings that were resized and trained whole, PEFT writes a second copy that it does not read.
    copies = {
        f"{PREFIX}{key}" for key in adapter.shapes if WHOLE in key and key.replace(f".{WHOLE}", "") in adapter.shapes
    }
    strange = [key for key in report.unexpected_keys if key not in copies]
    if strange:
        raise ModelError(_misfit(adapter, f"the model has no place for {_listed(strange)} of its {WEIGHTS_FILE}"))
    return found


def _listed(keys: Sequence[str]) -> str:
    return keys[0] if len(keys) == 1 else f"{len(keys)} weights (such as {keys[0]})"


def _misfit(adapter: Adapter, why: str) -> str:
    return (
        f"model.name {adapter.name!r} does not fit its base model {adapter.base}: {why}. Correct {BASE_KEY} in its "
        f"{CONFIG_FILE}, or save the adapter again."
    )


def _require_shapes(adapter: Adapter, model: nn.Module) -> None:
    """Raises ModelError where a weight that the adapter holds whole has another shape in the model."""
    own = {name: tuple(value.shape) for name, value in model.named_parameters()}
    for name, shape in adapter.shapes.items():
        if name not in own or own[name] == shape:
            continue
        if name.rpartition(".")[0].rpartition(".")[2] in (*HEADS, "out_proj") and shape[1:] == own[name][1:]:
            raise ModelError(
                f"model.name {adapter.name!r} was trained for {shape[0]} classes and the data has {own[name][0]}. Use "
                "data with the adapter's classes."
            )
        raise ModelError(_misfit(adapter, f"{name} has the shape {shape}, in the base model {own[name]}"))
