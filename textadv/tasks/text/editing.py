"""Attacks that edit the texts of a run: tried before anything long, measured on the reported rows, shown."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from types import MappingProxyType
from typing import Any

from textadv.attacks.edits import EditAttack, EditedRow, Misclassify, Victim
from textadv.attacks.edits.passage import word_spans
from textadv.config.edit_sources import EditSources
from textadv.config.edits_evaluation import BY_NAME
from textadv.config.types import ConfigError
from textadv.data import Examples
from textadv.measuring import Finished, Measured
from textadv.measuring.accuracy.adversarial_rows import as_file
from textadv.measuring.accuracy.attacking import clean_logits
from textadv.measuring.accuracy.edited import EditPanel
from textadv.measuring.accuracy.edited_detection import DetectorEdits, with_detected_edits
from textadv.measuring.accuracy.edited_record import with_edits
from textadv.measuring.accuracy.files import with_edited_files
from textadv.measuring.sections.detection import Detection
from textadv.measuring.sections.rows import Rows
from textadv.models import LoadedModel, ModelError, tempered
from textadv.models.victim import Asked
from textadv.tasks.checks import reported_positions
from textadv.tasks.classifier import ADVERSARIAL, FINISHED, Classifier
from textadv.tasks.detecting import files_of
from textadv.tasks.protocol import Look
from textadv.tasks.text.config import RunConfig
from textadv.values.host.phases import stage
from textadv.values.randomness import seeded_sample
from textadv.values.windows import margins

EDIT_DRAW = 14
TRIED = 3
"""Texts that a trial asks for beside one for each word of the row."""
LONGEST = 50
LOOKED_AT = 1000


def victim_of(config: RunConfig, loaded: LoadedModel, labels: Sequence[str]) -> Victim:
    """The model as its texts reach it in this run. labels: names of the classes."""
    windows = config.data.reading(labels)
    return Victim(loaded.model, loaded.tokenizer, config.data.max_length, windows=windows)


@dataclass(frozen=True)
class Editing:
    """The attacks by edits of a run, by name, what they read from files, the test rows and the names of classes.

    under: the key that the attacks stand under.
    """

    attacks: Mapping[str, EditAttack]
    sources: EditSources
    test: Examples
    labels: Sequence[str]
    under: str = "evaluation.edits"

    @stage("trying the edits")
    def rehearse(self, config: RunConfig, loaded: LoadedModel) -> None:
        """Runs each attack on one row for a few queries more than the row has words, so that every search gets to its
        first edits, whatever its goal: a row that is there already would not be searched.

        Raises ConfigError where one cannot work on this model."""
        text = _tried_on(self.test.texts) if self.attacks else None
        if text is None:
            return
        victim, lines = victim_of(config, loaded, self.labels), []
        pair = None if self.test.pairs is None else ("",)
        label = int(victim.logits([Asked(text, None if pair is None else "")]).argmax())
        for key, attack in self.attacks.items():
            try:
                tried = replace(attack, goal=Misclassify(), queries=_words(text) + TRIED, labels=None)
                tried(victim, Examples((text,), pair, (label,), (0,)))
            except ModelError as error:
                lines.append(f"{self.under}.{key}: {error}")
        if lines:
            raise ConfigError(lines)

    def measured(self, task: Classifier, name: str, loaded: Any, measured: Measured) -> Measured:
        """The record with what the edits did to the reported rows, whose logits are calibrated as for the others, to
        each test file, and to what is looked for at each threshold."""
        if not self.attacks:
            return measured
        config, run = task.config, task.run
        assert isinstance(config, RunConfig)
        told = measured.section(Rows)
        temperature = 1.0 if told is None else told.temperature
        finished = Finished.of(run.output / FINISHED, loaded.model)
        for model in self.sources.models:
            model.to(run.accelerator.device)
        places = self._places(task)
        panel = {key: (attack, self.test.select(places[key])) for key, attack in self.attacks.items()}
        victim, folder = victim_of(config, loaded, self.labels), run.output / ADVERSARIAL / as_file(name)

        def say(line: str) -> None:
            run.say(f"{name}: {line}")

        with tempered(loaded.model, temperature):
            found = EditPanel(panel).run(victim, finished.under(temperature), folder, say)
        measured = with_edits(measured, panel, found)
        thresholds = measured.section(Detection)
        positive = None if thresholds is None else self.labels.index(thresholds.positive)
        if task.tests:
            files = _ids(self.test, task.tests)
            measured = with_edited_files(measured, self.attacks, files, self.labels, positive)
        if thresholds is None or positive is None:
            return measured
        every = sorted(set().union(*places.values()))
        logits = clean_logits(loaded.model, task.test, every, config.evaluation.batch_size)
        scores = zip(every, margins(logits, positive).tolist(), strict=True)
        clean = {self.test.ids[place]: score for place, score in scores}
        detector = DetectorEdits(positive, thresholds.thresholds, temperature)
        reached = detector.run(victim, panel, found, clean, finished, folder, say)
        files = _ids(self.test, files_of(task.tests, len(self.test)))
        return with_detected_edits(measured, detector, panel, reached, files, thresholds.positive)

    def _places(self, task: Classifier) -> dict[str, list[int]]:
        """The positions of the test rows that each attack gets."""
        assert isinstance(task.config, RunConfig)
        sections, seed = task.config.evaluation.edits, task.config.seed
        return {key: sampled_positions(seed, task.tested, sections[key].rows, task.tests) for key in self.attacks}


def _tried_on(texts: Sequence[str]) -> str | None:
    """A text of 3 to 50 words where there is one, of any script, else the first 50 words of the first that has one;
    None: none has."""
    worded = [text for text in texts[:LOOKED_AT] if _words(text)]
    fit = next((text for text in worded if 3 <= _words(text) <= LONGEST), None)
    if fit is not None or not worded:
        return fit
    *_, (_, end) = islice(word_spans(worded[0]), LONGEST)
    return worded[0][:end]


def _words(text: str) -> int:
    """How many words the text has; of more than LONGEST one more."""
    return len(list(islice(word_spans(text), LONGEST + 1)))


def _ids(test: Examples, files: Mapping[str, Sequence[int]]) -> dict[str, list[int]]:
    """The row ids of each file, by its name. files: positions."""
    return {name: [test.ids[place] for place in places] for name, places in files.items()}


def sampled_positions(
    seed: int, tested: Sequence[int], rows: int | None, tests: Mapping[str, Sequence[int]] = MappingProxyType({})
) -> list[int]:
    """Which of the reported positions an attack by edits gets: a seeded sample, the smaller in the larger, in order; of
    several files, `tests`, one of each."""
    reported = set(tested)
    parts = [sorted(reported.intersection(own)) for own in tests.values()] if tests else [list(tested)]
    return sorted(place for own in parts for place in seeded_sample(own, rows, seed, EDIT_DRAW))


def edited(config: RunConfig, wanted: Look) -> Iterator[str]:
    """Rows before and after the attack by edits that is asked for: one of the evaluation, or one that needs no file."""
    name, splits = str(wanted.attack), config.data.make(config.seed)
    sources = EditSources(splits.train, splits.labels)
    section = config.evaluation.edits.get(name) or BY_NAME[name].model_validate({"name": name})
    evaluation = config.evaluation.model_copy(update={"edits": {name: section}})
    attack = evaluation.edit_attacks(config.seed, sources)[name]
    yield from (f"warning: {note}" for note in sources.notes)
    loaded = config.model.make(splits.labels, config.seed)
    yield f"{wanted.model.line}\n{attack}\n"
    rows = splits.test.select(reported_positions(config, len(splits.test), splits.tests)[: wanted.rows])
    found = attack(victim_of(config, loaded, splits.labels), rows)
    for row in found.rows:
        yield f"{_shown(row, splits.labels)}\n"
    yield f"{found.summary(attack.transformation.by_word)} ({len(found)} rows shown)"


def _shown(row: EditedRow, names: Sequence[str]) -> str:
    """One row: what became of it, and its text before and after."""
    taken = "-" if row.predicted_before is None else names[row.predicted_before]
    lines = [f"row {row.id}, {names[row.label]}: {row.status.value}" + (f" ({row.reason})" if row.reason else "")]
    lines.append(f"  before ({taken}): {row.text}")
    if row.edited != row.text and row.prediction is not None:
        lines.append(f"  after  ({names[row.prediction]}): {row.edited}")
        lines.append(f"  {row.changed} of {row.words} words changed, {row.queries} queries")
    return "\n".join(lines)
