"""The models that attacks are transferred from: loaded as configured, and tried against the model that is attacked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeVar

import torch
from torch import nn

from textadv.config.attacks import PanelAttackConfig, TransferConfig
from textadv.config.images import ImageRunConfig
from textadv.config.text import ConfigError, RunConfig
from textadv.data import EncodedRows, ImageSplits, Splits, encode
from textadv.models import (
    LoadedModel,
    LoadedVision,
    ModelError,
    delta_shape,
    evaluating,
    forward,
    logits_warning,
    patch_positions,
    require_embedded,
    space_module,
)
from textadv.models.running import THIRD_PARTY
from textadv.models.trial import described
from textadv.tasks import components as build
from textadv.tasks.images import loading as build_images
from textadv.tasks.images.loading import Parts
from textadv.values.batch import Batch
from textadv.values.spaces import Hidden, Space

LOOKED_AT = 32

Loaded = TypeVar("Loaded", LoadedModel, LoadedVision)


def text_surrogates(
    config: RunConfig,
    attacked: LoadedModel,
    splits: Splits,
    test: EncodedRows,
    known: Mapping[str, LoadedModel | LoadedVision] = MappingProxyType({}),
) -> dict[str, LoadedModel]:
    """The models of every `name: transfer` in evaluation.attacks, by name, on the CPU.

    attacked: the model that their attacks are put on. test: the rows that are attacked, in its tokens. known: models
    that need not be loaded again.

    Raises ConfigError that names every one which is not there, or not trained for these classes, or differs from
    `attacked` in its tokens or in the shape of a perturbation.
    """
    longest = test.batch([test.lengths.index(max(test.lengths))])

    def load(name: str) -> LoadedModel:
        own = config.model.model_copy(update={"name": name, "lora": None, "revision": None})
        found = known.get(name) or build.model(own, splits.labels, config.seed)
        assert isinstance(found, LoadedModel)
        _require_trained(name, found, splits.labels)
        _require_tokens(name, found, attacked, splits, test, config.data.max_length)
        require_embedded(name, found.model, found.tokenizer, {"test": test})
        _try(found.model, attacked.model, longest, build.threat(config.threat).space)
        return found

    return _each(config.evaluation.attacks, load)


def image_surrogates(
    config: ImageRunConfig,
    attacked: LoadedVision,
    splits: ImageSplits,
    parts: Parts,
    known: Mapping[str, LoadedModel | LoadedVision] = MappingProxyType({}),
) -> dict[str, LoadedVision]:
    """The same for images; they need the size and the channels of `attacked`, whose pixels are perturbed."""
    sample = parts.test.batch(range(min(len(parts.test), LOOKED_AT)))
    space = build.threat(config.threat).space

    def load(name: str) -> LoadedVision:
        own = config.model.model_copy(update={"name": name, "lora": None, "revision": None})
        processor = build_images.preprocessing(own, config.data)
        size = attacked.shape.height, attacked.shape.width
        if processor.size not in (None, size):
            raise ModelError(
                f"model.name {name!r} takes images of {processor.size[0]} x {processor.size[1]} pixels and the "
                f"attacked model of {size[0]} x {size[1]}. Name a model for images of the same size."
            )
        found = known.get(name) or build_images.model(own, splits.labels, attacked.shape, processor, config.seed)
        assert isinstance(found, LoadedVision)
        _require_trained(name, found, splits.labels)
        if isinstance(space, Hidden):
            theirs, ours = (patch_positions(each.model, sample, space.layer) for each in (found, attacked))
            if theirs != ours:
                raise ModelError(
                    f"model.name {name!r} has {theirs[0]} positions after layer {space.layer}, patches from number "
                    f"{theirs[1]} on, and the attacked model {ours[0]} from {ours[1]} on. Set threat.space: pixels."
                )
        _try(found.model, attacked.model, sample, space)
        return found

    return _each(config.evaluation.attacks, load)


def _each(configs: Mapping[str, PanelAttackConfig], load: Callable[[str], Loaded]) -> dict[str, Loaded]:
    """What `load` makes of every model that is transferred from, once; its complaints as one ConfigError."""
    found: dict[str, Loaded] = {}
    lines = []
    for key, config in configs.items():
        if not isinstance(config, TransferConfig) or config.model in found:
            continue
        try:
            found[config.model] = load(config.model)
        except ValueError as error:
            where, told = f"evaluation.attacks.{key}.model", str(error)
            named = "model.name" in told
            lines.append(told.replace("model.name", where) if named else f"{where} {config.model!r}: {told}")
    if lines:
        raise ConfigError(lines)
    return found


def _require_trained(name: str, found: LoadedModel | LoadedVision, labels: tuple[str, ...]) -> None:
    if found.initialised:
        raise ModelError(
            f"model.name {name!r} has no trained head for the {len(labels)} classes {', '.join(labels)}: weights "
            f"{found.initialised[0]} ... are new. Name a model that was trained for them."
        )


def _require_tokens(
    name: str, found: LoadedModel, attacked: LoadedModel, splits: Splits, test: EncodedRows, max_length: int
) -> None:
    """Raises ModelError unless the same texts are the same tokens: a perturbation belongs to positions."""
    ours = test.features[:LOOKED_AT]
    theirs = encode(splits.test.select(range(len(ours))), found.tokenizer, max_length).features
    same = [row["input_ids"] for row in ours] == [row["input_ids"] for row in theirs]
    if not same or found.tokenizer.get_vocab() != attacked.tokenizer.get_vocab():
        raise ModelError(
            f"model.name {name!r} has another tokenizer than the attacked model, so that a perturbation of the tokens "
            "of one has no meaning for the other. Name a model with the same tokenizer."
        )


def _try(model: nn.Module, attacked: nn.Module, rows: Batch, space: Space) -> None:
    """Sends rows with a perturbation of the attacked model's shape through the other model.

    Raises ModelError where it does not take them, has no such space or one of another shape, or returns probabilities.
    """
    space_module(model, space)
    theirs, ours = (delta_shape(each, rows, space)[1:] for each in (model, attacked))
    if theirs != ours:
        raise ModelError(
            f"a row's perturbation of the {space} has shape {theirs} in this model and {ours} in the attacked one. "
            "Name a model of the same width."
        )
    try:
        logits_warning(model, rows)
        with evaluating(model), torch.no_grad():
            forward(model, rows.perturbed(space, torch.zeros(len(rows), *ours)))
    except ModelError:
        raise
    except THIRD_PARTY as error:
        raise ModelError(f"this model does not take the rows of the attacked one: {described(error)}.") from error
