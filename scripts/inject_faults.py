"""Injects kills, refused writes and damaged files into tiny runs, and writes the table of docs/reliability.md.

    python scripts/inject_faults.py [--kills 106] [--refusals 42] [--harms 160] [--seed 0] [--jobs 1]

From the checkout; runs are processes forked from this one, on the CPU. The whole takes less than an hour of one core.
Exits with 1 where something was not survived, and lists it. `--only TEXT` injects those alone whose line holds
the text, and leaves the table.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from datetime import datetime, timezone
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import torch

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults import campaign, runs  # noqa: E402 - the checkout's own, wherever this is called from
from tests.faults.campaign import HARMS, Outcome, Whole  # noqa: E402
from tests.faults.runs import Run  # noqa: E402
from textadv.runs.screen import parser as reader  # noqa: E402
from textadv.values.host.printable import tell  # noqa: E402

SHARES = {"text": 0.28, "image": 0.16, "chat": 0.12, "evaluation": 0.1}
SHARES |= {"text (2)": 0.14, "chat (2)": 0.1, "evaluation (2)": 0.1}
# Which run's files are damaged, at which write it was interrupted before, and the share.
STATES = (
    ("text", "results.json", 0.34),
    ("image", "results.json", 0.12),
    ("image", "hardened/checkpoints/step-00000004", 0.14),
    ("chat", "results.json", 0.2),
    ("evaluation", "results.json", 0.12),
    ("evaluation (2)", "results.json", 0.08),
)
# What one job does after the other. Only one at a time looks for a free port.
GROUPS = (("text (2)", "evaluation (2)", "chat (2)"), ("text",), ("chat",), ("image", "evaluation"))
BEGIN, END = "<!-- written by scripts/inject_faults.py -->", "<!-- end -->"
SECOND = {"kill": "kill of the second process", "refused write": "refused write of the second process"}


@dataclass(frozen=True)
class Wanted:
    """How many faults of each kind, and the text that the line of each has to hold."""

    kills: int
    refusals: int
    harms: int
    seed: int
    only: str = ""


def injected(folder: Path, wanted: Wanted, jobs: int = 1) -> list[Outcome]:
    """Every fault of the campaign, each told when it is done. jobs: groups of runs at once."""
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:
        parts = pool.map(partial(_group, _prepared(folder), wanted), GROUPS)
        return [found for part in parts for found in part]


def _prepared(folder: Path) -> dict[str, Run]:
    """The runs by title. Each kind is made once here, so that forks find everything imported and worked out."""
    two, chats, model = folder / "two", folder / "chats", folder / "model"
    two.mkdir()
    runs.chat_run.prepared(chats)
    text, image, chat = runs.text_run(folder), runs.image_run(folder), runs.chat_run_over(chats, folder)
    campaign.whole(text)
    shutil.copytree(text.output / "merged", model)
    for run in (text, image, chat):
        runs.warmed(run)
    evaluations = (runs.evaluation_run(folder, model), runs.evaluation_run(two, model, 2))
    found = (text, image, chat, *evaluations, runs.text_run(two, 2), runs.chat_run_over(chats, two, 2))
    return {run.title: run for run in found}


def _group(made: dict[str, Run], wanted: Wanted, names: Sequence[str]) -> list[Outcome]:
    found = []
    for name in names:
        for outcome in _faults(campaign.whole(made[name]), wanted):
            tell(f"{outcome.kind}: {outcome.where}: {outcome.problem or 'survived'}")
            found.append(outcome)
    return found


def _faults(found: Whole, wanted: Wanted) -> Iterator[Outcome]:
    name = found.run.title
    draw = random.Random(f"{wanted.seed} {name}")
    kills = campaign.chosen(found, round(wanted.kills * SHARES[name]), draw, kills=True)
    yield from campaign.killed(found, kills, wanted.only)
    refusals = campaign.chosen(found, round(wanted.refusals * SHARES[name]), draw, kills=False)
    yield from campaign.refused(found, refusals, wanted.only)
    state = found.run.output.with_name(f"{found.run.output.name}.state")
    for run, at, share in STATES:
        if run == name:
            files = campaign.interrupted(found, state, at, draw)
            harms = campaign.in_turn([_harms(group, draw) for group in _by_part(files)])
            yield from campaign.harmed(found, state, harms[: round(wanted.harms * share)], wanted.only)


def _by_part(files: list[str]) -> list[list[str]]:
    groups: dict[str, list[str]] = {}
    for name in files:
        groups.setdefault(campaign.part_of(f"x {name}"), []).append(name)
    return list(groups.values())


def _harms(files: list[str], draw: random.Random) -> list[tuple[str, str]]:
    """Every harm of every file of a part of a run, one file after the other."""
    kinds = list(HARMS)
    return campaign.in_turn(
        [[(name, harm) for harm in draw.sample(kinds, len(kinds))] for name in draw.sample(files, len(files))]
    )


def table(outcomes: list[Outcome]) -> str:
    """The counts as a Markdown table: a line for each kind of fault and part of a run, a column for each run."""
    counts = Counter((_kind(found), found.part, found.run) for found in outcomes)
    survived = Counter((_kind(found), found.part, found.run) for found in outcomes if not found.problem)
    kinds, names = sorted({key[:2] for key in counts}), list(dict.fromkeys(found.run for found in outcomes))
    lines = [f"| Fault | Part of the run | {' | '.join(names)} | Injected | Survived |"]
    lines += ["| --- | --- |" + " --: |" * (len(names) + 2)]
    for kind, part in kinds:
        cells = [_cell(counts[kind, part, name], survived[kind, part, name]) for name in names]
        own = [sum(count for key, count in found.items() if key[:2] == (kind, part)) for found in (counts, survived)]
        lines.append(f"| {kind} | {part} | {' | '.join(cells)} | {own[0]} | {own[1]} |")
    cells = [str(sum(count for key, count in counts.items() if key[2] == name)) for name in names]
    return "\n".join([*lines, f"| all | | {' | '.join(cells)} | {len(outcomes)} | {sum(survived.values())} |"])


def _cell(count: int, survived: int) -> str:
    return str(count or "") if count == survived else f"{survived} of {count}"


def _kind(found: Outcome) -> str:
    if found.kind.startswith("file"):
        return "damaged file"
    return SECOND[found.kind] if found.process else found.kind


def origin(wanted: Wanted, outcomes: list[Outcome], seconds: float) -> str:
    """A sentence about a run of this script."""
    kinds = Counter(found.kind.split()[0] for found in outcomes)
    options = f"--kills {wanted.kills} --refusals {wanted.refusals} --harms {wanted.harms} --seed {wanted.seed}"
    return (
        f"One run on {datetime.now(timezone.utc):%Y-%m-%d}, {seconds / 60:.0f} minutes: "
        f"`python scripts/inject_faults.py {options}`. "
        f"{kinds['kill']} kills, {kinds['refused']} refused writes, {kinds['file']} damaged files."
    )


def write_table(path: Path, text: str) -> None:
    """Puts the table between its two marks."""
    page = path.read_text(encoding="utf-8")
    new = re.sub(
        f"{re.escape(BEGIN)}.*?{re.escape(END)}", lambda found: f"{BEGIN}\n\n{text}\n\n{END}", page, flags=re.S
    )
    path.write_text(new, encoding="utf-8")


def main() -> None:
    """Injects, tells, and writes the table."""
    parser = reader(__doc__)
    parser.add_argument("--kills", type=int, default=106, help="kills at named writes (default: 106)")
    parser.add_argument("--refusals", type=int, default=42, help="refused writes (default: 42)")
    parser.add_argument("--harms", type=int, default=160, help="damaged files, about (default: 160)")
    parser.add_argument("--seed", type=int, default=0, help="draws the writes (default: 0)")
    parser.add_argument("--jobs", type=int, default=1, help="runs at once (default: 1)")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose line holds this text")
    parser.add_argument(
        "--table", type=Path, default=ROOT / "docs" / "reliability.md", help="page that holds the table"
    )
    arguments = parser.parse_args()
    wanted = Wanted(arguments.kills, arguments.refusals, arguments.harms, arguments.seed, arguments.only)
    # Forks of a process whose pools of threads have begun would wait for threads that they do not have.
    torch.set_num_threads(1)
    os.environ |= {"TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        outcomes = injected(Path(folder), wanted, arguments.jobs)
    if not wanted.only:
        write_table(arguments.table, f"{origin(wanted, outcomes, time.monotonic() - began)}\n\n{table(outcomes)}")
    lost = [found for found in outcomes if found.problem]
    tell(
        f"{len(outcomes)} injected, {len(outcomes) - len(lost)} survived"
        + (f"; {arguments.table}" if not wanted.only else "")
    )
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
