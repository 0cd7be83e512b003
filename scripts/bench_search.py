"""How often a chat model says the target under each goal of the measuring search alone, and under the panel.

    python scripts/bench_search.py CONFIG.yaml --model FOLDER [--split test] [--rows 40] [--factor 1 --factor 2]
        [--goal both] [key=value ...]

All search the same rows in the passes of the configuration's restarts: a goal alone in so many independent restarts,
and in one go of all their steps; the panel. Prints a Markdown table for each multiple of the threat's radius:
behaviours of which an answer begins with the first three words of the target; does so and refuses nowhere; is not
called refused by the list. Behind each count: how many only the panel reached, and how many only this search.
"""

from __future__ import annotations

from pathlib import Path
from typing import get_args

from textadv.config.types import ConfigError
from textadv.runs.errors import one_message
from textadv.runs.screen import parser as reader
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.elicitation import SearchGoal
from textadv.tasks.file import load_config

FACTORS = (1.0, 2.0)


def main() -> None:
    """Reads the command line and prints a table for each radius."""
    parser = reader(__doc__)
    parser.add_argument("config", help="configuration of a run on a chat model")
    parser.add_argument("overrides", nargs="*", help="key=value")
    parser.add_argument("--model", required=True, help="folder of the hardened model")
    parser.add_argument("--split", choices=("validation", "test"), default="test")
    parser.add_argument("--rows", type=int, default=40, help="behaviours, the first of the split")
    parser.add_argument("--factor", type=float, action="append", help="of the threat's radius; repeatable (1 and 2)")
    parser.add_argument(
        "--goal", choices=get_args(SearchGoal), action="append", help="only this goal; repeatable (all)"
    )
    given = parser.parse_intermixed_args()
    with one_message():
        config = load_config(Path(given.config), given.overrides)
        if not isinstance(config, ChatRunConfig) or given.rows < 1:
            raise ConfigError(["CONFIG must be of a chat model (task: chat), and --rows at least 1."])
        model = config.model.model_copy(update={"name": given.model, "lora": None})
        # Once the configuration is known to be right: torch and transformers take seconds.
        from search_goals import bench

        bench(
            config.model_copy(update={"model": model}),
            given.split,
            given.rows,
            given.factor or FACTORS,
            given.goal or (),
        )


if __name__ == "__main__":
    main()
