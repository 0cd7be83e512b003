"""A run on a classifier, whatever it reads: how it is trained, chosen, measured and reported."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Literal, Protocol

from safetensors.torch import load_file
from torch import nn

from textadv.attacks import Attack, ThreatModel
from textadv.attacks.edits import TextEdits
from textadv.config.classifier import ClassifierRunSection
from textadv.data import Rows
from textadv.measuring import Finished, Measured, Results, Training, calibrated, evaluate, scores
from textadv.measuring.accuracy.adversarial_rows import as_file
from textadv.measuring.accuracy.detecting import Detector, detection_scores, with_detection
from textadv.measuring.accuracy.files import with_files
from textadv.measuring.accuracy.results import classifier_results
from textadv.measuring.probing import probed
from textadv.measuring.results import Facts
from textadv.measuring.sections.exports import ExportCheck
from textadv.models import LoadedModel, LoadedVision, ModelError, device_of, freeze_unreached
from textadv.models.split_norm import Which, convert, merge, merged_state, using
from textadv.models.strangers import Reader
from textadv.objectives import Objective, hardening, memory_of
from textadv.tasks.detecting import detector_of, files_of, scored_by
from textadv.tasks.protocol import Plan, Run
from textadv.training.mixing import NO_ATTACK
from textadv.training.overfitting import Guard, Probe
from textadv.training.progress import Scores, Trained
from textadv.training.sampling import OneStream
from textadv.values.host.writing import write_tensors
from textadv.values.randomness import seeded_sample

GUARD_DRAW, THREAT_ROWS = 13, 256
FINISHED, ADVERSARIAL = "evaluated", "adversarial"


class Labelled(Protocol):
    """Splits whose classes have names, in the order of their ids."""

    @property
    def labels(self) -> tuple[str, ...]: ...


def as_measured(measured: Measured) -> Measured:
    """The record as it is."""
    return measured


def nothing_beyond(task: Classifier, name: str, loaded: Any, measured: Measured) -> Measured:
    """The record as it is."""
    return measured


def without_mining(plan: Plan) -> Plan:
    """The plan as it is."""
    return plan


@dataclass(frozen=True)
class Classifier:
    """The task of texts, of images and of words in sentences, see `Task`.

    train, validation, test: tokenised texts, or images of the model's size. selection: positions in `validation` that
    choose the checkpoint. tested: positions in `test` that are reported. load: gives the untrained model, the same
    weights each time. opened: gives the `Reader` of a loaded model for those positions. beside: gives the task for
    another model. split_norm: which of two batch norms is measured and kept where attacked rows train their own; None:
    there is one. surrogates: the models that attacks of the evaluation are transferred from, by name. told: makes of
    the record of a model what the report shows. edits: of the texts of attacked rows in training; None: none. beyond:
    adds to the record of a loaded model, by its name, what is measured beside perturbations. tests: positions in `test`
    of each file, by name, where there are several. benign: rows that a threshold of detection may be chosen on. mining:
    the plan of the hardening with hard rows mined on the way.
    """

    config: ClassifierRunSection
    run: Run
    splits: Labelled
    train: Rows
    validation: Rows
    test: Rows
    selection: tuple[int, ...]
    tested: tuple[int, ...]
    threat: ThreatModel
    hashes: Mapping[str, str]
    new_weights: tuple[str, ...]
    warnings: tuple[str, ...]
    load: Callable[[], LoadedModel | LoadedVision]
    opened: Callable[[Any, Sequence[int]], Reader]
    beside: Callable[[Classifier, str], Classifier]
    split_norm: Which | None = None
    surrogates: Mapping[str, LoadedModel | LoadedVision] = field(default_factory=dict)
    told: Callable[[Measured], Measured] = as_measured
    edits: TextEdits | None = None
    beyond: Callable[[Classifier, str, Any, Measured], Measured] = nothing_beyond
    tests: Mapping[str, Sequence[int]] = field(default_factory=dict)
    benign: Rows | None = None
    mining: Callable[[Plan], Plan] = without_mining

    def rows_text(self) -> str:
        """How many rows do what, for the screen."""
        selecting = f"{len(self.selection)} of {len(self.validation)} validation rows to choose the checkpoint"
        return f"{len(self.train)} to train on, {selecting}, {len(self.tested)} of {len(self.test)} test rows to report"

    def hardening(self, loaded: LoadedModel | LoadedVision) -> Plan:
        """With the configured objective; the checkpoint is the best by held-out robust accuracy."""
        config = self.config
        objective = config.objective.make(config.attack, self.threat, config.seed, config.mixing, self.edits)
        split = None if objective is None else self.split_norm
        score = partial(self._score, attack=config.selection.attack.make(self.threat, config.seed), split=split)
        guard = None if objective is None else guard_of(config, self.threat, self.validation, self.split_norm)
        plan = plan_of(config, self.run, self.train, loaded.model, objective, score, "robust_best", guard, split)
        if self.edits is not None and objective is not None:
            plan = replace(plan, objective=f"{plan.objective}, texts edited by {self.edits}")
        return self.mining(plan)

    def plain(self, loaded: LoadedModel | LoadedVision) -> Plan:
        """Without an attack; the checkpoint is the best by held-out clean accuracy."""
        return plan_of(self.config, self.run, self.train, loaded.model, None, self._score, "clean_best")

    def _score(self, model: nn.Module, attack: Attack | None = None, split: Which | None = None) -> Scores:
        at_once, names = self.config.evaluation.batch_size, self.splits.labels
        with using(model, split):
            if self.config.selection.metric == "recall":
                detector = self._detector(selecting=attack is not None)
                assert detector is not None
                return detection_scores(detector, model, self.validation, self.selection, self.threat, at_once)
            return scores(model, self.validation, self.selection, attack, at_once, threat=self.threat, names=names)

    def reader(self, loaded: LoadedModel | LoadedVision) -> Reader:
        """The validation rows that choose the checkpoint, as others give them to a model."""
        return self.opened(loaded, self.selection)

    def measure(self, name: str, loaded: LoadedModel | LoadedVision) -> Measured:
        """The model on the test rows, under every attack of the panel and along the curve."""
        config, seed, device, output = (
            self.config.evaluation,
            self.config.seed,
            self.run.accelerator.device,
            self.run.output,
        )
        names, model = self.splits.labels, loaded.model
        surrogates = {key: found.model.to(device) for key, found in self.surrogates.items()}
        attacks = config.panel(self.threat, seed, len(names), surrogates)
        radius = config.minimum_radius
        smallest = None if radius is None else radius.make(self.threat, seed, len(names))
        measured = evaluate(
            model.to(device),
            self.test,
            attacks,
            self.threat,
            name=name,
            positions=self.tested,
            radii=config.radii,
            curve_attack=config.curve_attack,
            calibration=self.validation if config.calibrate else None,
            batch_size=config.batch_size,
            say=self.run.say,
            finished=Finished.of(output / FINISHED, model),
            alarm=None if config.masking is None else config.masking.make(seed),
            keep_adversarial=output / ADVERSARIAL / as_file(name) if config.keep_adversarial else None,
            minimum=smallest,
            names=names,
        )
        return self.beyond(self, name, loaded, self._by_file(self.told(measured), model))

    def _by_file(self, measured: Measured, model: nn.Module) -> Measured:
        """The record with what was found of each test file, and of the class that is looked for."""
        detector, batch_size = self._detector(), self.config.evaluation.batch_size
        if self.tests:
            ids = {name: [self.test.ids[place] for place in places] for name, places in self.tests.items()}
            positive = None if detector is None else detector.positive
            measured = with_files(measured, ids, self.splits.labels, positive)
        if detector is None:
            return measured
        return with_detection(
            measured,
            detector,
            model,
            self.test,
            files_of(self.tests, len(self.test)),
            self.tested,
            self.threat,
            positive=self.splits.labels[detector.positive],
            batch_size=batch_size,
            finished=Finished.of(self.run.output / FINISHED, model),
        )

    def _detector(self, selecting: bool | None = None) -> Detector | None:
        """What is looked for. selecting: to choose a checkpoint, under the attack for that or, False, under none."""
        args = (self.config, self.splits.labels, self.validation, self.benign, self.threat)
        found = detector_of(*args, selecting=bool(selecting))
        return replace(found, attack=None) if found is not None and selecting is False else found

    def results(
        self, models: Sequence[Measured], trainings: Sequence[Training], facts: Facts, exports: Sequence[ExportCheck]
    ) -> Results:
        """See `classifier_results`."""
        return classifier_results(models, trainings, facts, exports)

    def compared(self, names: Sequence[str]) -> list[Classifier]:
        """A task for each model; raises ModelError where one has no trained head."""
        tasks = [self, *(self.beside(self, name) for name in names[1:])]
        for found in tasks:
            require_trained(found.new_weights, found.splits.labels)
        return tasks

    def explain(self, changed: Sequence[str]) -> str:
        """Nothing: rows and weights are hashed as they are."""
        return ""


def require_trained(new_weights: Sequence[str], labels: Sequence[str]) -> None:
    """Raises ModelError where the model's head is new, so that it cannot classify yet."""
    if new_weights:
        raise ModelError(
            f"--model has no trained head for these {len(labels)} classes: weights {new_weights[0]} ... are new. "
            "Name a model that was trained for them."
        )


