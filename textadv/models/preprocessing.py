"""What an image classifier's processor says: resizing and normalisation, as textadv does them and as it writes them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from transformers import AutoConfig
from transformers.image_processing_base import ImageProcessingMixin

from textadv.data.image_files import LARGEST_IMAGE
from textadv.models.adapters import find_adapter
from textadv.models.networks import NETWORKS
from textadv.models.sizes import require_counts
from textadv.models.sources import UNUSABLE, quiet, require_folder, told
from textadv.values.errors import ModelError
from textadv.values.host.printable import shortened

PROCESSOR_FILE = "preprocessor_config.json"
BYTES = 255
UNCROPPED = 384
FILTERS, BILINEAR = range(6), 2
FLIPPING, PLAIN = "MobileViTImageProcessor", "ViTImageProcessor"


class ImageShape(NamedTuple):
    """What an image tensor looks like, in channels and pixels."""

    channels: int
    height: int
    width: int


@dataclass(frozen=True)
class Preprocessing:
    """What a model's image processor says: resizing, normalisation, order of channels. No more is done to an image.

    settings: the keys of preprocessor_config.json.
    """

    settings: Mapping[str, Any]

    @property
    def size(self) -> tuple[int, int] | None:
        """Height and width that images are resized to; None where they stay as they are stored.

        A centre crop is left out: images are resized to the size after it, so that nothing of them is lost. Raises
        ModelError where the settings name no size that can be read.
        """
        cropped = self.settings.get("do_center_crop") and self.settings.get("crop_size")
        size = cropped or self.settings.get("size")
        if size is None or self.settings.get("do_resize") is False:
            return None
        if isinstance(size, Mapping):
            side = size.get("shortest_edge")
            sides = [size.get("height", side), size.get("width", side)]
        else:
            sides = list(size) if isinstance(size, list | tuple) else [size, size]
        if len(sides) != 2 or not all(isinstance(side, int) and side > 0 for side in sides):
            raise ModelError(
                f"{PROCESSOR_FILE} says size: {shortened(size)}, which is neither a number, nor height and width, nor "
                "shortest_edge. Set data.image_size."
            )
        if sides[0] * sides[1] > LARGEST_IMAGE:
            raise ModelError(
                f"{PROCESSOR_FILE} says size: {shortened(size)}, and images of more than {LARGEST_IMAGE:,} pixels are "
                "not made. Set data.image_size."
            )
        return sides[0], sides[1]

    @property
    def crops(self) -> bool:
        """Whether transformers would cut the borders off, where here the whole image is resized."""
        known = self.settings
        if known.get("do_resize") is False:
            return False
        edge = known["size"].get("shortest_edge") if isinstance(known.get("size"), Mapping) else None
        # ConvNeXt's processor enlarges by 1 / crop_pct and crops, below this size only.
        enlarged = edge is not None and edge < UNCROPPED and float(known.get("crop_pct") or 1) < 1
        return bool(known.get("do_center_crop")) or enlarged

    @property
    def resample(self) -> int:
        """Pillow's number of the filter for resizing; ModelError where the settings name none of them."""
        number = self.settings.get("resample")
        if number is not None and number not in FILTERS:
            raise ModelError(f"{PROCESSOR_FILE} says resample: {number!r}. Write Pillow's number of a filter, 0 to 5.")
        return BILINEAR if number is None else int(number)

    @property
    def _mobile(self) -> bool:
        """Whether this is the processor of MobileViT, the one that never normalises, and flips channels."""
        kind = self.settings.get("image_processor_type", self.settings.get("feature_extractor_type"))
        return "do_flip_channel_order" in self.settings if kind is None else str(kind).startswith("MobileViT")

    @property
    def flipped(self) -> bool:
        """Whether the model is given the channels in the opposite order, blue first."""
        return self._mobile and self.settings.get("do_flip_channel_order") is not False

    @property
    def mean_std(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Per channel, what to subtract from pixels in [0, 1] and to divide by, rescaling included.

        Raises ModelError where the settings ask for a normalisation and do not say which.
        """
        known = self.settings
        scale = BYTES * float(known.get("rescale_factor", 1 / BYTES)) if known.get("do_rescale", True) else float(BYTES)
        shift = 1.0 if known.get("rescale_offset", False) else 0.0
        asked = known.get("do_normalize")
        if self._mobile or not ("image_mean" in known if asked is None else asked):
            return (shift / scale,), (1 / scale,)
        mean, std = known.get("image_mean"), known.get("image_std")
        if mean is None or std is None:
            raise ModelError(
                f"{PROCESSOR_FILE} says do_normalize: true without image_mean and image_std. Write them into it."
            )
        means, stds = ([v] if isinstance(v, int | float) else list(v) for v in (mean, std))
        # EfficientNet's processor divides by the deviation a second time, and says so by this key.
        again = stds if known.get("include_top", False) else [1.0] * len(stds)
        return (
            tuple((shift + value) / scale for value in means),
            tuple(value * more / scale for value, more in zip(stds, again, strict=True)),
        )

    def sized(self, side: int) -> Preprocessing:
        """The same for square images of `side` pixels."""
        sizing = {"do_resize": True, "size": {"height": side, "width": side}, "do_center_crop": False, "crop_pct": None}
        return replace(self, settings={**self.settings, **sizing})

    def kept(self, shape: ImageShape) -> Preprocessing:
        """The same for images of this shape, as a processor whose own pipeline in transformers does this and no more.

        The kinds of processors crop, pad and rescale in ways of their own; that of ViT does what it is told.
        """
        sizing = {
            "do_convert_rgb": shape.channels == 3,
            "do_resize": self.settings.get("do_resize") is not False,
            "size": {"height": shape.height, "width": shape.width},
            "resample": self.resample,
            "do_center_crop": False,
        }
        if self.flipped:
            flip = {"image_processor_type": FLIPPING, "do_flip_channel_order": True}
            return Preprocessing({**self.settings, **sizing, **flip})
        mean, std = ([*values] * (shape.channels // len(values)) for values in self.mean_std)
        scaling = {"do_rescale": True, "rescale_factor": 1 / BYTES}
        normalising = {"do_normalize": True, "image_mean": mean, "image_std": std}
        return Preprocessing({"image_processor_type": PLAIN, **sizing, **scaling, **normalising})


def _require_numbers(name: str, settings: object) -> None:
    """Raises ModelError where what pixels are computed with is no number, or would divide by zero."""
    said = f"model.name {name!r}: its {PROCESSOR_FILE}"
    if not isinstance(settings, Mapping):
        raise ModelError(f"{said} holds no settings by name. Save the model's image processor beside its weights.")
    lengths = set()
    for key in ("rescale_factor", "image_mean", "image_std"):
        value = settings.get(key)
        if value is None:
            continue
        values = value if isinstance(value, list | tuple) else [value]
        numbers = all(isinstance(one, int | float) and not isinstance(one, bool) for one in values)
        if not values or not numbers or (key != "image_mean" and min(values) <= 0):
            least = "a number" if key == "image_mean" else "a number above 0"
            each = "" if key == "rescale_factor" else ", or one for each channel"
            raise ModelError(f"{said} says {key}: {value!r}, and {least} is needed{each}. Correct it.")
        lengths |= {len(values)} if key != "rescale_factor" else set()
    if len(lengths) > 1:
        raise ModelError(
            f"{said} says image_mean: {settings['image_mean']!r} and image_std: {settings['image_std']!r}, which are "
            "for different numbers of channels. Correct them."
        )


def read_preprocessing(name: str, revision: str | None = None, trust_remote_code: bool = False) -> Preprocessing:
    """What the processor of a Hub id, of a folder or of an adapter's base model says; built-in networks take any size.

    Raises ModelError where there is no preprocessor_config.json: nobody could know what pixels the model was made for.
    """
    if name in NETWORKS:
        return Preprocessing({"image_processor_type": PLAIN, "do_normalize": False})
    adapter = find_adapter(name, revision, tasks=(None,))
    if adapter is None:
        require_folder(name)
    if adapter is not None and not (adapter.folder / PROCESSOR_FILE).is_file():
        name, revision = adapter.base, adapter.settings.revision
    require_counts(name, revision)
    try:
        with quiet():
            settings = ImageProcessingMixin.get_image_processor_dict(name, revision=revision)[0]
            known: dict[str, Any] = {}
            if "size" not in settings:
                options = {"revision": revision, "trust_remote_code": trust_remote_code}
                known = AutoConfig.from_pretrained(name, **options).to_dict()
    except UNUSABLE as error:
        raise ModelError(
            f"model.name {name!r} has no {PROCESSOR_FILE} that can be read, so how its pixels are normalised is not "
            f"known: {told(error)} Save the model's image processor beside its weights, or write the file: "
            '{"do_normalize": false} for a model that takes pixels in [0, 1].'
        ) from error
    _require_numbers(name, settings)
    if known.get("image_size") is not None:
        settings |= {"size": known["image_size"]}
    return Preprocessing(settings)
