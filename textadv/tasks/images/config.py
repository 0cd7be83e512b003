"""The schema of a run that hardens an image classifier: what differs from a text classifier's, key by key."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import ThreatConfig
from textadv.config.classifier import ClassifierRunSection
from textadv.config.run import LoraConfig, SourceConfig
from textadv.config.types import ConfigError, Count, Distinct, Section, Text, Texts, Whole, checked
from textadv.values.host.phases import stage

if TYPE_CHECKING:
    from textadv.data import ImageParts, ImageSplits
    from textadv.models import ImageShape, LoadedVision, Preprocessing

KNOWN_DATA = ("builtin:shapes", "files")
WITH_SHAPES = ("name", "path", "channels", "image_size", "train_rows", "validation_rows", "test_rows")


class ImageModelConfig(SourceConfig):
    """The image classifier that is hardened."""

    name: Text = Field(
        description="Hub id or local folder, of a model or of an adapter; or builtin:small-cnn, builtin:small-resnet."
    )
    lora: LoraConfig | None = Field(None, description="LoRA adapters; null: train all weights.")
    split_norm: Literal["clean", "adversarial"] | None = Field(
        None,
        description="Train batch norms of their own for attacked rows (AdvProp), and measure and keep these; null: one "
        "batch norm for all rows.",
    )

    def preprocessing(self, image_size: int | None) -> Preprocessing:
        """What the model's processor says, with this size where one is given."""
        from textadv.models import read_preprocessing

        own = read_preprocessing(self.name, self.revision, self.trust_remote_code)
        return own if image_size is None else own.sized(image_size)

    @stage("loading the model")
    def make(self, labels: tuple[str, ...], shape: ImageShape, preprocessing: Preprocessing, seed: int) -> LoadedVision:
        """The classifier that takes pixels in [0, 1], and its adapters where the section asks for them."""
        from textadv.models import load_image_classifier

        return load_image_classifier(
            labels=labels,
            shape=shape,
            preprocessing=preprocessing,
            seed=seed,
            lora=None if self.lora is None else self.lora.make(),
            **self.model_dump(exclude={"lora", "split_norm"}),
        )


class ImageDataConfig(Section):
    """The images, their classes and splits. Selection uses validation rows only, reports use test rows only."""

    name: Text = Field(description="builtin:shapes, a Hub id or a data set's folder, or files for local files.")
    path: Text | None = Field(
        None,
        description="An npz file with all splits, or a folder with a folder for each split and class; with data.name: "
        "files.",
    )
    config: Text | None = Field(None, description="Configuration of a Hub data set.")
    train: Texts | None = Field(
        None, description="Training split on the Hub; with files a folder of class folders, or parquet file(s)."
    )
    validation: Texts | None = Field(
        None, description="The same for validation; null: data.validation_fraction of train is held out."
    )
    test: Texts | None = Field(None, description="The same for test.")
    keys: dict[Literal["train", "validation", "test"], Distinct[Text]] = Field(
        {}, description="Arrays of images and of labels in an npz file, by split; x_train and y_train are found."
    )
    image: Text = Field("image", description="Column with the image, on the Hub and in parquet files.")
    label: Text = Field("label", description="Column with the class, as id or as name.")
    labels: Distinct[Text] | None = Field(None, description="Class names in order of class id.")
    label_offset: Whole = Field(
        0, description="Subtracted from whole-number labels: 1 for data that counts its classes from 1."
    )
    unlabelled: Literal["error", "drop"] = Field(
        "error", description="Images without a label (null, -1): an error, or left out, counted and told."
    )
    surrogates: Literal["error", "replace"] = Field(
        "error",
        description="In names of classes, half characters (lone surrogates): an error, or U+FFFD in their place.",
    )
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="Share of the training rows held out when there is no validation split."
    )
    channels: Literal[1, 3] | None = Field(
        None, description="1: make all images grey; 3: give grey images three equal channels; null: as they are stored."
    )
    image_size: Count | None = Field(
        None, description="Height and width in pixels; null: the processor's, or as they are stored for builtin models."
    )
    train_rows: Count | None = Field(None, description="Seeded subset of the training rows; null: all.")
    validation_rows: Count | None = Field(None, description="Seeded subset of the validation rows; null: all.")
    test_rows: Count | None = Field(None, description="Seeded subset of the test rows; null: all.")

    @model_validator(mode="after")
    def _rules(self) -> ImageDataConfig:
        lines = []
        given = self.model_dump(exclude_defaults=True)
        ignored = [key for key in given if key not in WITH_SHAPES]
        if self.name == "files" and self.path is None and self.train is None:
            lines.append("data.path is missing: data.name is files, so name an npz file or a folder.")
        if self.name != "files" and self.path is not None:
            lines.append(f"data.path is for data.name: files, got data.name: {self.name}. Set data.name: files.")
        if self.name == KNOWN_DATA[0] and ignored:
            lines.append(
                f"data.{ignored[0]} cannot be set for data.name: {self.name}, which has its own splits and classes."
            )
        for split, pair in self.keys.items():
            if len(pair) != 2:
                lines.append(f"data.keys.{split} must name two arrays, of images and of labels, got {pair}.")
        if self.labels is not None and len(self.labels) < 2:
            lines.append(f"data.labels must name at least 2 classes, got {self.labels}.")
        return checked(self, lines)

    @stage("reading the data")
    def make(self, seed: int) -> ImageSplits:
        """The images, checked and split, with the size and the channels that they are stored with."""
        from textadv.data import load_image_splits

        return load_image_splits(seed=seed, **self.model_dump(exclude={"channels", "image_size"}))

    def fitted(self, splits: ImageSplits, processor: Preprocessing) -> ImageParts:
        """The images of every split, of the size that the processor says, or else of their own."""
        from textadv.data import Fitting, ImageParts, fitted, own_shape

        channels, *own = own_shape(splits.train)
        height, width = processor.size or own
        fitting = Fitting(
            channels=channels if self.channels is None else self.channels,
            height=height,
            width=width,
            resample=processor.resample,
            convert=self.channels is not None,
            resize=processor.size is not None,
        )
        return ImageParts(*(fitted(part, fitting) for part in splits.parts.values()))


