"""Measure saved text or image classifiers, or saved chat models, under attack: side by side and without training.

    accelerate launch --quiet recipes/evaluate.py recipes/configs/quickstart.yaml --model runs/quickstart/merged \
        [--model NAME=OTHER] --output runs/evaluation [key=value ...]

Tables, logs and files call a model by its path, or by the NAME before it. All models face the same threat model: a
relative radius is measured on the first one. Writes results.json, report.md and report.html to --output, curve.svg of
classifiers, answers/ of chat models (`task: chat`). Of the config, data, threat and evaluation count; model.name,
model.lora and output are replaced by --model and --output. What tells gibberish of chat models is
evaluation.base_model, or else the base of the first --model that is an adapter.
"""

from __future__ import annotations

from textadv.values.host.interrupts import while_importing

if __name__ == "__main__":
    while_importing()

from textadv.config.models import named_models
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.file import load_config
from textadv.values.host.phases import on_screen, stage, telling


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. evaluation.rows=500")
    parser.add_argument(
        "--model",
        required=True,
        action="append",
        metavar="[NAME=]PATH",
        help="Hub id, model or adapter folder, and what to call it; repeatable",
    )
    parser.add_argument("--output", required=True, help="folder for the report")
    arguments = parser.parse_intermixed_args()
    with one_message():
        models = named_models(arguments.model)
        config = load_config(arguments.config, arguments.overrides)
        with telling(on_screen(config.tracking.progress)), stage("this run"):
            # Once the configuration is known to be right: torch and transformers take seconds.
            from textadv.runs.measure import measure

            measure(config, models, arguments.output)


if __name__ == "__main__":
    main()
