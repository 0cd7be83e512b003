"""What a far longer search finds beyond the panel of a configuration, and whether the masking alarm would have told.

    python scripts/bench_panel.py CONFIG.yaml --model FOLDER [--steps 100] [--restarts 5] [--without apgd]
        [key=value ...]

The panel (`evaluation.attacks`) runs on the test rows of the configuration, each attack on all rows that are right
without one; then APGD with so many steps and restarts on the rows that the panel leaves right. Prints a Markdown table
of the rows that each leaves, and the flags of the masking alarm. `--without` measures the panel a second time without
that attack: the alarm is to ring there where the attack was needed. Two processes cannot share the rows.
"""

from __future__ import annotations

import tempfile
from argparse import Namespace
from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from torch import nn

from textadv import build_attacks
from textadv.config_attacks import ApgdCeConfig
from textadv.config_file import load_config
from textadv.config_images import ImageRunConfig
from textadv.config_tasks import ClassifierRunConfig
from textadv.errors import one_message
from textadv.evaluation import Evaluation
from textadv.evaluation.attacking import attack_rows
from textadv.phases import on_screen, telling
from textadv.printable import tell
from textadv.screen import parser as reader
from textadv.stages import evaluate_model
from textadv.task import Task, prepare
from textadv.task_images import prepare_images

LONGER = "longer"


def prepared(config: ClassifierRunConfig, model: str, output: str) -> Task:
    """The run on the model, with nothing measured but the panel."""
    own = config.model.model_copy(update={"name": model, "lora": None})
    measured = config.evaluation.model_copy(update={"radii": [], "curve_attack": None, "minimum_radius": None})
    config = config.model_copy(update={"model": own, "evaluation": measured, "output": output})
    if isinstance(config, ImageRunConfig):
        return prepare_images(config, training=False)
    return prepare(config, training=False)


def without(task: Task, name: str) -> Task:
    """The run with an attack of the panel less."""
    attacks = {key: attack for key, attack in task.config.evaluation.attacks.items() if key != name}
    measured = task.config.evaluation.model_copy(update={"attacks": attacks})
    return replace(task, config=task.config.model_copy(update={"evaluation": measured}))


def left(evaluation: Evaluation) -> set[int]:
    """The ids of the rows that are right without an attack and under each of the panel."""
    return {
        row.id
        for row in evaluation.rows_detail
        if row.clean_prediction == row.label and all(found == row.label for found in row.predictions.values())
    }


def beyond(task: Task, model: nn.Module, ids: Collection[int], steps: int, restarts: int) -> int:
    """How many of these rows the longer search breaks."""
    rows, wanted = task.test, ApgdCeConfig(name="apgd_ce", steps=steps, restarts=restarts)
    (attack,) = build_attacks.panel({LONGER: wanted}, task.threat, task.config.seed).values()
    positions = [position for position in task.tested if rows.ids[position] in ids]
    at_once = task.config.evaluation.batch_size
    hits = attack_rows(model, rows, positions, attack, at_once, threat=task.threat, name=LONGER)
    return sum(hit.prediction != rows.labels[hit.position] for hit in hits)


def table(evaluation: Evaluation, more: int, called: str) -> str:
    """What each attack leaves, what the panel leaves, and what the longer search leaves of that."""
    alive, share = len(left(evaluation)), 100 * more / evaluation.rows
    lines = [
        f"| attack | of {evaluation.rows} rows left right |",
        "| --- | --- |",
        f"| none | {evaluation.clean.count} of {evaluation.rows} |",
    ]
    lines += [f"| {attack.name} | {attack.robust.count} |" for attack in evaluation.attacks]
    lines.append(f"| the panel | {alive} |")
    lines.append(f"| and then {called} | {alive - more} ({more} beyond the panel, {share:.1f} points) |")
    return "\n".join(lines)


def rung(evaluation: Evaluation) -> str:
    """The flags of the masking alarm, a line each."""
    told = [f"  {flag.name}: {flag.state}; {flag.told}" for flag in evaluation.masking]
    return "\n".join(told) or "  no check could be made"


def main() -> None:
    """Reads the command line, measures, and prints."""
    parser = reader(__doc__)
    parser.add_argument("config", help="configuration of a run on a classifier")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. evaluation.rows=500")
    parser.add_argument("--model", required=True, help="folder or Hub id of the model, or an adapter")
    parser.add_argument("--steps", type=int, default=100, help="of the longer search")
    parser.add_argument("--restarts", type=int, default=5, help="of the longer search")
    parser.add_argument("--without", metavar="ATTACK", help="measure the panel once more without this attack")
    given = parser.parse_intermixed_args()
    with one_message(), tempfile.TemporaryDirectory() as folder:
        config = load_config(Path(given.config), given.overrides)
        if not isinstance(config, ClassifierRunConfig):
            parser.error("CONFIG must be of a classifier of texts or images, and it is of a chat model.")
        if min(given.steps, given.restarts) < 1:
            parser.error(f"--steps and --restarts must be at least 1, got {given.steps} and {given.restarts}.")
        panel = config.evaluation.attacks
        if given.without is not None and (given.without not in panel or len(panel) < 2):
            parser.error(f"--without must be one of several attacks of the panel ({', '.join(panel)}).")
        with telling(on_screen(config.tracking.progress)):
            _measure(prepared(config, given.model, folder), given)


def _measure(task: Task, given: Namespace) -> None:
    model = task.load_model().model
    evaluation = evaluate_model(task, "panel", model)
    more = beyond(task, model, left(evaluation), given.steps, given.restarts)
    called = f"APGD, {given.steps} steps, {given.restarts} restarts"
    tell(f"\n{task.threat}\n\n{table(evaluation, more, called)}\n\nmasking alarm:\n{rung(evaluation)}")
    if given.without is not None:
        fewer = evaluate_model(without(task, given.without), f"without {given.without}", model)
        tell(f"\nwithout {given.without}: {len(left(fewer))} rows left right; masking alarm:\n{rung(fewer)}")


if __name__ == "__main__":
    main()
