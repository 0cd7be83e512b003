"""The classifiers of images that attacks are transferred from: loaded as configured, tried against the attacked one."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from textadv.data import ImageParts, ImageSplits
from textadv.models import LoadedModel, LoadedVision, ModelError
from textadv.models.surrogates import LOOKED_AT, require_same_patches, require_taken, require_trained
from textadv.tasks.images.config import ImageRunConfig
from textadv.values.spaces import Hidden


def image_surrogates(
    config: ImageRunConfig,
    attacked: LoadedVision,
    splits: ImageSplits,
    parts: ImageParts,
    known: Mapping[str, LoadedModel | LoadedVision] = MappingProxyType({}),
) -> dict[str, LoadedVision]:
    """The models of every `name: transfer` in evaluation.attacks, by name, on the CPU.

    attacked: the model that their attacks are put on, whose size and channels they need. known: models that need not be
    loaded again.

    Raises ConfigError that names every one which is not there, or not trained for these classes, or differs from
    `attacked` in its size or in the shape of a perturbation.
    """
    sample = parts.test.batch(range(min(len(parts.test), LOOKED_AT)))
    space = config.threat.make().space

    def load(name: str) -> LoadedVision:
        own = config.model.model_copy(update={"name": name, "lora": None, "revision": None})
        processor = own.preprocessing(config.data.image_size)
        size = attacked.shape.height, attacked.shape.width
        if processor.size not in (None, size):
            raise ModelError(
                f"model.name {name!r} takes images of {processor.size[0]} x {processor.size[1]} pixels and the "
                f"attacked model of {size[0]} x {size[1]}. Name a model for images of the same size."
            )
        found = known.get(name) or own.make(splits.labels, attacked.shape, processor, config.seed)
        assert isinstance(found, LoadedVision)
        require_trained(name, found, splits.labels)
        if isinstance(space, Hidden):
            require_same_patches(name, found.model, attacked.model, sample, space.layer)
        require_taken(found.model, attacked.model, sample, space)
        return found

    return config.evaluation.surrogates(load)
