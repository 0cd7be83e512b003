"""Measure saved classifiers under attack, side by side and without training.

    accelerate launch recipes/evaluate.py recipes/configs/quickstart.yaml --model runs/quickstart/merged \
        [--model OTHER] --output runs/evaluation [key=value ...]

All models face the same threat model: a relative radius is measured on the first one. Writes results.json, report.md,
report.html and curve.svg to --output.
"""

from __future__ import annotations

import argparse
import sys

from textadv import build
from textadv.config_file import load_config
from textadv.errors import USER_ERRORS
from textadv.report import comparison_table
from textadv.stages import evaluate_model, report
from textadv.task import prepare


def measure(path: str, models: list[str], output: str, overrides: list[str]) -> None:
    """Evaluates each model on the config's test rows and writes one report."""
    config = load_config(path, overrides)
    settings = [config.model.model_copy(update={"name": name, "lora": None}) for name in models]
    task = prepare(config.model_copy(update={"model": settings[0], "output": output}))
    task.say(f"threat: {task.threat}")
    evaluations = []
    for setting in settings:
        loaded = build.model(setting, task.splits.labels, config.seed)
        evaluations.append(evaluate_model(task, setting.name, loaded.model))
    results = report(task, evaluations, [])
    task.say(f"\n{comparison_table(results)}\n\nreport: {task.output / 'report.html'} (also report.md, results.json)")
    task.accelerator.end_training()


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. evaluation.rows=500")
    parser.add_argument("--model", required=True, action="append", help="Hub id, model or adapter folder; repeatable")
    parser.add_argument("--output", required=True, help="folder for the report")
    arguments = parser.parse_intermixed_args()
    try:
        measure(arguments.config, arguments.model, arguments.output, arguments.overrides)
    except USER_ERRORS as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