def plan_of(
    config: ClassifierRunSection,
    run: Run,
    train: Rows,
    model: nn.Module,
    objective: Objective | None,
    score: Callable[[nn.Module], Scores],
    select: Literal["robust_best", "clean_best"],
    guard: Guard | None = None,
    split: Which | None = None,
) -> Plan:
    """How a classifier is trained on these rows.

    objective: on attacked rows; None: no row is attacked. split: the model is given a second batch norm beside each,
    for attacked rows, and this one of the two is kept in the end.
    """
    training, replays = config.training, config.objective.batch_stays
    # Before batch norms are split: clean rows do not reach those of attacked rows.
    frozen = _reduced(run, model, train)
    if split is not None:
        convert(model)
    mixing, repeat = NO_ATTACK, 1
    if objective is not None:
        mixing, repeat = config.mixing.make(config.seed), replays
    inside: Callable[[], AbstractContextManager[object]] = nullcontext
    if objective is not None:
        inside = partial(config.objective.trained_with, model, train, config.seed)
    plan = Plan(
        objective="clean" if objective is None else config.objective.name,
        steps=training.optimizer_steps(len(train)),
        period=training.steps_per_epoch(len(train)),
        whole_every=replays,
        sampler=OneStream(train, mixing, training.batch_size, config.seed, repeat),
        objectives=hardening(objective),
        score=score,
        select=select,
        rows=lambda steps: steps * training.batch_size,
        overfits=True,
        scored=scored_by(config),
        guard=guard,
        memory=memory_of(objective),
        inside=inside,
        notes=frozen,
    )
    return plan if split is None else replace(plan, settled=partial(_merged, run, model, split))


