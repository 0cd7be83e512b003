"""The whole of a run on a classifier, as far as those of texts and of images agree."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import BeforeValidator, Field

from textadv.config.adversary import AttackConfig, selecting
from textadv.config.evaluation import EvaluationConfig
from textadv.config.mixing import MixingConfig
from textadv.config.objective import AdversarialConfig, ObjectiveConfig
from textadv.config.run import ChoiceConfig, RunSection
from textadv.config.training import training_problems
from textadv.config.types import ConfigError, Count, Section, Text, Texts


class NamedDataConfig(Section):
    """A data set by its name, on the Hub or in files, and its splits."""

    name: Text = Field(description="A Hub id or a data set's folder, or files for local files.")
    config: Text | None = Field(None, description="Configuration of a Hub data set, such as sst2 of glue.")
    train: Texts | None = Field(None, description="Training split on the Hub, or file path(s) when data.name is files.")
    validation: Texts | None = Field(
        None, description="Validation split or file path(s); null: data.validation_fraction of train is held out."
    )
    test: Texts | None = Field(None, description="Test split or file path(s).")
    validation_fraction: Annotated[float, Field(gt=0, lt=1)] = Field(
        0.1, description="Share of the training rows held out when there is no validation split."
    )

    def no_train(self) -> list[str]:
        """What is said of files without any to train on, a line or none."""
        if self.name != "files" or self.train is not None:
            return []
        return [
            "data.train is missing: data.name is files, so name the training file(s). To measure a model of which you "
            "have none, name rows like those that it meets, apart from data.test: recipes/evaluate.py trains on "
            "nothing, and draws from them what a threat's radius and padding are made of. Name data.validation too: "
            "else a share of them chooses the thresholds."
        ]


class SelectionConfig(ChoiceConfig):
    """How the best checkpoint is found, on validation rows only."""

    rows: Count = Field(256, description="Validation rows that are attacked.")
    metric: Literal["accuracy", "recall"] = Field(
        "accuracy",
        description="What is highest at the best checkpoint, under attack: accuracy, or recall of "
        "evaluation.detection.positive at the first of its false_positives, thresholds chosen anew each time.",
    )
    attack: Annotated[AttackConfig, BeforeValidator(selecting)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging", early_stop=True),
        description="The fixed attack; unset keys default to steps 10, select most_damaging and early_stop true.",
    )


class ClassifierRunSection(RunSection):
    """A whole run on a classifier: data, model, adversary, training and evaluation."""

    objective: ObjectiveConfig = Field(AdversarialConfig(), description="The loss that training lowers.")
    mixing: MixingConfig = Field(MixingConfig(), description="How many rows are attacked.")
    selection: SelectionConfig = Field(SelectionConfig(), description="How the best checkpoint is found.")
    evaluation: EvaluationConfig = Field(EvaluationConfig(), description="What is measured on test rows.")

    def check_look(self, attack: str | None, picture: Path) -> None:
        """Raises ConfigError where the evaluation has no attack of that name."""
        attacks = self.evaluation.attacks
        if attack is not None and attack not in attacks:
            raise ConfigError([f"--attack {attack} is not among evaluation.attacks: {', '.join(attacks)}."])

    def problems(self) -> list[str]:
        """What the sections of a classifier's run do not allow together, one line each."""
        objective, training = self.objective, self.training
        lines = objective.problems(self.attack, self.threat, self.mixing)
        lines += objective.precision_problems(training.precision)
        if self.selection.metric == "recall" and self.evaluation.detection is None:
            lines.append(
                "selection.metric: recall is that of evaluation.detection, which is not set. Set "
                "evaluation.detection.positive to the name of a class, or selection.metric: accuracy."
            )
        return lines + training_problems(training, objective.name, objective.batch_stays, self.checkpoint.every)
