"""What a processor says of size, scale and channels, and what is written for others to load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoImageProcessor
from transformers.models.mobilevit.image_processing_pil_mobilevit import MobileViTImageProcessorPil

from tests.vision import CLASSES, SIDE, saved, tiny
from textadv.data import Fitting, Pictures, fitted
from textadv.models import (
    ImageShape,
    LoadedVision,
    ModelError,
    Preprocessing,
    load_image_classifier,
    read_preprocessing,
    save_vision,
)

MEAN, STD = [0.5, 0.4, 0.3], [0.5, 0.25, 0.2]
HALF = {"do_normalize": True, "image_mean": MEAN, "image_std": STD}
CROP = {"size": {"shortest_edge": 28}, "do_center_crop": True, "crop_size": {"height": 24, "width": 20}}
MOBILE = {**CROP, "image_processor_type": "MobileViTImageProcessor", "resample": 2}
PROCESSORS: dict[str, dict[str, Any]] = {
    "two sides": {
        "image_processor_type": "ViTImageProcessor",
        "size": {"height": 24, "width": 20},
        "resample": 3,
        **HALF,
    },
    "a crop": {"image_processor_type": "CLIPImageProcessor", **CROP, "resample": 3, **HALF},
    "a share of the shortest edge": {
        "image_processor_type": "ConvNextImageProcessor",
        "size": {"shortest_edge": 24},
        "crop_pct": 0.875,
        **HALF,
    },
    "a wider resize": {"image_processor_type": "LevitImageProcessor", **CROP, **HALF},
    "a second division": {
        "image_processor_type": "EfficientNetImageProcessor",
        "size": 24,
        "resample": 0,
        "include_top": True,
        "rescale_offset": True,
        "rescale_factor": 1 / 127.5,
        **HALF,
    },
    "bytes": {"image_processor_type": "ViTImageProcessor", "size": 24, "do_rescale": False, "do_normalize": False},
    "a flip": {**MOBILE, "do_flip_channel_order": True},
    "a flip by default": {**MOBILE, "image_mean": MEAN, "image_std": STD},
    "no flip": {**MOBILE, "do_flip_channel_order": False},
    "a flip without a type": {key: MOBILE[key] for key in CROP} | {"do_flip_channel_order": True},
    "no resize": {"image_processor_type": "ViTImageProcessor", "size": 24, "do_resize": False, **HALF},
}


NO_MEAN = ((0.0,), (1.0,))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"image_mean": [0.5], "image_std": [0.25]}, ((0.5,), (0.25,))),
        ({"do_normalize": False, "image_mean": [0.5], "image_std": [0.25]}, NO_MEAN),
        ({}, NO_MEAN),
        # The model wants bytes: x 255.
        ({"do_rescale": False}, ((0.0,), (1 / 255,))),
        # x 2, then - 1: pixels in [-1, 1].
        ({"rescale_factor": 1 / 127.5, "rescale_offset": True}, ((0.5,), (0.5,))),
        # (2 x - 0.5) / 0.25 = (x - 0.25) / 0.125.
        ({"rescale_factor": 1 / 127.5, "image_mean": [0.5], "image_std": [0.25]}, ((0.25,), (0.125,))),
        ({"do_normalize": None, "image_mean": [0.5], "image_std": [0.25]}, ((0.5,), (0.25,))),
        # MobileViT's processor does not normalise, whatever it was saved with.
        ({"image_processor_type": "MobileViTImageProcessor", "image_mean": [0.5], "image_std": [0.25]}, NO_MEAN),
        # EfficientNet: divided by the deviation twice.
        ({"image_mean": [0.5], "image_std": [0.25], "include_top": True}, ((0.5,), (0.0625,))),
    ],
)
def test_rescaling_and_normalisation_are_one_mean_and_one_deviation(settings: Any, expected: Any) -> None:
    mean, std = Preprocessing(settings).mean_std
    assert mean == pytest.approx(expected[0]) and std == pytest.approx(expected[1])


def test_a_processor_that_crops_is_known() -> None:
    crops = {name for name, settings in PROCESSORS.items() if Preprocessing(settings).crops}
    whole = {"two sides", "a second division", "bytes", "no resize"}
    assert crops == set(PROCESSORS) - whole
    assert not any(Preprocessing(settings).sized(24).crops for settings in PROCESSORS.values())
    assert not Preprocessing({"size": {"shortest_edge": 384}, "crop_pct": 0.875}).crops


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({"size": 24}, (24, 24)),
        ({"size": {"height": 24, "width": 32}}, (24, 32)),
        ({"size": {"shortest_edge": 24}, "crop_pct": 0.875}, (24, 24)),
        ({"size": {"shortest_edge": 32}, "do_center_crop": True, "crop_size": {"height": 24, "width": 24}}, (24, 24)),
        ({"size": 32, "do_center_crop": False, "crop_size": 24}, (32, 32)),
        ({"size": [24, 32]}, (24, 32)),
        ({"size": 24, "do_resize": False}, None),
        ({"size": 32, "do_resize": False, "do_center_crop": True, "crop_size": 24}, None),
        ({}, None),
    ],
)
def test_the_size_is_what_the_model_is_given(settings: Any, size: Any) -> None:
    found = Preprocessing(settings)
    assert found.size == size
    assert found.sized(48).size == (48, 48)


def test_a_normalisation_without_its_numbers_is_an_error() -> None:
    with pytest.raises(ModelError, match="do_normalize: true without image_mean"):
        _ = Preprocessing({"do_normalize": True}).mean_std


@pytest.mark.parametrize(
    ("settings", "part"),
    [
        ({"image_mean": "imagenet"}, "says image_mean: 'imagenet', and a number is needed, or one for each channel"),
        ({"image_std": [0.5, 0.5, 0.0]}, "says image_std: [0.5, 0.5, 0.0], and a number above 0 is needed"),
        ({"rescale_factor": "1/255"}, "says rescale_factor: '1/255', and a number above 0 is needed. Correct it."),
        ({"rescale_factor": 0}, "says rescale_factor: 0, and"),
        ({"image_mean": [0.5, 0.5, 0.5], "image_std": [0.5]}, "for different numbers of channels"),
        ([], "holds no settings by name"),
    ],
)
def test_numbers_that_pixels_cannot_be_computed_with_are_named(settings: Any, part: str, tmp_path: Path) -> None:
    saved(tiny("vit"), tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        read_preprocessing(str(tmp_path))
    assert part in str(caught.value)


def test_the_size_of_the_model_stands_in_where_the_processor_has_none(tmp_path: Path) -> None:
    folder = saved(tiny("vit"), tmp_path / "model", size=None)
    assert read_preprocessing(str(folder)).size == (SIDE, SIDE)
    assert read_preprocessing("builtin:small-cnn").size is None


@pytest.mark.parametrize("size", [[24], [24, 24, 3], ["a", 24], "24", {"longest_edge": 24}, {"height": 24}, 0])
def test_a_size_that_cannot_be_read_is_named(size: Any) -> None:
    with pytest.raises(ModelError, match=r"says size: .* Set data.image_size"):
        _ = Preprocessing({"size": size}).size
    assert Preprocessing({"size": size}).sized(24).size == (24, 24)


def test_the_filter_is_a_number_of_pillow() -> None:
    assert [Preprocessing(given).resample for given in ({}, {"resample": None}, {"resample": 3})] == [2, 2, 3]
    with pytest.raises(ModelError, match="says resample: 'bicubic'"):
        _ = Preprocessing({"resample": "bicubic"}).resample


def given_to_the_model(found: LoadedVision, image: np.ndarray, processor: Preprocessing) -> Tensor:
    """What the network inside receives of an image, (1, channels, height, width)."""
    shape = found.shape
    fitting = Fitting(*shape, resample=processor.resample, convert=True, resize=processor.size is not None)
    rows = fitted(Pictures(image[None], (0,), (0,), "made up"), fitting)
    found.model.model = nn.Identity()
    given = found.model(rows.batch([0]).inputs["pixel_values"])
    assert isinstance(given, Tensor)
    return given


def drawn(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


@pytest.mark.parametrize("grey", [False, True])
@pytest.mark.parametrize("kind", PROCESSORS)
def test_the_processor_that_is_saved_gives_the_pixels_that_the_model_was_given(
    kind: str, grey: bool, tmp_path: Path
) -> None:
    folder = saved(tiny("resnet"), tmp_path / "model")
    (folder / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[kind]), encoding="utf-8")
    processor = read_preprocessing(str(folder))
    image = drawn(30, 44) if grey else drawn(30, 44, 3)
    shape = ImageShape(3, *(processor.size or image.shape[:2]))
    found = load_image_classifier(str(folder), CLASSES, shape, processor)
    save_vision(found, tmp_path / "kept")
    again = read_preprocessing(str(tmp_path / "kept"))
    reloaded = load_image_classifier(str(tmp_path / "kept"), CLASSES, shape, again)
    assert reloaded.preprocessing == found.preprocessing
    wanted = given_to_the_model(found, image, processor)
    assert torch.equal(given_to_the_model(reloaded, image, again), wanted)
    theirs = AutoImageProcessor.from_pretrained(tmp_path / "kept")(Image.fromarray(image), return_tensors="pt")
    assert theirs["pixel_values"].shape == wanted.shape == (1, *shape)
    assert torch.allclose(theirs["pixel_values"], wanted, rtol=1e-5, atol=1e-5)


def test_a_grey_network_is_saved_with_a_processor_of_one_channel(tmp_path: Path) -> None:
    shape = ImageShape(1, SIDE, SIDE)
    processor = read_preprocessing("builtin:small-cnn")
    found = load_image_classifier("builtin:small-cnn", CLASSES, shape, processor)
    save_vision(found, tmp_path)
    image = drawn(SIDE, SIDE)
    theirs = AutoImageProcessor.from_pretrained(tmp_path)(Image.fromarray(image), return_tensors="pt")["pixel_values"]
    assert torch.allclose(theirs, given_to_the_model(found, image, processor), atol=1e-6)


@pytest.mark.parametrize("kind", ["a flip", "a flip by default", "no flip", "saved by transformers"])
def test_the_channels_of_mobilevit_are_given_as_its_own_processor_gives_them(kind: str, tmp_path: Path) -> None:
    folder = saved(tiny("resnet"), tmp_path / "model")
    sides = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    if kind == "saved by transformers":
        MobileViTImageProcessorPil(**sides).save_pretrained(folder)
    else:
        settings = {**PROCESSORS[kind], **sides}
        (folder / "preprocessor_config.json").write_text(json.dumps(settings), encoding="utf-8")
    processor = read_preprocessing(str(folder))
    found = load_image_classifier(str(folder), CLASSES, ImageShape(3, SIDE, SIDE), processor)
    image = drawn(SIDE, SIDE, 3)
    theirs = MobileViTImageProcessorPil.from_pretrained(folder)(Image.fromarray(image), return_tensors="pt")
    wanted = theirs["pixel_values"]
    assert torch.allclose(given_to_the_model(found, image, processor), wanted, atol=1e-6)
    first = 0 if kind == "no flip" else 2
    assert torch.allclose(wanted[0, 0], torch.from_numpy(image[..., first]) / 255, atol=1e-6)


@pytest.mark.parametrize("size", [10**9, {"height": 1, "width": 10**9}, {"shortest_edge": 10**5}, [10**5, 10**5]])
def test_images_are_not_resized_to_more_than_anybody_wants(size: object) -> None:
    with pytest.raises(ModelError, match="says size: .* pixels are not made. Set data.image_size"):
        _ = Preprocessing({"size": size}).size
