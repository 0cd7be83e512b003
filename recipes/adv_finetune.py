"""Harden a text or image classifier or a chat model by adversarial fine-tuning, and measure what that bought.

    accelerate launch --quiet recipes/adv_finetune.py recipes/configs/quickstart.yaml [key=value ...]

A config with `task: images` hardens an image classifier, one with `task: tokens` a token classifier, one with
`task: chat` a chat model. Writes to the config's
`output`: adapter/ and merged/ (with the tokenizer or image processor), adapters/ (robust-best, clean-best, last),
baselines/ (adapter/ and merged/ of each plain model), results.json, report.md, report.html, curve.svg, answers/ (of a
chat model), config.yaml (re-runs this run), training/ (logs, checkpoints).
"""

from __future__ import annotations

from textadv.values.host.interrupts import while_importing

if __name__ == "__main__":
    while_importing()

from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.file import load_config
from textadv.values.host.phases import on_screen, stage, telling


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. attack.steps=5 objective.name=trades")
    arguments = parser.parse_args()
    with one_message("checkpoint.resume=true"):
        config = load_config(arguments.config, arguments.overrides)
        with telling(on_screen(config.tracking.progress)), stage("this run"):
            # Once the configuration is known to be right: torch and transformers take seconds.
            from textadv.runs.harden import harden

            harden(config)


if __name__ == "__main__":
    main()
