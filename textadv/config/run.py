"""The sections that every kind of run has, and the whole of a run as far as they all agree."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import Field, model_validator

from textadv.config.adversary import AttackConfig, ThreatConfig
from textadv.config.mixing import RatioConfig
from textadv.config.training import TrainingConfig
from textadv.config.types import Count, Distinct, Natural, Section, Targets, Text, checked

if TYPE_CHECKING:
    from textadv.models import Lora

Run = TypeVar("Run", bound="RunSection")
Tracker = Literal["aim", "clearml", "comet_ml", "dvclive", "mlflow", "swanlab", "tensorboard", "trackio", "wandb"]


class LoraConfig(Section):
    """Low-rank adapters in place of full fine-tuning (arXiv:2106.09685)."""

    r: Count = Field(8, description="Rank of each adapter.")
    alpha: Count = Field(16, description="Scale of the adapters; the update is multiplied by alpha / r.")
    dropout: Annotated[float, Field(ge=0, lt=1)] = Field(0.0, description="Dropout before the adapters, 0 to below 1.")
    targets: Targets = Field(
        "all-linear", description="Layers that get an adapter: all-linear, or a list of module names."
    )

    def make(self) -> Lora:
        """The adapters that are asked for."""
        from textadv.models import Lora

        return Lora(**self.model_dump())


class SourceConfig(Section):
    """A model: where it comes from, and how its weights are kept."""

    name: Text = Field(description="Hub id or local folder, of a model or of an adapter.")
    revision: Text | None = Field(None, description="Branch, tag or commit on the Hub; null: the default branch.")
    dtype: Literal["float32", "bfloat16", "float16"] = Field("float32", description="Number format of the weights.")
    trust_remote_code: bool = Field(False, description="Run Python code that the model's repository brings along.")

    @property
    def adapts(self) -> bool:
        """Whether adapters are trained in place of the weights."""
        return self.model_dump(include={"lora"}).get("lora") is not None


class ChoiceConfig(Section):
    """How the best checkpoint is found, on validation rows only."""

    every: Count | None = Field(None, description="Optimizer steps between two measurements; null: once per epoch.")


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


class TrackingConfig(Section):
    """Where numbers go while the run is on its way, besides the log file."""

    log_with: Distinct[Tracker] = Field([], description="Trackers of accelerate.")
    project: Text = Field("textadv", description="Project name in the trackers.")
    progress: bool = Field(True, description="Say how far phases of over ten seconds are.")


class RunSection(Section):
    """A whole run: data, model, adversary, training and evaluation."""

    task: str
    seed: Annotated[Natural, Field(lt=2**32)] = Field(0, description="Source of all randomness of the run.")
    output: Text = Field(description="Folder for everything that the run writes.")
    model: SourceConfig
    data: Section
    threat: ThreatConfig = Field(description="What the adversary may do.")
    attack: AttackConfig = Field(AttackConfig(), description="How hard the adversary of training tries.")
    objective: Section
    mixing: RatioConfig
    training: TrainingConfig = Field(description="The optimizer and the loop.")
    selection: ChoiceConfig
    checkpoint: CheckpointConfig = Field(CheckpointConfig(), description="What is saved on the way.")
    evaluation: Section
    baselines: Distinct[Literal["same_steps", "equal_cost"]] = Field(
        ["same_steps"],
        description="Plain fine-tunes to compare with: of as many steps, or of as many forwards and backwards.",
    )
    tracking: TrackingConfig = Field(TrackingConfig(), description="Where numbers go meanwhile.")

    def of_model(self: Run, name: str) -> Run:
        """The same for a saved model, of that path or Hub id."""
        changed = {"name": name} | ({"lora": None} if self.model.adapts else {})
        return self.model_copy(update={"model": self.model.model_copy(update=changed)})

    def measuring(self: Run, name: str, output: str) -> Run:
        """The same for a run that trains nothing and measures this model first."""
        return self.of_model(name).model_copy(update={"output": output})

    def check_look(self, attack: str | None, picture: Path) -> None:
        """Raises ConfigError where there is no attack of that name to show, or no such picture could be written.

        attack: None for the first that searches. What depends on the model is said when it is loaded.
        """
