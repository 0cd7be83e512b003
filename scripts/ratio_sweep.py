"""Trains one chat config at several adversarial ratios and seeds, and plots what each ratio buys and costs.

    python scripts/ratio_sweep.py recipes/configs/lab_llm.yaml --output runs/ratio_sweep \
        [--ratios 0.05,0.15,0.25,0.3,0.5,1.0] [--seeds 0,1,2] [key=value ...]

Each run goes to its own folder below --output and is not repeated where its results are there already. Writes sweep.md
(attack success, over-refusal and capability of every run, with intervals) and sweep.svg.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from textadv.config import ConfigError
from textadv.config_chat import ChatRunConfig
from textadv.config_file import load_config
from textadv.errors import USER_ERRORS, ending
from textadv.phases import on_screen, stage, telling
from textadv.printable import tell
from textadv.report import read_results
from textadv.report.frontier import Run, run_of, runs_markdown, write_frontier
from textadv.screen import parser as reader
from textadv.stages_chat import evaluate_chat_model, report_chat, train_chat
from textadv.task_chat import prepare_chat

Number = TypeVar("Number", int, float)


def one_run(path: str, ratio: float, seed: int, folder: Path, overrides: list[str]) -> Run:
    """Trains and measures at one ratio and seed, or reads what an earlier call measured."""
    if not (folder / "results.json").is_file():
        own = (f"mixing.ratio={ratio}", f"seed={seed}", f"output={folder}")
        config = load_config(path, [*overrides, "baselines=[]", *own])
        if not isinstance(config, ChatRunConfig):
            raise ConfigError(["The sweep needs a config with task: chat."])
        with telling(on_screen(config.tracking.progress)), stage("this run"):
            task = prepare_chat(config)
            hardened = train_chat(task)
            report_chat(task, [evaluate_chat_model(task, "hardened", hardened.loaded)], [hardened])
    try:
        return run_of(read_results(folder), f"{ratio:.0%} adversarial")
    except ValueError as error:
        raise ConfigError([f"{folder} holds results that cannot be read: {error} Remove the folder."]) from error


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
    runs = []
    try:
        ratios, seeds = numbers(arguments.ratios, float, "--ratios"), numbers(arguments.seeds, int, "--seeds")
        for ratio in ratios:
            for seed in seeds:
                folder = arguments.output / f"ratio{ratio:g}_seed{seed}"
                runs.append(one_run(arguments.config, ratio, seed, folder, arguments.overrides))
                (arguments.output / "sweep.md").write_text(runs_markdown(runs), encoding="utf-8")
                write_frontier(runs, arguments.output / "sweep.svg", "Adversarial ratio, rows per optimizer step")
    except (*USER_ERRORS, OSError) as error:
        raise ending(error) from None
    tell(runs_markdown(runs))
    tell(f"plot: {arguments.output / 'sweep.svg'}")


if __name__ == "__main__":
    main()
