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
from pathlib import Path

from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.values.host.phases import on_screen, telling


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
        if isinstance(config, ChatRunConfig):
            parser.error("CONFIG must be of a classifier of texts or images, and it is of a chat model.")
        if min(given.steps, given.restarts) < 1:
            parser.error(f"--steps and --restarts must be at least 1, got {given.steps} and {given.restarts}.")
        panel = config.evaluation.attacks
        if given.without is not None and (given.without not in panel or len(panel) < 2):
            parser.error(f"--without must be one of several attacks of the panel ({', '.join(panel)}).")
        with telling(on_screen(config.tracking.progress)):
            # Once the configuration is known to be right: torch and transformers take seconds.
            from panel_gap import measure, prepared

            measure(prepared(config, given.model, folder), given.steps, given.restarts, given.without)


if __name__ == "__main__":
    main()