def of_images(data: object) -> object:
    """A threat to images is one to the pixels of an example, unless the file says otherwise."""
    if not isinstance(data, dict):
        return data
    filled: dict[str, Any] = {"space": "pixels", **data}
    return {"per": "example", **filled} if filled["space"] == "pixels" else filled


class ImageRunConfig(ClassifierRunSection):
    """A whole run on an image classifier: data, model, adversary, training and evaluation."""

    task: Literal["images"] = Field(description="images: an image classifier is hardened.")
    model: ImageModelConfig = Field(description="The classifier.")
    data: ImageDataConfig = Field(description="The images.")
    threat: Annotated[ThreatConfig, BeforeValidator(of_images)] = Field(
        description="What the adversary may do; unset keys default to space pixels and per example; norm must be set."
    )

    @model_validator(mode="after")
    def _rules(self) -> ImageRunConfig:
        lines = self.problems()
        detection = self.evaluation.detection
        if detection is not None and detection.on != "validation":
            lines.append(
                f"evaluation.detection.on: {detection.on} needs files of benign rows beside the splits, which task: "
                "images has not. Set evaluation.detection.on: validation."
            )
        if self.threat.space == "embeddings":
            lines.append(
                "threat.space: embeddings needs words, and task: images has none. Set threat.space: pixels, or hidden."
            )
        if self.model.name.startswith("builtin:") and self.model.lora is not None:
            lines.append(f"model.lora: {self.model.name} is trained whole. Set model.lora: null.")
        lines += [] if self.model.split_norm is None else self._split_norm_problems()
        if self.model.name.startswith("builtin:") and self.threat.space == "hidden":
            lines.append(
                f"threat.space: hidden needs transformer blocks, got model.name: {self.model.name}. Set threat.space: "
                "pixels."
            )
        if self.threat.space == "pixels" and "norm" not in self.threat.model_fields_set:
            lines.append(
                "threat.norm is missing: 8/255 in Linf and 8/255 in L2 are threats of very different strength. Set "
                "threat.norm: linf, l2 or l1."
            )
        radius = self.threat.radius
        if self.threat.space == "pixels" and self.threat.norm == "linf" and radius is not None and radius >= 1:
            lines.append(
                f"threat.radius: {radius:g} in pixels of 0 to 1 allows every image. Write {radius:g}/255 if bytes are "
                "meant."
            )
        return checked(self, lines)

    def _split_norm_problems(self) -> list[str]:
        """What batch norms of their own for attacked rows ask of mixing, objective and averaging, one line each."""
        mixing, objective, lines = self.mixing, self.objective, []
        never = mixing.ratio == 0 and mixing.ratio_schedule is None
        if objective.name == "clean" or never:
            lines.append(
                "model.split_norm keeps batch norms for attacked rows, and this run attacks none (objective.name: "
                "clean, or mixing.ratio: 0). Set model.split_norm: null."
            )
        always = mixing.warmup_steps == 0 and mixing.lowest_ratio == 1
        if always and mixing.policy == "replace" and not objective.passes_clean:
            lines.append(
                "model.split_norm keeps batch norms for clean rows, and this run passes none (mixing.ratio: 1 with "
                f"mixing.policy: replace and objective.name: {objective.name}). Set model.split_norm: null, or "
                "mixing.policy: pair, or lower mixing.ratio."
            )
        if self.model.split_norm == "adversarial" and self.training.averaging is not None:
            lines.append(
                "training.averaging computes statistics for averaged weights on clean rows, and model.split_norm: "
                "adversarial measures and keeps those of attacked rows. Set training.averaging: null, or "
                "model.split_norm: clean."
            )
        return lines

    def check_look(self, attack: str | None, picture: Path) -> None:
        """Raises ConfigError where there is no attack of that name, or no such picture could be written."""
        super().check_look(attack, picture)
        _require_picture(picture)


def _require_picture(path: Path) -> None:
    """Raises ConfigError where the picture's file is no PNG file or cannot be written."""
    if path.suffix.lower() != ".png":
        raise ConfigError([f"--picture must name a PNG file, got {path}. Write for example {path.stem}.png."])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab"):
            pass
    except OSError as error:
        raise ConfigError([f"--picture {path} cannot be written: {error}. Name another file."]) from error
    if path.stat().st_size == 0:
        path.unlink()


SCHEMA = ImageRunConfig
