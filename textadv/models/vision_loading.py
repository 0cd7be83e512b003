"""Loading and saving image classifiers: from the Hub, a folder, an adapter folder, or built in."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftConfig, PeftModel, get_peft_model
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.utils import convert_conv2d_weight_memory_format
from transformers import AutoConfig, AutoModelForImageClassification

from textadv.models.loading import DTYPES, UNUSABLE, LoadedModel, Lora, check_labels, quiet, require_body
from textadv.models.networks import NETWORKS, SMALLEST
from textadv.models.places import ModelError, bare, pretrained
from textadv.models.preprocessing import PROCESSOR_FILE, ImageShape, Preprocessing
from textadv.models.vision import Normalised
from textadv.randomness import seeded_scope

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"
HEAD = "classifier"


@dataclass(frozen=True)
class LoadedVision:
    """An image classifier and its preprocessing, as it is saved: see `Preprocessing.kept`.

    initialised: names of weights that the checkpoint lacked (a new head). labels: class names, in order.
    source: what it was loaded by. replaced: how many classes the checkpoint's own head had, where it was replaced.
    shape: of the images it takes.
    """

    model: Normalised
    preprocessing: Preprocessing
    initialised: tuple[str, ...]
    labels: tuple[str, ...]
    source: str
    shape: ImageShape
    replaced: int | None = None


Loaded = LoadedModel | LoadedVision


def built_in(name: str) -> str | None:
    """The built-in network that `name` is, or that a folder of that name holds; None otherwise."""
    if name in NETWORKS:
        return name
    return _saved(name).get("architecture")


def _saved(name: str) -> dict[str, Any]:
    """config.json of a folder that holds a built-in network; empty where there is none."""
    path = Path(name) / CONFIG_FILE
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return settings if settings.get("architecture") in NETWORKS else {}


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

    name: a Hub id, a folder of a model or of a PEFT adapter, "builtin:small-cnn" or "builtin:small-resnet".
    shape: of the images. preprocessing: as `read_preprocessing` returns it, see `Preprocessing.sized`.
    lora: adapters to train, on top of frozen weights; None leaves every weight trainable.

    A head for another number of classes is replaced by a new one. Raises ModelError where nothing usable is found, the
    classes of a head that fits are named in another order, the channels differ, or `lora` has no layer to sit on.
    """
    with seeded_scope(seed), quiet():
        if built_in(name) is not None:
            if lora is not None:
                raise ModelError(f"model.lora: {name} is trained whole. Set model.lora: null.")
            network, new = _built(name, tuple(labels), shape, seed)
            inner, initialised, replaced = network.to(DTYPES[dtype]), new, None
        elif (Path(name) / "adapter_config.json").is_file():
            if lora is not None:
                raise ModelError(
                    f"model.name {name!r} is an adapter and model.lora asks for another on top. Set model.lora: null "
                    "to go on training this one, or load the merged model."
                )
            inner, initialised, replaced = _with_adapter(name, labels, shape, dtype, trust_remote_code), (), None
        else:
            found = _hugging_face(name, labels, shape, revision, dtype, trust_remote_code)
            inner, initialised, replaced = found
            inner = inner if lora is None else _with_lora(inner, lora, initialised)
    mean, std = preprocessing.mean_std
    if len(mean) not in (1, shape.channels):
        raise ModelError(
            f"model.name {name!r} normalises {len(mean)} channels and the images have {shape.channels}. Set "
            f"data.channels: {len(mean)}."
        )
    model = Normalised(inner, mean, std, preprocessing.flipped)
    return LoadedVision(model, preprocessing.kept(shape), initialised, tuple(labels), name, shape, replaced)


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
    if known["labels"] != list(labels):
        raise ModelError(
            f"model.name {name!r} was trained for the classes {', '.join(known['labels'])} and the data has "
            f"{', '.join(labels)}. Set data.labels to the model's."
        )
    network = _channels_last(NETWORKS[kind](*own, len(labels)))
    try:
        network.load_state_dict(load_file(Path(name) / WEIGHTS_FILE))
    except UNUSABLE as error:
        raise ModelError(f"model.name {name!r}: its {WEIGHTS_FILE} does not fit {kind}: {error}") from error
    return network, ()


def _channels_last(network: nn.Module) -> nn.Module:
    """The network with the layout of its convolutions' weights that is fastest on a CPU, the same numbers in it."""
    return convert_conv2d_weight_memory_format(network, torch.channels_last)


