"""One run on an image classifier, ready to go: everything wrong with its input is found here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import combinations
from types import MappingProxyType

from accelerate import Accelerator

from textadv.attacks import ThreatModel
from textadv.config.images import ImageRunConfig
from textadv.config.text import ConfigError
from textadv.data import ImageRows, ImageSplits, images_digest, shared_images
from textadv.models import (
    ImageShape,
    LoadedModel,
    LoadedVision,
    ModelError,
    device_of,
    logits_warning,
    patch_positions,
    space_module,
)
from textadv.models.split_norm import convert
from textadv.tasks import components as build
from textadv.tasks import surrogates as build_surrogates
from textadv.tasks.images import loading as build_images
from textadv.tasks.images.loading import Parts
from textadv.tasks.launch import launch_warnings, launched
from textadv.tasks.output import claim, claiming, free_output, require_room
from textadv.tasks.text.task import (
    THREAT_ROWS,
    Task,
    check_adversary,
    check_measuring,
    check_selection,
    check_training,
    reach_warnings,
    reported_positions,
    selecting_positions,
)
from textadv.tasks.trial import rehearse_classifier
from textadv.values.batch import Batch
from textadv.values.digests import digest, surrogate_hashes, weights_hash
from textadv.values.host.phases import stage
from textadv.values.spaces import Hidden, Pixels

LOOKED_AT = 32


@dataclass(frozen=True)
class Ready:
    """An image model and the rows in its size, as far as they need no output folder.

    load: gives the untrained model, the same weights each time. doubt: a sentence about the model's output. cropped:
    the model's processor would crop.
    surrogates: the models that attacks of the evaluation are transferred from, by name.
    """

    splits: ImageSplits
    parts: Parts
    loaded: LoadedVision
    load: Callable[[], LoadedVision]
    doubt: str | None
    surrogates: Mapping[str, LoadedVision]
    cropped: bool


@stage("making ready")
def ready(
    config: ImageRunConfig,
    splits: ImageSplits | None = None,
    surrogates: Mapping[str, LoadedModel | LoadedVision] = MappingProxyType({}),
) -> Ready:
    """The data and the model of a configuration, tried on a few images.

    splits, surrogates: what was read and loaded before. Raises ConfigError, DataError or ModelError.
    """
    splits = splits or build_images.splits(config.data, config.seed)
    check_measuring(config, len(splits.labels))
    processor = build_images.preprocessing(config.model, config.data)
    parts = build_images.rows(splits, config.data, processor)
    labels, shape = splits.labels, ImageShape(*parts.train.pixels.shape[1:])

    def load() -> LoadedVision:
        return build_images.model(config.model, labels, shape, processor, config.seed)

    loaded = load()
    sample = _sample(parts, loaded, LOOKED_AT)
    doubt = logits_warning(loaded.model, sample)
    if config.threat.space == "hidden":
        assert config.threat.layer is not None
        found = patch_positions(loaded.model, sample, config.threat.layer)
        parts = Parts(*(replace(part, positions=found) for part in parts))
    found_surrogates = build_surrogates.image_surrogates(config, loaded, splits, parts, surrogates)
    return Ready(splits, parts, loaded, load, doubt, found_surrogates, processor.crops)


def _sample(parts: Parts, loaded: LoadedVision, size: int) -> Batch:
    device = device_of(loaded.model)
    return parts.train.batch(range(min(len(parts.train), size))).to(device)


def resolved_image_threat(config: ImageRunConfig, found: Ready) -> ThreatModel:
    """The threat with an absolute radius; one relative to hidden states is measured on the first training images.

    Raises ModelError where the model has no such layer, ConfigError where a ball in pixels holds every image.
    """
    threat = build.threat(config.threat)
    _require_bounds(config, found)
    space_module(found.loaded.model, threat.space)
    return threat.resolved(found.loaded.model, _sample(found.parts, found.loaded, THREAT_ROWS))


def _require_bounds(config: ImageRunConfig, found: Ready) -> None:
    """Raises ConfigError where the ball reaches from black to white; the configuration itself sees to Linf."""
    radius, shape = config.threat.radius, found.parts.train.pixels.shape[1:]
    if config.threat.space != "pixels" or config.threat.norm == "linf" or radius is None:
        return
    widest = math.sqrt(shape.numel()) if config.threat.norm == "l2" else float(shape.numel())
    if radius >= widest:
        raise ConfigError(
            [
                f"threat.radius: {radius:g} in {config.threat.norm} allows every image of {tuple(shape)}: black and "
                f"white are {widest:.4g} apart. Lower it; pixels are numbers from 0 to 1."
            ]
        )


@stage("making ready")
def prepare_images(config: ImageRunConfig, *, training: bool = True) -> Task:
    """Reads, checks and resizes the images, tries the model once, and claims the output folder.

    training: whether the model will be trained: the smallest batches of training are then sent through loss and
    backward. Raises ConfigError, DataError or ModelError, each saying what to change; nothing but empty folders is then
    left behind.
    """
    config, accelerator = launched(config)
    with claiming(accelerator, config, training=training) as config:
        task = _prepared(config, accelerator, training)
    claim(config, accelerator, task.output, task.hashes)
    return task


def _prepared(config: ImageRunConfig, accelerator: Accelerator, training: bool) -> Task:
    """See `prepare_images`; what one process does by itself."""
    output = free_output(config, training=training)
    check_adversary(config)
    found = ready(config)
    require_room(config, output, found.loaded.model, training=training)
    parts = found.parts
    check_training(config, len(parts.train), accelerator.num_processes)
    threat = resolved_image_threat(config, found)
    task = Task(
        config=config,
        accelerator=accelerator,
        output=output,
        splits=found.splits,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        selection=selecting_positions(config, len(parts.validation)),
        tested=reported_positions(config, len(parts.test)),
        threat=threat,
        hashes=_hashes(found),
        new_weights=found.loaded.initialised,
        load_model=found.load,
        warnings=(*launch_warnings(config, accelerator, training), *reach_warnings(config, threat), *_warnings(found)),
        split_norm=config.model.split_norm,
        surrogates=found.surrogates,
    )
    model = found.loaded.model if task.split_norm is None else convert(found.load().model)
    if training:
        check_selection(parts.validation.labels, task.selection, found.splits.labels)
        rehearse_classifier(config, accelerator, model, parts.train, threat)
    return task


@stage("making ready")
def with_image_model(task: Task, name: str) -> Task:
    """The task for another model: the images in its size, the same rows and the same radius.

    Raises ConfigError, DataError or ModelError as `prepare_images` does.
    """
    config, splits = task.config, task.splits
    assert isinstance(config, ImageRunConfig) and isinstance(splits, ImageSplits)
    config = config.model_copy(update={"model": config.model.model_copy(update={"name": name})})
    found = ready(config, splits, task.surrogates)
    if isinstance(task.threat.space, Hidden):
        space_module(found.loaded.model, task.threat.space)
    parts = found.parts
    return replace(
        task,
        config=config,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        hashes=_hashes(found),
        new_weights=found.loaded.initialised,
        load_model=found.load,
        surrogates=found.surrogates,
        warnings=(*task.warnings, *(f"{name}: {line}" for line in _warnings_beside(task, found))),
    )


def _warnings_beside(task: Task, found: Ready) -> Iterable[str]:
    """What a reader must know of a further model before comparing it with the first."""
    yield from _model_warnings(found)
    first, own = (tuple(part.pixels.shape[1:]) for part in (task.test, found.parts.test) if isinstance(part, ImageRows))
    if isinstance(task.threat.space, Pixels) and task.threat.ball.geometry.name != "Linf" and first != own:
        yield (
            f"images of {own} and of {first} for {task.config.model.name}: a radius in "
            f"{task.threat.ball.geometry.name} is another threat for another number of pixels."
        )


def require_trained(found: Task | Ready) -> None:
    """Raises ModelError where the model's head is new, so that it cannot classify yet."""
    new = found.new_weights if isinstance(found, Task) else found.loaded.initialised
    if new:
        raise ModelError(
            f"--model has no trained head for these {len(found.splits.labels)} classes: weights {new[0]} ... are new. "
            "Name a model that was trained for them."
        )


