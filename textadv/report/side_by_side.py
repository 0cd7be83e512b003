"""Finished runs side by side: each one's best and last checkpoint under one panel, and what its training cost."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from textadv.measuring.measured import Measured
from textadv.measuring.results import Results, Training
from textadv.measuring.wording import MISSING, value_text
from textadv.report.markdown import escaped

HARDENED = "hardened"
GROUP = "accuracy"
KINDS = {"best": "robust_best", "last": "last"}


@dataclass(frozen=True)
class FinishedRun:
    """A run by the name of its folder: what training cost, and its checkpoints that were measured, by kind."""

    label: str
    training: Training
    measured: dict[str, Measured]


def finished_run(folder: Path, results: Results, panel: Results, label: str | None = None) -> FinishedRun:
    """What `folder` trained, as its own results say, and those models of `panel` that lie in its adapters/.

    label: what the table calls the run; by default its folder's name.

    Raises ValueError where the folder hardened nothing, or none of its checkpoints were measured.
    """
    trained = [training for training in results.trainings if training.name == HARDENED]
    if not trained:
        raise ValueError(f"{folder} holds no hardened model. Name output folders of recipes/adv_finetune.py.")
    places = {kind: (folder / "adapters" / name).resolve() for kind, name in KINDS.items()}
    # A model that was given no name is called by its path.
    by_place = {Path(panel.models.get(found.name, found.name)).resolve(): found for found in panel.evaluations}
    measured = {kind: by_place[place] for kind, place in places.items() if place in by_place}
    if not measured:
        raise ValueError(
            f"None of the checkpoints of {folder} was measured. Run recipes/evaluate.py with --model {places['best']} "
            f"--model {places['last']}."
        )
    return FinishedRun(label or folder.name, trained[0], measured)


def side_by_side(runs: Sequence[FinishedRun]) -> str:
    """A Markdown table with a row per checkpoint: accuracy in percent with 95 % intervals, passes in millions of rows.

    Training costs stand in a run's first row alone. An attack that a checkpoint was not measured by shows "-".
    """
    measures = [m for run in runs for found in run.measured.values() for m in found.measures]
    named = {m.id: m.name for m in measures if m.group == GROUP and m.unit == "share"}
    header = ["run", "checkpoint", *map(escaped, named.values()), "forwards", "backwards", "seconds"]
    lines = [_line(header), _line("---" for _ in header)]
    for run in runs:
        costs = _costs(run.training)
        for kind, found in run.measured.items():
            step = run.training.selected_step if kind == "best" else run.training.steps
            cells = [value_text(m) if (m := found.measure(id)) else MISSING for id in named]
            lines.append(_line([escaped(run.label), f"{kind}, step {step}", *cells, *costs]))
            costs = [""] * len(costs)
    return "\n".join(lines) + "\n"


def _costs(training: Training) -> list[str]:
    passes = (f"{rows / 1e6:.2f} M" for rows in (training.forwards, training.backwards))
    return [*passes, f"{training.seconds:,.0f}"]


def _line(cells: Iterable[str]) -> str:
    return "| " + " | ".join(cells) + " |"
