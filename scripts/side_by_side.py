"""Puts finished runs on classifiers side by side: best and last checkpoint under one panel, and what training cost.

    python recipes/evaluate.py CONFIG --output runs/panel --model runs/pgd/adapters/robust_best \
        --model runs/pgd/adapters/last --model runs/trades/adapters/robust_best ...
    python scripts/side_by_side.py --panel runs/panel runs/pgd runs/trades ...

The panel is measured once for all checkpoints, on the same rows. Prints a Markdown table; a run is named by its folder.
"""

from __future__ import annotations

from pathlib import Path

from textadv.printable import printable, tell
from textadv.report import read_results
from textadv.report.side_by_side import finished_run, side_by_side
from textadv.screen import parser as reader


def main() -> None:
    """Reads the command line and the results, and prints the table."""
    parser = reader(__doc__)
    parser.add_argument("runs", nargs="+", type=Path, help="output folders of recipes/adv_finetune.py")
    parser.add_argument("--panel", required=True, type=Path, help="output folder of recipes/evaluate.py")
    arguments = parser.parse_intermixed_args()
    try:
        panel = read_results(arguments.panel)
        tell(side_by_side([finished_run(folder, read_results(folder), panel) for folder in arguments.runs]), end="")
    except (OSError, ValueError) as error:
        raise SystemExit(printable(f"error: {error}", lines=True)) from None


if __name__ == "__main__":
    main()
