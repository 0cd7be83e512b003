"""The schema of a run: every key that a configuration file may hold, its unit, its default and its rules.

A section checks its values and makes its component of the library, which it imports only then. Reading files, overrides
and writing are in `textadv.tasks.file`; the wording of errors is in `textadv.config.errors`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.classifier import ClassifierRunSection, NamedDataConfig
from textadv.config.edits_evaluation import BY_NAME, TextEvaluationConfig
from textadv.config.edits_training import TextAttackConfig, TextMixingConfig, edits_problems
from textadv.config.mining import MiningConfig
from textadv.config.run import LoraConfig, SourceConfig
from textadv.config.types import (
    AttackKey,
    ConfigError,
    Count,
    Distinct,
    Natural,
    Section,
    Text,
    Texts,
    Whole,
    checked,
)
from textadv.values.host.phases import stage

if TYPE_CHECKING:
    from textadv.data import Splits
    from textadv.models import LoadedModel
    from textadv.models.heads import Head
    from textadv.values.texts import Windows


class ModelConfig(SourceConfig):
    """The classifier that is hardened."""

    name: Text = Field(description="Hub id or local folder, of a model or of an adapter; or builtin:tiny-encoder.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in backward to save memory.")
    lora: LoraConfig | None = Field(LoraConfig(), description="LoRA adapters; null: train all weights.")

    @stage("loading the model")
    def make(self, labels: tuple[str, ...], seed: int) -> LoadedModel:
        """The classifier with its tokenizer, and its adapters where the section asks for them."""
        from textadv.models.heads import OF_TEXTS

        return self.headed(labels, seed, OF_TEXTS)

    def headed(self, labels: tuple[str, ...], seed: int, head: Head) -> LoadedModel:
        """See `make`; head: what the classes are of."""
        from textadv.models import load_classifier

        lora = None if self.lora is None else self.lora.make()
        return load_classifier(labels=labels, seed=seed, lora=lora, head=head, **self.model_dump(exclude={"lora"}))

    def unperturbable(self, space: str) -> list[str]:
        """Why hidden states of this model cannot be attacked as it is trained, a line or none."""
        if space != "hidden" or not self.gradient_checkpointing:
            return []
        return [
            "model.gradient_checkpointing: true recomputes hidden states without their perturbation, so it cannot be "
            "used with threat.space: hidden. Set model.gradient_checkpointing: false."
        ]


class WindowsConfig(Section):
    """How texts longer than data.max_length are read: in overlapping windows, of which the worst decides."""

    overlap: Natural = Field(description="Tokens that a window shares with the one before it.")
    toward: Text = Field(description="The class whose most likely window decides a text, such as injection.")

    def make(self, max_length: int, labels: Sequence[str]) -> Windows:
        """The windows. Raises ConfigError where no class is called `toward`."""
        from textadv.values.texts import Windows

        if self.toward not in labels:
            raise ConfigError(
                [
                    f"data.windows.toward must be one of the classes ({', '.join(labels)}), got {self.toward}. Name "
                    "one of them, or give the classes their names in data.labels."
                ]
            )
        return Windows(max_length, self.overlap, list(labels).index(self.toward))


class DataConfig(NamedDataConfig):
    """The data set, its columns and its splits. Selection uses validation rows only, reports use test rows only."""

    name: Text = Field(description="builtin:reviews, a Hub id or a data set's folder, or files for local files.")
    text: Text = Field("text", description="Column with the text.")
    text_pair: Text | None = Field(None, description="Column with a second text, for pair tasks.")
    label: Text = Field("label", description="Column with the class, as id or as name.")
    columns: Distinct[Text] | None = Field(None, description="Column names of files that have no header, in order.")
    validation_columns: Distinct[Text] | None = Field(
        None, description="Those of the validation file(s), where they differ; null: data.columns."
    )
    test_columns: Distinct[Text] | None = Field(
        None, description="Those of the test file(s), where they differ; null: data.columns."
    )
    labels: Distinct[Text] | None = Field(None, description="Class names in order of class id.")
    label_offset: Whole = Field(
        0, description="Subtracted from whole-number labels: 1 for data that counts its classes from 1."
    )
    unlabelled: Literal["error", "drop"] = Field(
        "error", description="Rows without a label (null, empty, -1): an error, or left out, counted and told."
    )
    surrogates: Literal["error", "replace"] = Field(
        "error", description="Half characters (lone surrogates, as of a cut emoji): an error, or U+FFFD in their place."
    )
    max_length: Count = Field(128, description="Longest row in tokens; the rest is cut off, or read in windows.")
    windows: WindowsConfig | None = Field(
        None, description="Reads texts that are longer in overlapping windows, the worst of which counts; null: cut."
    )
    tests: Annotated[dict[AttackKey, Texts] | None, Field(min_length=1)] = Field(
        None,
        description="Test files by names of your choice, each reported by itself, beside data.test or in its place.",
    )
    benign: Texts | None = Field(
        None, description="File(s) of benign rows that evaluation.detection may choose thresholds on."
    )
    leave_out: dict[Text, Texts] | None = Field(
        None,
        description="Training and validation rows that are not read: by column, the value(s) that they have there.",
    )
    test_leave_out: dict[Text, Texts] | None = Field(None, description="The same of test rows.")
    train_rows: Count | None = Field(None, description="Seeded subset of the training rows; null: all.")
    validation_rows: Count | None = Field(None, description="Seeded subset of the validation rows; null: all.")
    test_rows: Count | None = Field(None, description="Seeded subset of each test file's rows; null: all.")

    @model_validator(mode="after")
    def _rules(self) -> DataConfig:
        lines = self.no_train()
        for key in ("columns", "validation_columns", "test_columns"):
            if self.name != "files" and key in self.model_dump(exclude_none=True):
                lines.append(f"data.{key} is for data.name: files, got data.name: {self.name}. Remove data.{key}.")
        roles = {"text": self.text, "text_pair": self.text_pair, "label": self.label}
        named = [column for column in roles.values() if column is not None]
        if len(set(named)) < len(named):
            used = ", ".join(f"data.{role}: {column}" for role, column in roles.items() if column is not None)
            lines.append(f"data.text, data.text_pair and data.label must be different columns, got {used}.")
        several = [key for key in ("tests", "benign") if getattr(self, key) is not None]
        if self.name != "files" and several:
            named_keys = " and ".join(f"data.{key}" for key in several)
            lines.append(f"{named_keys} name files, got data.name: {self.name}. Set data.name: files.")
        if self.windows is not None and self.text_pair is not None:
            lines.append(
                "data.windows reads one text in windows, and data.text_pair gives each row two. Set data.windows: "
                "null, or leave data.text_pair out."
            )
        if self.windows is not None and self.windows.overlap >= self.max_length:
            lines.append(
                f"data.windows.overlap must be below data.max_length ({self.max_length}), got {self.windows.overlap}. "
                "Lower it."
            )
        if self.labels is not None and len(self.labels) < 2:
            lines.append(f"data.labels must name at least 2 classes, got {self.labels}.")
        return checked(self, lines)

    def reading(self, labels: Sequence[str]) -> Windows | None:
        """How longer texts are read; None: they are cut. Raises ConfigError where no class is called as it says."""
        return None if self.windows is None else self.windows.make(self.max_length, labels)

    @stage("reading the data")
    def make(self, seed: int) -> Splits:
        """The data set, mapped, checked and split."""
        from textadv.data import load_splits

        columns = {
            "train": self.columns,
            "validation": self.validation_columns or self.columns,
            "test": self.test_columns or self.columns,
        }
        named = {split: names for split, names in columns.items() if names is not None}
        apart = {"max_length", "windows", "columns", "validation_columns", "test_columns"}
        plain = self.model_dump(exclude=apart)
        return load_splits(seed=seed, columns=named or None, **plain)


class RunConfig(ClassifierRunSection):
    """A whole run: data, model, adversary, training and evaluation."""

    task: Literal["classification"] = Field(
        "classification", description="classification; or images, tokens, or chat for a chat model."
    )
    attack: TextAttackConfig = Field(TextAttackConfig(), description="How hard the adversary of training tries.")
    mixing: TextMixingConfig = Field(TextMixingConfig(), description="How many rows are attacked.")
    mining: MiningConfig | None = Field(
        None, description="Hard rows, found by edits while training goes on, that join the training rows; null: none."
    )
    model: ModelConfig = Field(description="The classifier.")
    data: DataConfig = Field(description="The data set.")
    evaluation: TextEvaluationConfig = Field(TextEvaluationConfig(), description="What is measured on test rows.")

    def check_look(self, attack: str | None, picture: Path) -> None:
        """Raises ConfigError where the evaluation has no attack of that name, and no attack by edits is called so."""
        if attack not in self.evaluation.edits and attack not in BY_NAME:
            super().check_look(attack, picture)

    @model_validator(mode="after")
    def _rules(self) -> RunConfig:
        lines = [*self.problems(), *self.model.unperturbable(self.threat.space)]
        lines += edits_problems(self.attack, self.mixing, self.objective.name, self.training.guard is not None)
        if self.mining is not None:
            guarded = self.training.guard is not None
            lines += self.mining.problems(self.objective.name, guarded, self.training.batch_size)
        detection = self.evaluation.detection
        if detection is not None and detection.on != "validation" and self.data.benign is None:
            lines.append(
                f"evaluation.detection.on: {detection.on} needs data.benign, which is not set. Name file(s) of benign "
                "rows there, or set evaluation.detection.on: validation."
            )
        if self.data.benign is not None and (detection is None or detection.on == "validation"):
            lines.append(
                "data.benign is read for evaluation.detection.on: benign or both, and neither is set. Remove "
                "data.benign, or set evaluation.detection.on."
            )
        return checked(self, lines)


SCHEMA = RunConfig
