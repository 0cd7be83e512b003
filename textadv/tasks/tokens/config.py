"""The schema of a run that hardens a token classifier: what differs from a text classifier's, key by key."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import Against, AttackConfig, with_defaults
from textadv.config.attacks import SPREAD, TRAINABLE, ApgdCeConfig
from textadv.config.classifier import ClassifierRunSection, NamedDataConfig, SelectionConfig
from textadv.config.evaluation import EvaluationConfig, MaskingConfig
from textadv.config.objective import AdversarialConfig, CleanConfig, FreelbConfig, TradesConfig
from textadv.config.training import GuardConfig, TrainingConfig
from textadv.config.types import AttackKey, Count, Distinct, Section, Text, checked
from textadv.tasks.text.config import ModelConfig
from textadv.values.host.phases import stage

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import nn

    from textadv.models import LoadedModel
    from textadv.tasks.tokens.tagged import TaggedSplits

WORST = {"select": "most_damaging"}
OF_SOURCES = ("config", "tokens", "tags", "labels", "scheme")


class TokenModelConfig(ModelConfig):
    """The token classifier that is hardened."""

    @stage("loading the model")
    def make(self, labels: tuple[str, ...], seed: int) -> LoadedModel:
        """The classifier with its tokenizer, and its adapters where the section asks for them."""
        from textadv.models.heads import OF_TOKENS

        return self.headed(labels, seed, OF_TOKENS)


class TokenDataConfig(NamedDataConfig):
    """The sentences, their tags and splits. Selection uses validation rows only, reports use test rows only."""

    name: Text = Field(
        description="builtin:places, a Hub id or a data set's folder, or files for local files: CoNLL, or rows with "
        "lists (json, jsonl, parquet)."
    )
    tokens: Text = Field("tokens", description="Column with the list of a row's words.")
    tags: Text = Field(
        "tags", description="Column with the list of their tags, names or numbers; -100: a word without."
    )
    labels: Distinct[Text] | None = Field(None, description="Tags in order of class id.")
    scheme: Literal["bio", "iob1", "bioes", "bilou"] | None = Field(
        None, description="How tags spell spans, for span F1; null: as it is found in train."
    )
    surrogates: Literal["error", "replace"] = Field(
        "error", description="Half characters (lone surrogates, as of a cut emoji): an error, or U+FFFD in their place."
    )
    max_length: Count = Field(128, description="Longest row in tokens; words behind it are cut off.")
    train_rows: Count | None = Field(None, description="Seeded subset of the training rows; null: all.")
    validation_rows: Count | None = Field(None, description="Seeded subset of the validation rows; null: all.")
    test_rows: Count | None = Field(None, description="Seeded subset of the test rows; null: all.")

    @model_validator(mode="after")
    def _rules(self) -> TokenDataConfig:
        lines = self.no_train()
        if self.tokens == self.tags:
            lines.append(f"data.tokens and data.tags must be different columns, got {self.tokens}.")
        if self.labels is not None and len(self.labels) < 2:
            lines.append(f"data.labels must name at least 2 tags, got {self.labels}.")
        given = self.model_dump()
        own = [key for key in OF_SOURCES if given[key] != type(self).model_fields[key].default]
        if self.name.startswith("builtin:") and own:
            told = ", ".join(f"data.{key}" for key in own)
            lines.append(f"{told} cannot be set for data.name: {self.name}, which has its own tags. Remove it.")
        return checked(self, lines)

    @stage("reading the data")
    def make(self, seed: int) -> TaggedSplits:
        """The data set, mapped, checked and split."""
        from textadv.tasks.tokens.data import load_tagged

        return load_tagged(seed=seed, **self.model_dump(exclude={"max_length"}))


def of_words(data: object) -> object:
    """An attack that measures keeps the worst point and works on every word to the end, unless the file says else."""
    if not isinstance(data, dict):
        return data
    named = {"name": "pgd", **data}
    return with_defaults(named, WORST | SPREAD) if named["name"] in TRAINABLE else named


def selecting_words(data: object) -> object:
    """The same with 10 steps where the file gives none."""
    return with_defaults(data, WORST | {"steps": 10})


def _of_one_word(attacks: Mapping[str, Section]) -> list[str]:
    """What is wrong with attacks, by their keys: none may leave a row at its first wrong word, or raise one alone."""
    lines = []
    for key, attack in attacks.items():
        if isinstance(attack, AttackConfig) and attack.early_stop:
            lines.append(
                f"{key}.early_stop: true would leave a row at its first wrong word, and with task: tokens every word "
                "counts. Set it to false."
            )
        if isinstance(attack, AttackConfig) and attack.goal == "margin":
            lines.append(
                f"{key}.goal: margin would raise that of one word of each row, and with task: tokens every word "
                "counts. Set it to cross_entropy."
            )
    return lines


class TokenGuardConfig(GuardConfig):
    """The guard against catastrophic overfitting, by words of validation rows."""

    attack: Annotated[AttackConfig, BeforeValidator(selecting_words)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging"),
        description="The probing attack; unset keys default to steps 10 and select most_damaging.",
    )


class TokenTrainingConfig(TrainingConfig):
    """The optimizer and the loop."""

    guard: TokenGuardConfig | None = Field(None, description="Guard against catastrophic overfitting; null: none.")


class TokenSelectionConfig(SelectionConfig):
    """How the best checkpoint is found, by words of validation rows."""

    attack: Annotated[AttackConfig, BeforeValidator(selecting_words)] = Field(
        AttackConfig(name="pgd", steps=10, select="most_damaging"),
        description="The fixed attack; unset keys default to steps 10 and select most_damaging.",
    )


WordAttackConfig = Annotated[
    Annotated[AttackConfig | ApgdCeConfig, Field(discriminator="name")], BeforeValidator(of_words)
]


class TokenEvaluationConfig(EvaluationConfig):
    """What is measured on test rows, before and after training."""

    attacks: Annotated[dict[AttackKey, WordAttackConfig], Field(min_length=1)] = Field(  # type: ignore[assignment]
        {
            "pgd20": AttackConfig(name="pgd", steps=20, restarts=3, select="most_damaging", starts="spread"),
            "apgd": ApgdCeConfig(steps=50),
        },
        description="Attacks by names of your choice; unset keys of pgd and its kin default to select most_damaging, "
        "starts spread.",
    )

    def against(self, classes: int | None, surrogates: Mapping[str, nn.Module] | None) -> Against:
        """No search leaves a row at its first wrong word."""
        return replace(super().against(classes, surrogates), early_stop=False)


class TokenRunConfig(ClassifierRunSection):
    """A whole run: data, model, adversary, training and evaluation."""

    task: Literal["tokens"] = Field(description="tokens: a token classifier is hardened.")
    model: TokenModelConfig = Field(description="The token classifier.")
    data: TokenDataConfig = Field(description="The data set.")
    objective: Annotated[CleanConfig | AdversarialConfig | TradesConfig | FreelbConfig, Field(discriminator="name")] = (
        Field(AdversarialConfig(), description="The loss that training lowers.")
    )
    training: TokenTrainingConfig = Field(description="The optimizer and the loop.")
    selection: TokenSelectionConfig = Field(TokenSelectionConfig(), description="How the best checkpoint is found.")
    evaluation: TokenEvaluationConfig = Field(TokenEvaluationConfig(), description="What is measured on test rows.")

    @model_validator(mode="after")
    def _rules(self) -> TokenRunConfig:
        lines = self.problems()
        if self.threat.space == "pixels":
            lines.append("threat.space: pixels needs images and data holds sentences. Set threat.space: embeddings.")
        lines += self.model.unperturbable(self.threat.space)
        return checked(self, [*lines, *self._of_rows(), *_of_one_word(self._attacks())])

    def _of_rows(self) -> list[str]:
        """Keys that are of rows of one class, or of attacks on them, one line each."""
        lines, masking = [], self.evaluation.masking
        if self.mixing.adaptive_radius is not None:
            lines.append(
                "mixing.adaptive_radius goes by how far a row is from being wrong, and with task: tokens a row has "
                "many words, of which one mostly is. Set it to null."
            )
        if self.evaluation.detection is not None or self.selection.metric != "accuracy":
            lines.append(
                "evaluation.detection and selection.metric: recall are of rows of one class, and with task: tokens a "
                "row has many words. Leave them out."
            )
        if self.evaluation.minimum_radius is not None:
            lines.append(
                "evaluation.minimum_radius is of rows of one class, and with task: tokens a row has many words. Set it "
                "to null; evaluation.radii draws a curve."
            )
        if masking is not None and masking.queries != MaskingConfig().queries:
            lines.append(
                f"evaluation.masking.queries, got {masking.queries}, is of a probe beside autoattack, and with task: "
                "tokens there is none. Remove it."
            )
        return lines

    def _attacks(self) -> dict[str, Section]:
        """Every attack of the run, by its key."""
        named = {"attack": self.attack, "selection.attack": self.selection.attack}
        if self.training.guard is not None:
            named["training.guard.attack"] = self.training.guard.attack
        return named | {f"evaluation.attacks.{key}": attack for key, attack in self.evaluation.attacks.items()}


SCHEMA = TokenRunConfig
