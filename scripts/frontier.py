"""Puts finished chat runs side by side: attack success against over-refusal.

    python scripts/frontier.py --output runs/frontier runs/lab_llm CAPO=runs/lab_llm_capo ...

A run is named by its folder, or by NAME=FOLDER. Writes frontier.md and frontier.svg.
"""

from __future__ import annotations

from pathlib import Path

from textadv.config.models import named_runs
from textadv.config.types import ConfigError
from textadv.runs.screen import parser as reader
from textadv.values.host.printable import printable, tell


def main() -> None:
    """Reads the command line, the runs' results.json, and writes the table and the plot."""
    parser = reader(__doc__)
    parser.add_argument("runs", nargs="+", help="output folders of recipes/adv_finetune.py, or NAME=FOLDER")
    parser.add_argument("--output", required=True, type=Path, help="folder for the table and the plot")
    arguments = parser.parse_intermixed_args()
    # After the command line, which need not wait for the seconds that these take.
    from textadv.report import read_results
    from textadv.report.frontier import run_of, runs_markdown, write_frontier

    try:
        runs = [run_of(read_results(folder), name) for name, folder in named_runs(arguments.runs)]
        arguments.output.mkdir(parents=True, exist_ok=True)
        (arguments.output / "frontier.md").write_text(runs_markdown(runs), encoding="utf-8")
        write_frontier(runs, arguments.output / "frontier.svg", "Attack success against over-refusal")
    except (OSError, ValueError, ConfigError) as error:
        raise SystemExit(printable(f"error: {error}", lines=True)) from None
    tell(runs_markdown(runs))
    tell(f"plot: {arguments.output / 'frontier.svg'}")


if __name__ == "__main__":
    main()