def _hashes(found: Ready) -> dict[str, str]:
    """SHA-256 of each split's rows, of the preprocessing and of the weights that the run starts from."""
    hashes = {f"data.{name}": images_digest(part) for name, part in found.parts._asdict().items()}
    settings = json.dumps(dict(found.loaded.preprocessing.settings), sort_keys=True)
    hashes["preprocessing"] = digest([settings.encode()])
    hashes["weights.initial"] = weights_hash(found.loaded.model)
    return hashes | surrogate_hashes({name: other.model for name, other in found.surrogates.items()})


def _warnings(found: Ready) -> Iterable[str]:
    """What a reader must know before trusting a number."""
    yield from found.splits.notes
    yield from _model_warnings(found)
    for (first, seen), (name, part) in combinations(found.parts._asdict().items(), 2):
        shared = shared_images(seen, part)
        if shared:
            yield f"data: {shared} of {len(part)} {name} rows are images that also stand in {first}, pixel by pixel."


def _model_warnings(found: Ready) -> Iterable[str]:
    yield from found.loaded.notes
    if found.doubt is not None:
        yield found.doubt
    if found.loaded.replaced is not None:
        classes = len(found.loaded.labels)
        yield f"model: its head for {found.loaded.replaced} classes was replaced by a new one for {classes}."
    if found.cropped:
        yield (
            f"model: its processor crops the centre of the image, and here the whole image is resized to "
            f"{found.loaded.shape.height} x {found.loaded.shape.width}, so that nothing is lost to the attack or the "
            "report. Clean accuracy can differ from the published one."
        )
