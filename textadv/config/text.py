"""The schema of a run: every key that a configuration file may hold, its unit, its default and its rules.

Values are checked here and nowhere turned into objects of the library: `textadv.tasks.components` does that. Reading
files, overrides and writing are in `textadv.config.file`; the wording of errors is in `textadv.config.errors`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import (
    AdaptiveRadiusConfig,
    AttackConfig,
    LinearScheduleConfig,
    MixingConfig,
    ScheduleConfig,
    StepScheduleConfig,
    ThreatConfig,
    selecting,
)
from textadv.config.attacks import ApgdCeConfig, MaskingConfig, MinimumRadiusConfig, NamedAttackConfig
from textadv.config.labels import attack_problems
from textadv.config.objective import (
    AdversarialConfig,
    AlumConfig,
    CleanConfig,
    DistributionalConfig,
    FreeConfig,
    FreelbConfig,
    MartConfig,
    ObjectiveConfig,
    PredictorConfig,
    R3fConfig,
    RegularisedConfig,
    SmartConfig,
    TradesConfig,
    objective_problems,
    replays_of,
    weight_perturbation_problems,
)
from textadv.config.training import AveragingConfig, GuardConfig, TrainingConfig, training_problems
from textadv.config.types import (
    AttackKey,
    ConfigError,
    Count,
    Distinct,
    Length,
    Natural,
    Section,
    Targets,
    Text,
    Texts,
    Whole,
    checked,
)

__all__ = [
    "AdaptiveRadiusConfig",
    "AdversarialConfig",
    "AlumConfig",
    "AttackConfig",
    "AveragingConfig",
    "CheckpointConfig",
    "CleanConfig",
    "ConfigError",
    "DataConfig",
    "DistributionalConfig",
    "EvaluationConfig",
    "FreeConfig",
    "FreelbConfig",
    "GuardConfig",
    "LinearScheduleConfig",
    "LoraConfig",
    "MartConfig",
    "MixingConfig",
    "ModelConfig",
    "ObjectiveConfig",
    "PredictorConfig",
    "R3fConfig",
    "RegularisedConfig",
    "RunConfig",
    "ScheduleConfig",
    "SelectionConfig",
    "SmartConfig",
    "StepScheduleConfig",
    "ThreatConfig",
    "TrackingConfig",
    "TradesConfig",
    "TrainingConfig",
]

Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]


class LoraConfig(Section):
    """Low-rank adapters in place of full fine-tuning (arXiv:2106.09685)."""

    r: Count = Field(8, description="Rank of each adapter.")
    alpha: Count = Field(16, description="Scale of the adapters; the update is multiplied by alpha / r.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout before the adapters, 0 to below 1.")
    targets: Targets = Field(
        "all-linear", description="Layers that get an adapter: all-linear, or a list of module names."
    )


class ModelConfig(Section):
    """The classifier that is hardened."""

    name: Text = Field(description="Hub id or local folder, of a model or of an adapter; or builtin:tiny-encoder.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the Hub; null: the default branch.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Number format of the weights.")
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings along.")
    gradient_checkpointing: bool = Field(False, description="Recompute activations in backward to save memory.")
    lora: LoraConfig | None = Field(LoraConfig(), description="LoRA adapters; null: train all weights.")


class DataConfig(Section):
    """The data set, its columns and its splits. Selection uses validation rows only, reports use test rows only."""

    name: Text = Field(description="builtin:reviews, a Hub id or a data set's folder, or files for local files.")
    config: Text | None = Field(None, description="Configuration of a Hub data set, such as sst2 of glue.")
    train: Texts | None = Field(None, description="Training split on the Hub, or file path(s) when data.name is files.")
    validation: Texts | None = Field(
        None, description="Validation split or file path(s); null: data.validation_fraction of train is held out."
    )
    test: Texts | None = Field(None, description="Test split or file path(s).")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="Share of the training rows held out when there is no validation split."
    )
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
    max_length: Count = Field(128, description="Longest row in tokens; the rest of a text is cut off.")
    train_rows: Count | None = Field(None, description="Seeded subset of the training rows; null: all.")
    validation_rows: Count | None = Field(None, description="Seeded subset of the validation rows; null: all.")
    test_rows: Count | None = Field(None, description="Seeded subset of the test rows; null: all.")

    @model_validator(mode="after")
    def _rules(self) -> DataConfig:
        lines = []
        if self.name == "files" and self.train is None:
            lines.append("data.train is missing: data.name is files, so name the training file(s).")
        for key in ("columns", "validation_columns", "test_columns"):
            if self.name != "files" and key in self.model_dump(exclude_none=True):
                lines.append(f"data.{key} is for data.name: files, got data.name: {self.name}. Remove data.{key}.")
        roles = {"text": self.text, "text_pair": self.text_pair, "label": self.label}
        named = [column for column in roles.values() if column is not None]
        if len(set(named)) < len(named):
            used = ", ".join(f"data.{role}: {column}" for role, column in roles.items() if column is not None)
            lines.append(f"data.text, data.text_pair and data.label must be different columns, got {used}.")
        if self.labels is not None and len(self.labels) < 2:
            lines.append(f"data.labels must name at least 2 classes, got {self.labels}.")
        return checked(self, lines)


class SelectionConfig(Section):
    """How the best checkpoint is found, on validation rows only."""

    every: Count | None = Field(None, description="Optimizer steps between two measurements; null: once per epoch.")
    rows: Count = Field(256, description="Validation rows that are attacked.")
    attack: Annotated[AttackConfig, BeforeValidator(selecting)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging", early_stop=True),
        description="The fixed attack; unset keys default to steps 10, select most_damaging and early_stop true.",
    )


class CheckpointConfig(Section):
    """What is saved on the way."""

    every: Count | None = Field(None, description="Optimizer steps between two checkpoints; null: once per epoch.")
    keep_last: Count = Field(2, description="Checkpoints that are kept for resuming.")
    resume: bool = Field(False, description="Continue from the last checkpoint in output.")
    overwrite: bool = Field(False, description="Remove the run that output holds, checkpoints included; start anew.")

    @model_validator(mode="after")
    def _rules(self) -> CheckpointConfig:
        both = ["checkpoint.resume and checkpoint.overwrite are both true. Keep the one that you mean."]
        return checked(self, both if self.resume and self.overwrite else [])


class EvaluationConfig(Section):
    """What is measured on test rows, before and after training."""

    rows: Count | None = Field(256, description="Test rows that are attacked; null: all.")
    batch_size: Count = Field(64, description="Rows per forward.")
    attacks: Annotated[dict[AttackKey, NamedAttackConfig], Field(min_length=1)] = Field(
        {
            "pgd20": AttackConfig(
                name="pgd", steps=20, restarts=3, select="most_damaging", early_stop=True, starts="spread"
            ),
            "apgd": ApgdCeConfig(steps=50),
        },
        description="Attacks by names of your choice; unset keys of pgd and its kin default to select most_damaging, "
        "early_stop true, starts spread.",
    )
    radii: list[Length] = Field(
        [], description="Radii of the robustness curve, ascending, in the unit of the threat's radius; empty: no curve."
    )
    curve_attack: str | None = Field(None, description="Key of the attack that draws the curve; null: the first.")
    calibrate: bool = Field(True, description="Fit a temperature on validation rows before attacking.")
    masking: MaskingConfig | None = Field(
        MaskingConfig(), description="Checks whether the attacks met masked gradients; null: none."
    )
    keep_adversarial: bool = Field(
        False,
        description="Keep the rows as every attack left them, in adversarial/ of the output folder.",
    )
    minimum_radius: MinimumRadiusConfig | None = Field(
        None, description="Looks for the smallest radius that breaks each row; {} with every default, null: not at all."
    )

    @model_validator(mode="after")
    def _rules(self) -> EvaluationConfig:
        lines = []
        if any(low >= high for low, high in zip(self.radii, self.radii[1:], strict=False)):
            lines.append(f"evaluation.radii must be in ascending order without repeats, got {self.radii}.")
        if self.curve_attack is not None and self.curve_attack not in self.attacks:
            lines.append(
                f"evaluation.curve_attack must be a key of evaluation.attacks ({', '.join(self.attacks)}), got "
                f"{self.curve_attack}."
            )
        return checked(self, [*lines, *attack_problems("evaluation.attacks", self.attacks)])


class TrackingConfig(Section):
    """Where numbers go while the run is on its way, besides the log file."""

    log_with: Distinct[Tracker] = Field([], description="Trackers of accelerate.")
    project: Text = Field("textadv", description="Project name in the trackers.")
    progress: bool = Field(True, description="Say how far phases of over ten seconds are.")


class RunConfig(Section):
    """A whole run: data, model, adversary, training and evaluation."""

    task: Literal["classification"] = Field(
        "classification", description="classification; or images, or chat for a chat model."
    )
    seed: Annotated[Natural, Field(lt=2**32)] = Field(0, description="Source of all randomness of the run.")
    output: Text = Field(description="Folder for everything that the run writes.")
    model: ModelConfig = Field(description="The classifier.")
    data: DataConfig = Field(description="The data set.")
    threat: ThreatConfig = Field(description="What the adversary may do.")
    attack: AttackConfig = Field(AttackConfig(), description="How hard the adversary of training tries.")
    objective: ObjectiveConfig = Field(AdversarialConfig(), description="The loss that training lowers.")
    mixing: MixingConfig = Field(MixingConfig(), description="How many rows are attacked.")
    training: TrainingConfig = Field(description="The optimizer and the loop.")
    selection: SelectionConfig = Field(SelectionConfig(), description="How the best checkpoint is found.")
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="What is saved on the way.")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="What is measured on test rows.")
    baselines: Distinct[Literal["same_steps", "equal_cost"]] = Field(
        ["same_steps"],
        description="Plain fine-tunes to compare with: of as many steps, or of as many forwards and backwards.",
    )
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where numbers go meanwhile.")

    @model_validator(mode="after")
    def _rules(self) -> RunConfig:
        lines = objective_problems(self.objective, self.attack, self.threat, self.mixing)
        training = self.training
        lines += weight_perturbation_problems(self.objective, training.precision)
        lines += training_problems(training, self.objective.name, replays_of(self.objective), self.checkpoint.every)
        if self.threat.space == "hidden" and self.model.gradient_checkpointing:
            lines.append(
                "model.gradient_checkpointing: true recomputes hidden states without their perturbation, so it cannot "
                "be used with threat.space: hidden. Set model.gradient_checkpointing: false."
            )
        return checked(self, lines)
