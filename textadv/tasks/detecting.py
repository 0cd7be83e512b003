"""Classifiers as detectors: what a configuration asks for, made of the rows of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from textadv.attacks import ThreatModel
from textadv.config.classifier import ClassifierRunSection
from textadv.config.types import ConfigError
from textadv.data import DataError, Rows
from textadv.measuring.accuracy.detecting import Detector
from textadv.values.plurals import some

ONLY = "test"


def files_of(tests: Mapping[str, Sequence[int]], size: int) -> Mapping[str, Sequence[int]]:
    """The positions of each test file by name; of one file all `size` rows."""
    return tests or {ONLY: range(size)}


def detector_of(
    config: ClassifierRunSection,
    labels: Sequence[str],
    validation: Rows,
    benign: Rows | None,
    threat: ThreatModel,
    *,
    selecting: bool = False,
) -> Detector | None:
    """What the evaluation looks for; None where it looks for nothing.

    labels: the names of the classes. selecting: under the attack that chooses the checkpoint, in place of its own.

    Raises ConfigError where no class is called as the section says, and DataError where there is no benign row to
    choose a threshold on, or one of data.benign is of the positive class.
    """
    wanted = config.evaluation.detection
    if wanted is None:
        return None
    positive = wanted.positive_id(labels)
    parts: list[tuple[Rows, tuple[int, ...]]] = []
    told = []
    if wanted.on != "benign":
        rows = tuple(place for place, label in enumerate(validation.labels) if label != positive)
        parts.append((validation, rows))
        told.append(f"the {some(len(rows), 'benign row')} of data.validation")
    if wanted.on != "validation" and benign is not None:
        parts.append((benign, tuple(range(len(benign)))))
        told.append(f"the {some(len(benign), 'row')} of data.benign")
        wrong = [number for number, label in zip(benign.ids, benign.labels, strict=True) if label == positive]
        if wrong:
            raise DataError(
                f"data.benign: {some(len(wrong), 'row is', 'rows are')} of class {wanted.positive!r}, the first is "
                f"row {wrong[0]} "
                "(counted from 0). Name files without such rows."
            )
    if not any(rows for _, rows in parts):
        raise DataError(
            f"data.validation: every row is of class {wanted.positive!r}, so that no threshold can be chosen on benign "
            "rows. Name validation rows of the other class as well."
        )
    attack = wanted.attacked(threat, config.seed)
    if selecting:
        own = config.selection.attack
        attack = own.model_copy(update={"early_stop": False}).make(threat, config.seed)
    return Detector(positive, tuple(wanted.false_positives), tuple(parts), " and ".join(told), attack)


def scored_by(config: ClassifierRunSection) -> str:
    """What the score under attack is by which the checkpoint is chosen; "" for robust accuracy."""
    wanted = config.evaluation.detection
    if config.selection.metric == "accuracy" or wanted is None:
        return ""
    return f"Recall under attack at {100 * wanted.false_positives[0]:g} % false positives"


def check_names(config: ClassifierRunSection, labels: Sequence[str]) -> None:
    """Raises ConfigError where no class is called as the evaluation looks for it."""
    if config.evaluation.detection is not None:
        config.evaluation.detection.positive_id(labels)


def check_recall(config: ClassifierRunSection, labels: Sequence[int], selection: Sequence[int], positive: int) -> None:
    """Raises ConfigError where the checkpoint is chosen by recall and none of the rows that choose it is positive."""
    if config.selection.metric == "recall" and not any(labels[place] == positive for place in selection):
        raise ConfigError(
            [
                f"selection.rows: none of the {len(selection)} validation rows that choose the checkpoint is of class "
                "evaluation.detection.positive, and selection.metric is recall. Raise selection.rows."
            ]
        )