def _hugging_face(
    name: str, labels: Sequence[str], shape: ImageShape, revision: str | None, dtype: str, trust_remote_code: bool
) -> tuple[nn.Module, tuple[str, ...], int | None]:
    """The model, the names of its new weights, and the classes of the head that was replaced."""
    options: dict[str, Any] = {"revision": revision, "trust_remote_code": trust_remote_code}
    try:
        config = AutoConfig.from_pretrained(name, **options)
        before = int(config.num_labels)
        trained = any("ForImageClassification" in kind for kind in config.architectures or ())
        if before == len(labels):
            check_labels(name, config, labels, "ForImageClassification")
        takes = config.to_dict().get("num_channels", shape.channels)
        if takes != shape.channels:
            raise ModelError(
                f"model.name {name!r} takes images of {takes} channels and the data has {shape.channels}. Set "
                f"data.channels: {takes}."
            )
        config.num_labels = len(labels)
        config.id2label = dict(enumerate(labels))
        config.label2id = {label: n for n, label in enumerate(labels)}
        model, report = AutoModelForImageClassification.from_pretrained(
            name,
            config=config,
            dtype=DTYPES[dtype],
            ignore_mismatched_sizes=True,
            output_loading_info=True,
            **options,
        )
    except ModelError:
        raise
    except UNUSABLE as error:
        raise ModelError(
            f"model.name {name!r} could not be loaded: {error} Give a Hub id, or the path of a folder that holds "
            "config.json, the weights as safetensors and preprocessor_config.json of an image classifier."
        ) from error
    require_body(name, model, report["missing_keys"])
    new = tuple(sorted({*report["missing_keys"], *(key for key, *_ in report["mismatched_keys"])}))
    outside = [key for key in report["mismatched_keys"] if HEAD not in str(key[0]) and "head" not in str(key[0])]
    if outside:
        raise ModelError(f"model.name {name!r}: the weight {outside[0][0]} has another shape than config.json says.")
    return model, new, before if trained and before != len(labels) else None


def _with_adapter(
    name: str, labels: Sequence[str], shape: ImageShape, dtype: str, trust_remote_code: bool
) -> nn.Module:
    settings = PeftConfig.from_pretrained(name)
    if (Path(name) / CONFIG_FILE).is_file():
        known = AutoConfig.from_pretrained(name)
        own = [str(known.id2label[n]) for n in range(known.num_labels)]
        if own != list(labels):
            raise ModelError(
                f"model.name {name!r} was trained for the classes {', '.join(own)} and the data has "
                f"{', '.join(labels)}. Set data.labels to the model's."
            )
    base = str(settings.base_model_name_or_path)
    model, _, _ = _hugging_face(base, labels, shape, settings.revision, dtype, trust_remote_code)
    try:
        return PeftModel.from_pretrained(model, name, is_trainable=True)
    except UNUSABLE as error:
        raise ModelError(f"model.name {name!r} does not fit its base model {base}: {error}") from error


def _with_lora(model: nn.Module, lora: Lora, initialised: Sequence[str]) -> nn.Module:
    """The model with adapters; the head, and whatever else the checkpoint lacked, is trained and saved whole."""
    if any(isinstance(module, _BatchNorm) for module in model.modules()):
        raise ModelError(
            f"model.lora: {type(model).__name__} has BatchNorm layers, whose statistics move in training and which an "
            "adapter does not hold. Set model.lora: null."
        )
    whole = dict.fromkeys([HEAD, *(name.rpartition(".")[0] for name in initialised)])
    present = [name for name in whole if any(name == key for key, _ in model.named_modules())]
    targets = lora.targets if isinstance(lora.targets, str) else list(lora.targets)
    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=targets,
        exclude_modules=rf"({'|'.join(present)})(\..*)?" if present else None,
        modules_to_save=present or None,
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise ModelError(
            f"model.lora.targets {targets!r} match no layer of {type(model).__name__}: {error} Set model.lora: null."
        ) from error


def save_vision(loaded: LoadedVision, folder: Path, *, merged: bool = False) -> None:
    """Writes what training changed (the adapter and the head under LoRA, the whole model otherwise) with the processor.

    merged: a plain model with the adapter folded into its weights; it loads without PEFT. Hugging Face models load with
    AutoModelForImageClassification, built-in networks with `load_image_classifier`; safetensors and JSON only.
    """
    folder.mkdir(parents=True, exist_ok=True)
    inner = _inner(loaded.model)
    kind = built_in(loaded.source)
    if merged and isinstance(inner, PeftModel):
        inner = copy.deepcopy(inner).merge_and_unload()
    with quiet():
        if kind is not None:
            state = {name: value.detach().cpu().contiguous() for name, value in inner.state_dict().items()}
            save_file(state, folder / WEIGHTS_FILE)
            written = {"architecture": kind, "labels": list(loaded.labels), **loaded.shape._asdict()}
            (folder / CONFIG_FILE).write_text(json.dumps(written, indent=2) + "\n", encoding="utf-8")
        elif isinstance(inner, PeftModel):
            inner.save_pretrained(str(folder), save_embedding_layers=False)
            config = copy.deepcopy(pretrained(inner).config)
            config.architectures = [type(inner.get_base_model()).__name__]
            config.save_pretrained(folder)
        else:
            pretrained(inner).save_pretrained(folder)
    text = json.dumps(dict(loaded.preprocessing.settings), indent=2)
    (folder / PROCESSOR_FILE).write_text(text + "\n", encoding="utf-8")


def _inner(model: nn.Module) -> nn.Module:
    """The model that is saved: without the wrappers of processes and of normalisation."""
    found = bare(model)
    assert isinstance(found, Normalised)
    return found.model
