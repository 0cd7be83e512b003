"""Puts finished runs on classifiers side by side: best and last checkpoint under one panel, and what training cost.

    python recipes/evaluate.py CONFIG --output runs/panel --model runs/pgd/adapters/robust_best \
        --model runs/pgd/adapters/last --model runs/trades/adapters/robust_best ...
    python scripts/side_by_side.py --panel runs/panel runs/pgd "TRADES, 3 steps=runs/trades" ...

The panel is measured once for all checkpoints, on the same rows; its models may have names of their own. Prints a
Markdown table; a run is named by its folder, or by NAME=FOLDER.
"""

from __future__ import annotations

from pathlib import Path

from textadv.config.models import named_runs
from textadv.config.types import ConfigError
from textadv.runs.screen import parser as reader
from textadv.values.host.printable import printable, tell


def main() -> None:
    """Reads the command line and the results, and prints the table."""
    parser = reader(__doc__)
    parser.add_argument("runs", nargs="+", help="output folders of recipes/adv_finetune.py, or NAME=FOLDER")
    parser.add_argument("--panel", required=True, type=Path, help="output folder of recipes/evaluate.py")
    arguments = parser.parse_intermixed_args()
    # After the command line, which need not wait for the seconds that these take.
    from textadv.report import read_results
    from textadv.report.side_by_side import finished_run, side_by_side

    try:
        panel = read_results(arguments.panel)
        runs = [(label, Path(folder)) for label, folder in named_runs(arguments.runs)]
        found = [finished_run(folder, read_results(folder), panel, label) for label, folder in runs]
        tell(side_by_side(found), end="")
    except (OSError, ValueError, ConfigError) as error:
        raise SystemExit(printable(f"error: {error}", lines=True)) from None


if __name__ == "__main__":
    main()
