"""Trains one chat config at several adversarial ratios and seeds, and plots what each ratio buys and costs.

    python scripts/ratio_sweep.py recipes/configs/lab_llm.yaml --output runs/ratio_sweep \
        [--ratios 0.05,0.15,0.25,0.3,0.5,1.0] [--seeds 0,1,2] [key=value ...]

Each run goes to its own folder below --output and is not repeated where its results are there already. Writes sweep.md
(attack success, over-refusal and capability of every run, with intervals) and sweep.svg.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, TypeVar

from textadv.config.types import ConfigError
from textadv.runs.errors import USER_ERRORS, ending
from textadv.runs.screen import parser as reader
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import load_config
from textadv.values.host.phases import on_screen, stage, telling
from textadv.values.host.printable import tell

Number = TypeVar("Number", int, float)


class Wanted(NamedTuple):
    """One run of the sweep; config: None where its folder holds the results of an earlier call."""

    ratio: float
    folder: Path
    config: ChatRunConfig | None


def wanted(path: str, ratio: float, seed: int, folder: Path, overrides: list[str]) -> Wanted:
    """The run at one ratio and seed. Raises ConfigError where the configuration cannot be run."""
    if (folder / "results.json").is_file():
        return Wanted(ratio, folder, None)
    own = (f"mixing.ratio={ratio}", f"seed={seed}", f"output={folder}")
    config = load_config(path, [*overrides, "baselines=[]", *own])
    if not isinstance(config, ChatRunConfig):
        raise ConfigError(["The sweep needs a config with task: chat."])
    return Wanted(ratio, folder, config)


def swept(runs: list[Wanted], output: Path) -> str:
    """The table of all runs, written after each: trained and measured, or read where an earlier call did that."""
    # Once the configurations are known to be right: torch and transformers take seconds.
    from textadv.report import read_results
    from textadv.report.frontier import run_of, runs_markdown, write_frontier
    from textadv.runs.harden import train_hardened
    from textadv.runs.ready import prepare
    from textadv.runs.reporting import measured, report

    found = []
    for ratio, folder, config in runs:
        # A ratio may be named twice.
        if config is not None and not (folder / "results.json").is_file():
            with telling(on_screen(config.tracking.progress)), stage("this run"):
                task = prepare(config)
                hardened = train_hardened(task)
                report(task, [measured(task, hardened.name, hardened.loaded)], [hardened])
        try:
            found.append(run_of(read_results(folder), f"{ratio:.0%} adversarial"))
        except ValueError as error:
            raise ConfigError([f"{folder} holds results that cannot be read: {error} Remove the folder."]) from error
        (output / "sweep.md").write_text(runs_markdown(found), encoding="utf-8")
        write_frontier(found, output / "sweep.svg", "Adversarial ratio, rows per optimizer step")
    return runs_markdown(found)


def numbers(text: str, kind: Callable[[str], Number], option: str) -> list[Number]:
    """The numbers of a list such as 0,1,2. Raises ConfigError where one is none."""
    try:
        return [kind(part) for part in text.split(",")]
    except ValueError as error:
        raise ConfigError([f"{option} must be numbers with commas between, got {text}."]) from error


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("config", help="YAML file with task: chat")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="e.g. training.steps=100")
    parser.add_argument("--output", required=True, type=Path, help="folder for all runs and the plot")
    parser.add_argument("--ratios", default="0.05,0.15,0.25,0.3,0.5,1.0", help="shares, with commas between")
    parser.add_argument("--seeds", default="0,1,2", help="whole numbers, with commas between")
    arguments = parser.parse_intermixed_args()
    try:
        ratios, seeds = numbers(arguments.ratios, float, "--ratios"), numbers(arguments.seeds, int, "--seeds")
        runs = []
        for ratio in ratios:
            for seed in seeds:
                folder = arguments.output / f"ratio{ratio:g}_seed{seed}"
                runs.append(wanted(arguments.config, ratio, seed, folder, arguments.overrides))
        table = swept(runs, arguments.output)
    except USER_ERRORS as error:
        raise ending(error) from None
    tell(table)
    tell(f"plot: {arguments.output / 'sweep.svg'}")


if __name__ == "__main__":
    main()