def _reduced(run: Run, model: nn.Module, train: Rows) -> tuple[str, ...]:
    """Leaves weights without a gradient out of what several processes add up; a sentence about them."""
    if run.accelerator.num_processes == 1:
        return ()
    names = freeze_unreached(model, train.batch([0]).to(device_of(model)))
    return (f"not trained, since no output depends on them: {', '.join(names)}",) if names else ()


def _merged(run: Run, model: nn.Module, which: Which, trained: Trained) -> Trained:
    """The model with one batch norm of each two, and so the kept weights, in a folder beside those to resume from."""
    weights = {kind: path.parent / "merged" / path.name for kind, path in trained.weights.items()}
    if run.accelerator.is_main_process:
        for kind, path in weights.items():
            write_tensors(path, merged_state(model, load_file(trained.weights[kind]), which))
    run.accelerator.wait_for_everyone()
    merge(model, which)
    return replace(trained, weights=weights)


def guard_of(config: ClassifierRunSection, threat: ThreatModel, validation: Rows, split: Which | None) -> Guard | None:
    """The configured guard, looking at validation rows. split: which of two batch norms it looks through."""
    wanted = config.training.guard
    if wanted is None:
        return None
    training = config.objective.adversary(config.attack, threat, config.seed)
    strong = wanted.attack.make(threat, config.seed)
    positions = seeded_sample(range(len(validation)), wanted.rows, config.seed, GUARD_DRAW)
    attacked = partial(probed, rows=validation, positions=positions, training=training, strong=strong)
    at_once = config.evaluation.batch_size

    def probe(model: nn.Module, *, step: int, radius_scale: float) -> Probe:
        with using(model, split):
            return attacked(model, batch_size=at_once, threat=threat, step=step, radius_scale=radius_scale)

    return wanted.make(probe)


def calibrating(
    config: ClassifierRunSection, model: nn.Module, validation: Rows, labels: Sequence[str]
) -> tuple[float, tuple[str, ...]]:
    """The temperature that the evaluation would fit, and what cannot be right about it and about the answers."""
    if not config.evaluation.calibrate:
        return 1.0, ()
    fitted = calibrated(model, validation, config.evaluation.batch_size, labels)
    return fitted.temperature, tuple(f"note: {doubt}\n" for doubt in fitted.doubts)


def shown_attack(
    config: ClassifierRunSection,
    name: str | None,
    threat: ThreatModel,
    classes: int,
    surrogates: Mapping[str, nn.Module],
) -> Attack:
    """The attack of the evaluation of that name; the first for None. See `panel` of the attacks."""
    name = name or next(iter(config.evaluation.attacks))
    return config.evaluation.only(name).panel(threat, config.seed, classes, surrogates)[name]
