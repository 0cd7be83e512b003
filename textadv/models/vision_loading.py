"""Loading and saving image classifiers: from the Hub, a folder, an adapter folder, or built in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import convert_conv2d_weight_memory_format
from transformers import AutoConfig, AutoModelForImageClassification

from textadv.models.adapters import Adapter, find_adapter
from textadv.models.adapting import Lora, attach, new_adapter
from textadv.models.export import merged_copy, save_configuration
from textadv.models.filled import filled
from textadv.models.finite import require_finite_weights
from textadv.models.heads import check_labels, name_classes, read_as_classes, return_logits
from textadv.models.loading import DTYPES, LoadedModel, refuse_second, usable
from textadv.models.networks import NETWORKS, SMALLEST
from textadv.models.places import bare, pretrained
from textadv.models.preprocessing import PROCESSOR_FILE, ImageShape, Preprocessing
from textadv.models.sources import UNUSABLE, quiet, refuse_pickles, told
from textadv.models.vision import Normalised
from textadv.values.errors import ModelError
from textadv.values.host.reading import json_of
from textadv.values.randomness import seeded_scope

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
HEAD = "classifier"
CLASSIFYING = "ForImageClassification"


@dataclass(frozen=True)
class LoadedVision:
    """An image classifier and its preprocessing, as it is saved: see `Preprocessing.kept`.

    initialised: names of weights that the checkpoint lacked (a new head). labels: class names, in order.
    source: what it was loaded by. replaced: how many classes the checkpoint's own head had, where it was replaced.
    shape: of the images it takes. notes: what the report must say of it.
    """

    model: Normalised
    preprocessing: Preprocessing
    initialised: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    shape: ImageShape
    replaced: int | None = None
    notes: tuple[str, ...] = ()

    def save(self, folder: Path, *, merged: bool = False) -> None:
        """See `save_vision`."""
        save_vision(self, folder, merged=merged)


Loaded = LoadedModel | LoadedVision


def built_in(name: str) -> str | None:
    """The built-in network that `name` is, or that a folder of that name holds; None otherwise."""
    if name in NETWORKS:
        return name
    return _saved(name).get("architecture")


def _saved(name: str) -> dict[str, Any]:
    """config.json of a folder that holds a built-in network; empty where there is none."""
    path = Path(name) / CONFIG_FILE
    try:
        settings = json_of(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError) as error:
        raise ModelError(f"model.name {name!r}: its {CONFIG_FILE} cannot be read: {error}. Repair it.") from error
    kind = settings.get("architecture") if isinstance(settings, dict) else None
    return settings if isinstance(kind, str) and kind in NETWORKS else {}


def load_image_classifier(
    name: str,
    labels: Sequence[str],
    shape: ImageShape,
    preprocessing: Preprocessing,
    *,
    seed: int = 0,
    revision: str | None = None,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    lora: Lora | None = None,
) -> LoadedVision:
    """An image classifier over `labels` that takes pixels in [0, 1], new weights drawn from `seed` alone.

    name: a Hub id or a folder of a model or of a PEFT adapter, "builtin:small-cnn" or "builtin:small-resnet".
    shape: of the images. preprocessing: as `read_preprocessing` returns it, see `Preprocessing.sized`.
    lora: adapters to train, on top of frozen weights; None leaves every weight trainable.

    A head for another number of classes is replaced by a new one. Raises ModelError where nothing usable is found, the
    classes of a head that fits are named in another order, the channels differ, or `lora` has no layer to sit on.
    """
    with seeded_scope(seed), quiet():
        network = built_in(name)
        adapter = None if network else find_adapter(name, revision, tasks=(None,))
        if network is not None:
            if lora is not None:
                raise ModelError(f"model.lora: {name} is trained whole. Set model.lora: null.")
            built, new = _built(name, tuple(labels), shape, seed)
            found = _Found(built.to(DTYPES[dtype]), new)
        elif adapter is not None:
            refuse_second(name, lora)
            found = _with_adapter(adapter, labels, shape, dtype, trust_remote_code)
        else:
            found = _hugging_face(name, labels, shape, revision, dtype, trust_remote_code)
            if lora is not None:
                found = found._replace(model=_with_lora(found.model, lora, found.new, revision))
    require_finite_weights(name, found.model)
    mean, std = preprocessing.mean_std
    if len(mean) not in (1, shape.channels):
        raise ModelError(
            f"model.name {name!r} normalises {len(mean)} channels and the images have {shape.channels}. Set "
            f"data.channels: {len(mean)}."
        )
    model = Normalised(found.model, mean, std, preprocessing.flipped)
    kept = preprocessing.kept(shape)
    return LoadedVision(model, kept, found.new, tuple(labels), name, shape, found.replaced, found.notes)


def _built(name: str, labels: tuple[str, ...], shape: ImageShape, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """A built-in network and its new weights: all of them, or none where a folder holds them."""
    kind = str(built_in(name))
    if name in NETWORKS:
        if min(shape.height, shape.width) < SMALLEST[kind]:
            raise ModelError(
                f"model.name: {name} needs images of {SMALLEST[kind]} pixels a side or more, got {shape.height} x "
                f"{shape.width}. Set data.image_size: {SMALLEST[kind]} or more."
            )
        with seeded_scope(seed):
            network = _channels_last(NETWORKS[kind](*shape, len(labels)))
        return network, tuple(key for key, _ in network.named_parameters())
    known = _saved(name)
    own = ImageShape(known["channels"], known["height"], known["width"])
    if own != shape:
        raise ModelError(
            f"model.name {name!r} takes images of {own.channels} channels and {own.height} x {own.width} pixels, got "
            f"{shape.channels} channels and {shape.height} x {shape.width}. Set data.channels and data.image_size."
        )
    _require_labels(name, known["labels"], labels)
    network = _channels_last(NETWORKS[kind](*own, len(labels)))
    if not (Path(name) / WEIGHTS_FILE).is_file():
        refuse_pickles(name, Path(name), WEIGHTS_FILE)
    try:
        network.load_state_dict(load_file(Path(name) / WEIGHTS_FILE))
    except UNUSABLE as error:
        raise ModelError(f"model.name {name!r}: its {WEIGHTS_FILE} does not fit {kind}: {told(error)}") from error
    return network, ()


def _require_labels(name: str, own: Sequence[str], labels: Sequence[str]) -> None:
    if list(own) != list(labels):
        raise ModelError(
            f"model.name {name!r} was trained for the classes {', '.join(own)} and the data has {', '.join(labels)}. "
            "Set data.labels to the model's."
        )


def _channels_last(network: nn.Module) -> nn.Module:
    """The network with the layout of its convolutions' weights that is fastest on a CPU, the same numbers in it."""
    return convert_conv2d_weight_memory_format(network, torch.channels_last)


