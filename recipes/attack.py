"""Attack one model and look: rows without and with an attack, side by side.

    python recipes/attack.py recipes/configs/quickstart.yaml --model [NAME=]runs/quickstart/adapter [--rows 5] \
        [key=value ...]

The threat model and the attack are the config's `threat` and the first of `evaluation.attacks` (or --attack NAME); the
rows are among those that recipes/evaluate.py attacks. A relative radius is measured on the model that is attacked.

Of an image classifier (`task: images`) it also writes a picture to --picture: original, adversarial, difference.

Of a chat model (`task: chat`) it shows forbidden requests with the answer to each as it stands and under the embedding
attack, or another attack of `evaluation.elicitation` by its name in the table, such as "prefill 10", and what the model
thought before it. What the model says goes to the screen and nowhere else.
"""

from __future__ import annotations

from textadv.values.host.interrupts import while_importing

if __name__ == "__main__":
    while_importing()

from pathlib import Path

from textadv.config.models import named_model
from textadv.config.types import ConfigError
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.file import load_config
from textadv.values.host.phases import on_screen, stage, telling


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("config", help="YAML file, see recipes/configs")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. threat.relative_radius=0.1")
    parser.add_argument(
        "--model", required=True, metavar="[NAME=]PATH", help="Hub id, model or adapter folder, and what to call it"
    )
    parser.add_argument("--rows", type=int, default=5, help="test rows to show (default: 5)")
    parser.add_argument("--attack", metavar="NAME", help="name of an attack (default: the first that searches)")
    parser.add_argument("--picture", default="attack.png", help="PNG file for images (default: attack.png)")
    arguments = parser.parse_intermixed_args()
    with one_message():
        named = named_model(arguments.model)
        config = load_config(arguments.config, arguments.overrides)
        if arguments.rows < 1:
            raise ConfigError([f"--rows must be at least 1, got {arguments.rows}."])
        picture = Path(arguments.picture)
        config.check_look(arguments.attack, picture)
        with telling(on_screen(config.tracking.progress)), stage("this run"):
            # Once the configuration is known to be right: torch and transformers take seconds.
            from textadv.runs.look import look

            look(config, named, arguments.rows, arguments.attack, picture)


if __name__ == "__main__":
    main()
