"""Measure saved classifiers under attack, side by side and without training.

    accelerate launch recipes/evaluate.py recipes/configs/quickstart.yaml --model runs/quickstart/merged \
        [--model OTHER] --output runs/evaluation [key=value ...]

All models face the same threat model: a relative radius is measured on the first one. Writes results.json, report.md,
report.html and curve.svg to --output. Of the config, data, threat and evaluation count; model.name, model.lora and
output are replaced by --model and --output.
"""

from __future__ import annotations

import argparse

from textadv.config_file import load_config
from textadv.errors import USER_ERRORS, ending
from textadv.report import comparison_table
from textadv.report.summary import doubts
from textadv.stages import evaluate_model, report
from textadv.task import prepare, with_model


def measure(path: str, models: list[str], output: str, overrides: list[str]) -> None:
    """Evaluates each model on the config's test rows and writes one report."""
    config = load_config(path, overrides)
    first = config.model.model_copy(update={"name": models[0], "lora": None})
    task = prepare(config.model_copy(update={"model": first, "output": output}))
    # Every model is tried before the first is measured, so that a mistake in the last shows at once.
    tasks = [task, *(with_model(task, name) for name in models[1:])]
    hashes = {f"weights.{own.config.model.name}": own.hashes["weights.initial"] for own in tasks}
    task.say(f"threat: {task.threat}\n")

    evaluations = [evaluate_model(own, own.config.model.name, own.load_model().model) for own in tasks]
    results = report(task, evaluations, hashes=hashes)

    task.say(f"\n{comparison_table(results)}\n")
    for doubt in doubts(results):
        task.say(f"note: {doubt}")
    task.say(f"report: {task.output / 'report.html'} (also report.md, results.json)")
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
        raise ending(error) from None


if __name__ == "__main__":
    main()