class _Found(NamedTuple):
    """A classifier with its new weights, the classes of the head that was replaced, and notes (see `LoadedVision`)."""

    model: nn.Module
    new: tuple[str, ...]
    replaced: int | None = None
    notes: tuple[str, ...] = ()


def _hugging_face(
    name: str,
    labels: Sequence[str],
    shape: ImageShape,
    revision: str | None,
    dtype: str,
    trust_remote_code: bool,
    named: bool = False,
) -> _Found:
    """named: whether the classes' names and order are known from elsewhere."""
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    with usable(name, "preprocessor_config.json of an image classifier", revision=revision):
        config = AutoConfig.from_pretrained(name, **options)
        before = int(config.num_labels)
        trained = any(CLASSIFYING in kind for kind in config.architectures or ())
        if before == len(labels) and not named:
            check_labels(name, config, labels, CLASSIFYING)
        takes = config.to_dict().get("num_channels", shape.channels)
        if takes != shape.channels:
            raise ModelError(
                f"model.name {name!r} takes images of {takes} channels and the data has {shape.channels}. Set "
                f"data.channels: {takes}."
            )
        notes = read_as_classes(name, config, CLASSIFYING)
        name_classes(config, labels)
        return_logits(config)
        settings = {"config": config, "dtype": DTYPES[dtype], **options}
        found = filled(name, AutoModelForImageClassification, (HEAD, "head"), **settings)
    kept = before == len(labels)
    replaced = before if trained and not kept else None
    return _Found(found.model, found.new, replaced, (*(notes if kept else ()), *found.random, *found.spare))


def _with_adapter(
    adapter: Adapter, labels: Sequence[str], shape: ImageShape, dtype: str, trust_remote_code: bool
) -> _Found:
    if adapter.names is not None:
        _require_labels(adapter.name, adapter.names, labels)
    with adapter.naming():
        revision, named = adapter.settings.revision, adapter.names is not None
        found = _hugging_face(adapter.base, labels, shape, revision, dtype, trust_remote_code, named)
    if adapter.classes is None and found.replaced is not None:
        raise ModelError(
            f"model.name {adapter.name!r} was trained for the {found.replaced} classes of its base model "
            f"{adapter.base!r} and the data has {len(labels)}: {', '.join(labels)}. Use data with the model's classes."
        )
    notes = found.notes if adapter.classes is None else ()
    return _Found(attach(adapter, found.model, found.new), (), notes=(*notes, *adapter.notes))


def _with_lora(model: nn.Module, lora: Lora, initialised: Sequence[str], revision: str | None) -> nn.Module:
    """The model with adapters; the head, and whatever else the checkpoint lacked, is trained and saved whole."""
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ModelError(
            f"model.lora: {type(model).__name__} has BatchNorm layers, whose statistics move in training and which an "
            "adapter does not hold. Set model.lora: null."
        )
    whole = dict.fromkeys([HEAD, *(name.rpartition(".")[0] for name in initialised)])
    present = [name for name in whole if any(name == key for key, _ in model.named_modules())]
    exclude = rf"({'|'.join(present)})(\..*)?" if present else None
    return new_adapter(model, lora, exclude=exclude, whole=present or None, revision=revision)


def save_vision(loaded: LoadedVision, folder: Path, *, merged: bool = False) -> None:
    """Writes what training changed (the adapter and the head under LoRA, the whole model otherwise) with the processor.

    merged: a plain model with the adapter folded into its weights; it loads without PEFT. Hugging Face models load with
    AutoModelForImageClassification, built-in networks with `load_image_classifier`; safetensors and JSON only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inner = _inner(loaded.model)
    kind = built_in(loaded.source)
    if merged:
        inner = merged_copy(inner)
    with quiet():
        if kind is not None:
            state = {name: value.detach().cpu().contiguous() for name, value in inner.state_dict().items()}
            save_file(state, folder / WEIGHTS_FILE)
            written = {"architecture": kind, "labels": list(loaded.labels), **loaded.shape._asdict()}
            (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        elif isinstance(inner, PeftModel):
            inner.save_pretrained(str(folder), save_embedding_layers=False)
            save_configuration(pretrained(inner.get_base_model()), folder)
        else:
            pretrained(inner).save_pretrained(folder)
    text = json.dumps(dict(loaded.preprocessing.settings), indent=2)
    (folder / PROCESSOR_FILE).write_text(text + "\n", encoding="utf-8")


def _inner(model: nn.Module) -> nn.Module:
    """The model that is saved: without the wrappers of processes and of normalisation."""
    found = bare(model)
    assert isinstance(found, Normalised)
    return found.model
