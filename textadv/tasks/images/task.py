"""One run on an image classifier, ready to go: everything wrong with its input is found here."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from types import MappingProxyType

from textadv.attacks import ThreatModel
from textadv.config.types import ConfigError
from textadv.data import ImageParts, ImageRows, ImageSplits, images_digest, shared_images
from textadv.models import (
    ImageShape,
    LoadedModel,
    LoadedVision,
    device_of,
    logits_warning,
    patch_positions,
    space_module,
)
from textadv.models.split_norm import convert
from textadv.models.strangers import Pictures
from textadv.tasks.checks import (
    check_adversary,
    check_measuring,
    check_selection,
    check_training,
    reach_warnings,
    rehearse_classifier,
    reported_positions,
    selecting_positions,
)
from textadv.tasks.classifier import THREAT_ROWS, Classifier
from textadv.tasks.detecting import check_recall, detector_of
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.images.surrogates import image_surrogates
from textadv.tasks.protocol import Run
from textadv.values.batch import Batch
from textadv.values.descriptions import INITIAL, model_hashes, surrogate_hashes
from textadv.values.digests import digest
from textadv.values.host.phases import stage
from textadv.values.spaces import Hidden, Pixels

LOOKED_AT = 32


@dataclass(frozen=True)
class Examined:
    """An image model and the rows in its size, as far as they need no output folder.

    load: gives the untrained model, the same weights each time. doubt: a sentence about the model's output. cropped:
    the model's processor would crop.
    surrogates: the models that attacks of the evaluation are transferred from, by name.
    """

    splits: ImageSplits
    parts: ImageParts
    loaded: LoadedVision
    load: Callable[[], LoadedVision]
    doubt: str | None
    surrogates: Mapping[str, LoadedVision]
    cropped: bool


@stage("making ready")
def examined(
    config: ImageRunConfig,
    splits: ImageSplits | None = None,
    surrogates: Mapping[str, LoadedModel | LoadedVision] = MappingProxyType({}),
) -> Examined:
    """The data and the model of a configuration, tried on a few images.

    splits, surrogates: what was read and loaded before. Raises ConfigError, DataError or ModelError.
    """
    splits = splits or config.data.make(config.seed)
    check_measuring(config, len(splits.labels))
    processor = config.model.preprocessing(config.data.image_size)
    parts = config.data.fitted(splits, processor)
    labels, shape = splits.labels, ImageShape(*parts.train.pixels.shape[1:])

    def load() -> LoadedVision:
        return config.model.make(labels, shape, processor, config.seed)

    loaded = load()
    sample = _sample(parts, loaded, LOOKED_AT)
    doubt = logits_warning(loaded.model, sample)
    if config.threat.space == "hidden":
        assert config.threat.layer is not None
        found = patch_positions(loaded.model, sample, config.threat.layer)
        parts = ImageParts(*(replace(part, positions=found) for part in parts))
    found_surrogates = image_surrogates(config, loaded, splits, parts, surrogates)
    return Examined(splits, parts, loaded, load, doubt, found_surrogates, processor.crops)


def _sample(parts: ImageParts, loaded: LoadedVision, size: int) -> Batch:
    device = device_of(loaded.model)
    return parts.train.batch(range(min(len(parts.train), size))).to(device)


def resolved_image_threat(config: ImageRunConfig, found: Examined) -> ThreatModel:
    """The threat with an absolute radius; one relative to hidden states is measured on the first training images.

    Raises ModelError where the model has no such layer, ConfigError where a ball in pixels holds every image.
    """
    threat = config.threat.make()
    _require_bounds(config, found)
    space_module(found.loaded.model, threat.space)
    return threat.resolved(found.loaded.model, _sample(found.parts, found.loaded, THREAT_ROWS))


def _require_bounds(config: ImageRunConfig, found: Examined) -> None:
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


def ready(config: ImageRunConfig, run: Run) -> Classifier:
    """See `registry.ready`. The images are resized, and the model is tried on a few of them."""
    check_adversary(config)
    found = examined(config)
    run.require_room(found.loaded.model)
    parts = found.parts
    check_training(config, len(parts.train), run.accelerator.num_processes)
    threat = resolved_image_threat(config, found)
    selection = selecting_positions(config, len(parts.validation))
    detector = detector_of(config, found.splits.labels, parts.validation, None, threat)
    if detector is not None:
        check_recall(config, parts.validation.labels, selection, detector.positive)
    task = Classifier(
        config=config,
        run=run,
        splits=found.splits,
        train=parts.train,
        validation=parts.validation,
        test=parts.test,
        selection=selection,
        tested=reported_positions(config, len(parts.test)),
        threat=threat,
        hashes=_hashes(found),
        new_weights=found.loaded.initialised,
        load=found.load,
        opened=partial(_opened, config, parts.validation),
        beside=partial(_beside, config, found.splits),
        warnings=(*run.notes, *reach_warnings(config, threat), *_warnings(found)),
        split_norm=config.model.split_norm,
        surrogates=found.surrogates,
    )
    model = found.loaded.model if task.split_norm is None else convert(found.load().model)
    if run.training:
        check_selection(parts.validation.labels, task.selection, found.splits.labels)
        rehearse_classifier(config, run.accelerator, model, parts.train, threat)
    return task


def _opened(config: ImageRunConfig, validation: ImageRows, loaded: LoadedVision, positions: Sequence[int]) -> Pictures:
    """These validation rows, as others give them to a model."""
    size, trusted = config.training.micro_batch_size, config.model.trust_remote_code
    return Pictures(loaded, validation.select(positions), size, trusted)


@stage("making ready")
def _beside(config: ImageRunConfig, splits: ImageSplits, task: Classifier, name: str) -> Classifier:
    """The task for another model: the images in its size, the same rows and the same radius.

    Raises ConfigError, DataError or ModelError as `ready` does.
    """
    config = config.of_model(name)
    found = examined(config, splits, task.surrogates)
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
        load=found.load,
        opened=partial(_opened, config, parts.validation),
        surrogates=found.surrogates,
        warnings=(*task.warnings, *(f"{name}: {line}" for line in _warnings_beside(task, found))),
    )


def _warnings_beside(task: Classifier, found: Examined) -> Iterable[str]:
    """What a reader must know of a further model before comparing it with the first."""
    yield from _model_warnings(found)
    first, own = (tuple(part.pixels.shape[1:]) for part in (task.test, found.parts.test) if isinstance(part, ImageRows))
    if isinstance(task.threat.space, Pixels) and task.threat.ball.geometry.name != "Linf" and first != own:
        yield (
            f"images of {own} and of {first} for {task.config.model.name}: a radius in "
            f"{task.threat.ball.geometry.name} is another threat for another number of pixels."
        )


def _hashes(found: Examined) -> dict[str, str]:
    """SHA-256 of each split's rows, of the preprocessing and of the weights and settings that the run starts from."""
    hashes = {f"data.{name}": images_digest(part) for name, part in found.parts._asdict().items()}
    settings = json.dumps(dict(found.loaded.preprocessing.settings), sort_keys=True)
    hashes["preprocessing"] = digest([settings.encode()])
    hashes |= model_hashes(INITIAL, found.loaded.model)
    return hashes | surrogate_hashes({name: other.model for name, other in found.surrogates.items()})


def _warnings(found: Examined) -> Iterable[str]:
    """What a reader must know before trusting a number."""
    yield from found.splits.notes
    yield from _model_warnings(found)
    for (first, seen), (name, part) in combinations(found.parts._asdict().items(), 2):
        shared = shared_images(seen, part)
        if shared:
            yield f"data: {shared} of {len(part)} {name} rows are images that also stand in {first}, pixel by pixel."


def _model_warnings(found: Examined) -> Iterable[str]:
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
