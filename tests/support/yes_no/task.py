"""The made-up task made ready: only what `textadv.tasks.protocol` asks for, and no other task's code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from tests.support.yes_no.config import YesNoConfig
from textadv.attacks import ThreatModel
from textadv.data import EncodedRows, Splits, encode, load_splits
from textadv.measuring import Measured, Results, Training
from textadv.measuring.measured import share
from textadv.measuring.results import Facts, Verdict
from textadv.measuring.sections.exports import ExportCheck, Exports
from textadv.measuring.statistics import wilson
from textadv.models import LoadedModel, evaluating, forward, load_classifier
from textadv.models.strangers import Texts
from textadv.objectives import Adversarial, hardening
from textadv.tasks.protocol import Plan, Run
from textadv.training.mixing import NO_ATTACK
from textadv.training.progress import Scores
from textadv.training.sampling import OneStream
from textadv.values.descriptions import INITIAL, model_hashes

LENGTH, ROWS = 32, range(12)


def model_of(config: YesNoConfig, splits: Splits) -> LoadedModel:
    """The tiny encoder, the same weights each time."""
    return load_classifier(config.model.name, splits.labels, seed=config.seed)


def right(model: nn.Module, rows: EncodedRows) -> list[float]:
    """Of the first rows, which are told right."""
    batch = rows.batch(ROWS)
    with evaluating(model):
        return (forward(model, batch).argmax(dim=1) == batch.labels).float().tolist()


@dataclass(frozen=True)
class YesNo:
    """See `textadv.tasks.protocol.Task`."""

    config: YesNoConfig
    run: Run
    splits: Splits
    train: EncodedRows
    validation: EncodedRows
    test: EncodedRows
    threat: ThreatModel
    hashes: Mapping[str, str]
    warnings: tuple[str, ...] = ("a made-up task",)
    new_weights: tuple[str, ...] = ()

    def rows_text(self) -> str:
        return f"{len(self.train)} to train on"

    def load(self) -> LoadedModel:
        return model_of(self.config, self.splits)

    def _plan(self, attacked: bool) -> Plan:
        training = self.config.training
        size, mixing = training.batch_size, self.config.mixing.make(self.config.seed) if attacked else NO_ATTACK
        objective = Adversarial(self.config.attack.make(self.threat, self.config.seed)) if attacked else None

        def score(model: nn.Module) -> Scores:
            share = sum(right(model, self.validation)) / len(ROWS)
            return Scores(share, share if attacked else None, collapsed=False)

        return Plan(
            objective="adversarial" if attacked else "clean",
            steps=training.optimizer_steps(len(self.train)),
            period=3,
            sampler=OneStream(self.train, mixing, size, self.config.seed),
            objectives=hardening(objective),
            score=score,
            select="robust_best" if attacked else "clean_best",
            rows=lambda steps: steps * size,
        )

    def hardening(self, loaded: LoadedModel) -> Plan:
        return self._plan(True)

    def plain(self, loaded: LoadedModel) -> Plan:
        return self._plan(False)

    def reader(self, loaded: LoadedModel) -> Texts:
        return Texts(loaded, self.splits.validation.select(ROWS), LENGTH, 4, False)

    def measure(self, name: str, loaded: LoadedModel) -> Measured:
        rows = right(loaded.model.to(self.run.accelerator.device), self.test)
        return Measured(name, (share("Answers", "right", wilson(int(sum(rows)), len(rows)), rows, lower=False),))

    def results(
        self, models: Sequence[Measured], trainings: Sequence[Training], facts: Facts, exports: Sequence[ExportCheck]
    ) -> Results:
        return Results(
            title="Yes or no",
            about="reviews",
            caption="",
            footnote="",
            verdict=Verdict("uncompared", "Nothing is compared", ("It is made up.",)),
            against=(),
            evaluations=tuple(models),
            trainings=tuple(trainings),
            sections=(Exports(tuple(exports)),) if exports else (),
            **vars(facts),
        )

    def compared(self, names: Sequence[str]) -> list[YesNo]:
        return [ready(self.config.of_model(name), self.run) for name in names]

    def explain(self, changed: Sequence[str]) -> str:
        return ""


def ready(config: YesNoConfig, run: Run) -> YesNo:
    """See `textadv.tasks.registry.ready`."""
    splits = load_splits(config.data.name, seed=config.seed, train_rows=48, validation_rows=16, test_rows=16)
    loaded = model_of(config, splits)
    run.require_room(loaded.model)
    parts = [encode(part, loaded.tokenizer, LENGTH) for part in (splits.train, splits.validation, splits.test)]
    threat = config.threat.make().resolved(loaded.model)
    task = YesNo(config, run, splits, parts[0], parts[1], parts[2], threat, model_hashes(INITIAL, loaded.model))
    return replace(task, warnings=(*run.notes, *task.warnings))
