"""What a training run is told, what it remembers between steps, and what it ends with."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

from accelerate import Accelerator

from textadv.models import require_model
from textadv.training.sampling import Sampler
from textadv.values.kinds import require_kind


class Scores(NamedTuple):
    """A model on held-out rows: clean accuracy, robust accuracy (None where it was not attacked), whether it is no
    better than a constant answer, what cannot be right about its answers, in a sentence, and what `clean` stands for
    where it is no accuracy.

    With mixed precision it is measured in it, as training runs; what is measured after training is not.
    """

    clean: float
    robust: float | None
    collapsed: bool
    doubt: str | None = None
    meaning: str = ""


@dataclass(frozen=True)
class Settings:
    """How to train.

    steps: optimizer steps; the sampler says how many rows each has. micro_batch_size: rows per forward.
    learning_rate: peak. clip_norm: bound on the gradient's L2 norm, None for none. evaluate_every, checkpoint_every,
    log_every: in steps; checkpoint_every None saves none. select: which kept checkpoint the run ends with.
    whole_every: after multiples of so many steps a run can be resumed; others lie within a batch that stays.
    """

    steps: int
    micro_batch_size: int = 32
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    warmup_ratio: float = 0.06
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    clip_norm: float | None = 1.0
    log_every: int = 10
    evaluate_every: int = 200
    checkpoint_every: int | None = None
    keep_last: int = 2
    liveness_window: int = 5
    select: Literal["robust_best", "clean_best", "last"] = "robust_best"
    seed: int = 0
    whole_every: int = 1

    def __post_init__(self) -> None:
        counts = {
            "steps": self.steps,
            "micro_batch_size": self.micro_batch_size,
            "log_every": self.log_every,
            "evaluate_every": self.evaluate_every,
            "checkpoint_every": self.checkpoint_every,
            "keep_last": self.keep_last,
            "liveness_window": self.liveness_window,
            "whole_every": self.whole_every,
        }
        for name, value in counts.items():
            if value is not None and value < 1:
                raise ValueError(f"Settings.{name} must be at least 1, got {value}.")


def require_training(accelerator: object, model: object, sampler: object, objectives: object, settings: object) -> None:
    """Raises TypeError where one of these is of another kind than a `Trainer` takes."""
    require_kind("accelerator", accelerator, Accelerator, "an Accelerator", "Example: accelerate.Accelerator().")
    require_model(model)
    remedy = "Rows of one data set: OneStream(rows, Mixing(), batch_size=32)."
    require_kind("sampler", sampler, Sampler, "a sampler", remedy)
    remedy = "An objective on attacked rows is hardening(objective): hardening(Adversarial(attack))."
    require_kind("objectives", objectives, Mapping, "a mapping of roles to objectives", remedy)
    require_kind("settings", settings, Settings, "Settings", "Example: Settings(steps=800).")


@dataclass
class Progress:
    """What training has to remember between steps, saved with every checkpoint.

    probes: what the guard found, as [step, clean, trained, robust, radius]. ended_with: the step at whose weights the
    guard ended the run, None where it did not. doubt: what could not be right at the last evaluation. rounds: of
    mining, each as `Round.record`.
    """

    step: int = 0
    best: dict[str, dict[str, float]] = field(default_factory=dict)
    history: list[dict[str, float]] = field(default_factory=list)
    pulses: list[list[float]] = field(default_factory=list)
    forwards: int = 0
    backwards: int = 0
    adversarial_rows: int = 0
    seconds: float = 0.0
    notes: list[str] = field(default_factory=list)
    probes: list[list[float]] = field(default_factory=list)
    rollbacks: int = 0
    ended_with: int | None = None
    doubt: str | None = None
    rounds: list[dict[str, Any]] = field(default_factory=list)


def _number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _measures(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(key, str) and _number(part) for key, part in value.items())


def _round(value: Any) -> bool:
    names = {"step", "tried", "added", "pool"}
    return isinstance(value, dict) and names <= value.keys() and isinstance(value["tried"], list)


def _each(form: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(form, value))


_COUNTS = ("step", "forwards", "backwards", "adversarial_rows", "rollbacks", "processes", "log_bytes")
_FORMS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_COUNTS, _count),
    "best": lambda value: isinstance(value, dict) and all(map(_measures, value.values())),
    "history": _each(_measures),
    "pulses": _each(_each(_number)),
    "probes": _each(_each(_number)),
    "seconds": _number,
    "notes": _each(lambda value: isinstance(value, str)),
    "ended_with": lambda value: value is None or _count(value),
    "scaler": lambda value: isinstance(value, dict),
    "doubt": lambda value: value is None or isinstance(value, str),
    "rounds": _each(_round),
}


def progress_of(values: Mapping[str, Any]) -> Progress:
    """The progress that JSON values tell of; names that it does not have are passed over.

    Raises ValueError, naming the first value that is of another kind than was written.
    """
    for name, form in _FORMS.items():
        if name in values and not form(values[name]):
            raise ValueError(f"{name} cannot be {values[name]!r:.60}")
    return Progress(**{name: values[name] for name in Progress.__dataclass_fields__ if name in values})


@dataclass(frozen=True)
class Trained:
    """The end of a training run: its progress, the kept checkpoint the model now has, and where each lies."""

    progress: Progress
    selected: str
    selected_step: int
    weights: dict[str, Path]

    @property
    def overfitting(self) -> float | None:
        """Best minus last held-out robust accuracy; None where it was not measured or nothing was eligible."""
        best, last = self.progress.best.get("robust_best"), self.progress.best["last"].get("robust")
        return None if best is None or last is None else best["robust"] - last
