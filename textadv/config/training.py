"""The section of a configuration that describes the optimizer and the loop, and what watches and averages over it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import AttackConfig, selecting
from textadv.config.types import Count, NotNegative, Positive, Section, Share, checked

if TYPE_CHECKING:
    from textadv.training.averaging import Averaging
    from textadv.training.overfitting import Guard, Probing


class AveragingConfig(Section):
    """Averaged weights, which are measured, selected and kept in place of the raw ones that are trained on."""

    kind: Literal["ema", "swa"] = Field(
        "ema", description="ema: an exponential mean that forgets; swa: the plain mean (arXiv:1803.05407)."
    )
    decay: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.999, description="Largest weight of the mean so far in an update of ema, 0 to below 1."
    )
    start: NotNegative = Field(
        0.0, description="From when on weights are averaged: below 1 a share of the optimizer steps, else the step."
    )
    every: Count = Field(1, description="Optimizer steps between two weights that are taken into the mean.")
    refresh_batches: Count = Field(
        50, description="Batches of training rows that batch norms get their statistics from; for models that have any."
    )

    @model_validator(mode="after")
    def _rules(self) -> AveragingConfig:
        lines = []
        if self.kind == "swa" and self.decay != 0.999:
            lines.append(
                f"training.averaging.decay does not apply to training.averaging.kind: swa, got {self.decay}. Remove "
                "it, or set training.averaging.kind: ema."
            )
        if self.start > 1 and not self.start.is_integer():
            lines.append(
                f"training.averaging.start must be a share below 1 or a whole number of steps, got {self.start}."
            )
        return checked(self, lines)

    def make(self, steps: int) -> Averaging:
        """Which weights of a run of so many optimizer steps are averaged."""
        from textadv.training.averaging import Averaging

        start = self.start if self.start >= 1 else self.start * steps
        return Averaging(self.kind, self.decay, max(round(start), 1), self.every, self.refresh_batches)


class GuardConfig(Section):
    """The guard against catastrophic overfitting: a stronger attack on validation rows, every few steps."""

    every: Count = Field(
        100, description="Optimizer steps between two probes; there is one before the first step and after the last."
    )
    rows: Count = Field(128, description="Validation rows that are attacked.")
    attack: Annotated[AttackConfig, BeforeValidator(selecting)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging", early_stop=True),
        description="The probing attack; unset keys default to steps 10, select most_damaging and early_stop true.",
    )
    drop: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.2, description="Fall of robust accuracy below its best that counts, if it does not fall under attack too."
    )
    action: Literal["stop", "rollback"] = Field(
        "stop", description="End the run at the weights of the last good probe, or go on from them at half the rate."
    )
    rollbacks: Count = Field(3, description="Rollbacks after which the run is stopped.")

    def make(self, probe: Probing) -> Guard:
        """The guard. probe: measures a model on held-out rows."""
        from textadv.training.overfitting import Guard

        return Guard(self.every, probe, self.drop, self.action, self.rollbacks)


class TrainingConfig(Section):
    """The optimizer and the loop."""

    epochs: Positive | None = Field(None, description="Passes over the training rows; or set training.steps.")
    steps: Count | None = Field(None, description="Optimizer steps; or set training.epochs.")
    batch_size: Count = Field(32, description="Rows per optimizer step, over all processes.")
    micro_batch_size: Count = Field(32, description="Rows per forward; at most training.batch_size.")
    learning_rate: Positive = Field(1e-3, description="Peak learning rate of AdamW.")
    weight_decay: NotNegative = Field(0.01, description="Decoupled weight decay of AdamW.")
    warmup_ratio: Share = Field(0.06, description="Share of the optimizer steps in which the learning rate rises.")
    schedule: Literal["linear", "cosine", "constant"] = Field("linear", description="Learning rate after warm-up.")
    clip_norm: Positive | None = Field(1.0, description="Largest norm of the gradient; null: no clipping.")
    precision: Literal["no", "bf16", "fp16"] | None = Field(
        None, description="Mixed precision; no: the model's dtype; null: what accelerate launch was told, else no."
    )
    log_every: Count = Field(10, description="Optimizer steps between two log lines.")
    liveness_window: Count = Field(
        5, description="Measured adversarial steps without any gain after which the run stops with an error."
    )
    averaging: AveragingConfig | None = Field(None, description="Averaged weights; null: the weights as they are.")
    guard: GuardConfig | None = Field(None, description="Guard against catastrophic overfitting; null: none.")

    @model_validator(mode="after")
    def _rules(self) -> TrainingConfig:
        lines = []
        if self.epochs is None and self.steps is None:
            lines.append(
                "training needs exactly one of training.epochs and training.steps, got neither. "
                "Set for example training.epochs: 1."
            )
        if self.epochs is not None and self.steps is not None:
            lines.append(
                f"training needs exactly one of training.epochs and training.steps, got {self.epochs} and "
                f"{self.steps}. Set the one that you do not mean to null."
            )
        if self.micro_batch_size > self.batch_size:
            lines.append(
                f"training.micro_batch_size must be at most training.batch_size ({self.batch_size}), got "
                f"{self.micro_batch_size}. Lower it, or raise training.batch_size."
            )
        return checked(self, lines)

    def steps_per_epoch(self, rows: int) -> int:
        """Optimizer steps in one pass over the training rows; the last, smaller batch is left out."""
        return max(rows // self.batch_size, 1)

    def optimizer_steps(self, rows: int) -> int:
        """Optimizer steps of a run over so many training rows."""
        if self.steps is not None:
            return self.steps
        assert self.epochs is not None
        return max(round(self.epochs * self.steps_per_epoch(rows)), 1)


def training_problems(
    training: TrainingConfig, objective: str, replays: int, checkpoint_every: int | None
) -> list[str]:
    """What the section does not allow together with objective and checkpoint, one line each."""
    guard = training.guard
    lines = [] if training.steps is None else length_problems(training, training.steps)
    if guard is not None and objective in ("clean", "distributional"):
        lines.append(
            f"training.guard compares with the attack of training inside the ball, and objective.name: {objective} has "
            "none. Set training.guard: null."
        )
    if guard is not None and guard.action == "rollback" and guard.every % replays:
        lines.append(
            f"training.guard.every must be a multiple of objective.replays ({replays}) with training.guard.action: "
            f"rollback, got {guard.every}: a batch cannot be taken up again half-way."
        )
    if checkpoint_every is not None and checkpoint_every % replays:
        lines.append(
            f"checkpoint.every must be a multiple of objective.replays ({replays}), got {checkpoint_every}: a batch "
            "cannot be taken up again half-way."
        )
    return lines


def length_problems(training: TrainingConfig, steps: int) -> list[str]:
    """What the section does not allow in a run of so many optimizer steps, one line each."""
    guard, averaging, lines = training.guard, training.averaging, []
    run = f"training.steps ({steps})"
    if training.steps is None:
        run = f"the {steps} optimizer steps that training.epochs: {training.epochs:g} makes"
    if guard is not None and guard.every > steps:
        lines.append(
            f"training.guard.every must be at most {run}, got {guard.every}: it would only look when all is over."
        )
    if averaging is not None and averaging.start > steps:
        lines.append(
            f"training.averaging.start must be at most {run}, got {averaging.start:g}: nothing would be averaged."
        )
    return lines
