"""From the configuration of an image run to data, preprocessing and model; the rest is as for texts, in `build`."""

from __future__ import annotations

from typing import NamedTuple

from textadv.config.images import ImageDataConfig, ImageModelConfig
from textadv.data import Fitting, ImageRows, ImageSplits, fitted, load_image_splits, own_shape
from textadv.models import (
    ImageShape,
    LoadedVision,
    Lora,
    Preprocessing,
    load_image_classifier,
    read_preprocessing,
)
from textadv.values.host.phases import stage


class Parts(NamedTuple):
    """The rows of each split."""

    train: ImageRows
    validation: ImageRows
    test: ImageRows


@stage("reading the data")
def splits(config: ImageDataConfig, seed: int) -> ImageSplits:
    """The images, checked and split, with the size and the channels that they are stored with."""
    return load_image_splits(seed=seed, **config.model_dump(exclude={"channels", "image_size"}))


def preprocessing(model: ImageModelConfig, data: ImageDataConfig) -> Preprocessing:
    """What the model's processor says, with the size that `data.image_size` sets."""
    found = read_preprocessing(model.name, model.revision, model.trust_remote_code)
    return found if data.image_size is None else found.sized(data.image_size)


def rows(splits: ImageSplits, data: ImageDataConfig, processor: Preprocessing) -> Parts:
    """The images of every split, of the size that the processor says, or else of their own."""
    channels, *own = own_shape(splits.train)
    height, width = processor.size or own
    fitting = Fitting(
        channels=channels if data.channels is None else data.channels,
        height=height,
        width=width,
        resample=processor.resample,
        convert=data.channels is not None,
        resize=processor.size is not None,
    )
    return Parts(*(fitted(part, fitting) for part in splits.parts.values()))


@stage("loading the model")
def model(
    config: ImageModelConfig, labels: tuple[str, ...], shape: ImageShape, processor: Preprocessing, seed: int
) -> LoadedVision:
    """The classifier that takes pixels in [0, 1], and its adapters where the configuration asks for them."""
    lora = None if config.lora is None else Lora(**config.lora.model_dump())
    return load_image_classifier(
        labels=labels,
        shape=shape,
        preprocessing=processor,
        seed=seed,
        lora=lora,
        **config.model_dump(exclude={"lora", "split_norm"}),
    )
