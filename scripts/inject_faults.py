"""Injects kills, refused writes and damaged files into tiny runs, and writes the table of docs/reliability.md.

    python scripts/inject_faults.py [--kills 100] [--refusals 40] [--harms 160] [--seed 0] [--table docs/reliability.md]

From the checkout; runs are processes forked from this one, on the CPU. The whole takes an hour of one core. Exits with
1 where something was not survived, and lists it.
"""

from __future__ import annotations

import random
import re
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.faults import campaign, runs  # noqa: E402 - the checkout's own, wherever this is called from
from tests.faults.campaign import HARMS, Outcome  # noqa: E402
from textadv.printable import tell  # noqa: E402
from textadv.screen import parser as reader  # noqa: E402

SHARES = {"text": 0.5, "two": 0.2, "chat": 0.2, "evaluation": 0.1}
BEGIN, END = "<!-- written by scripts/inject_faults.py -->", "<!-- end -->"


def injected(folder: Path, kills: int, refusals: int, harms: int, seed: int) -> Iterator[Outcome]:
    """Every fault of the campaign, one after the other."""
    draw = random.Random(seed)
    text = campaign.whole(runs.warmed(runs.text_run(folder)))
    shutil.copytree(text.run.output / "merged", folder / "model")
    yield from _placed(text, "text", kills, refusals, draw)
    yield from _placed(
        campaign.whole(runs.evaluation_run(folder, folder / "model")), "evaluation", kills, refusals, draw
    )
    chat = campaign.whole(runs.warmed(runs.chat_runs(folder)))
    yield from _placed(chat, "chat", kills, refusals, draw)
    for found in (text, chat):
        files = campaign.interrupted(found, folder / "state", "results.json")
        wanted = [(name, harm) for name in files if found is text or name.startswith("answers/") for harm in HARMS]
        draw.shuffle(wanted)
        yield from campaign.harmed(found, folder / "state", wanted[: harms if found is text else harms // 4])
    two = folder / "two"
    two.mkdir()
    yield from _placed(campaign.whole(runs.text_run(two, processes=2)), "two", kills, refusals, draw)


def _placed(found: campaign.Whole, share: str, kills: int, refusals: int, draw: random.Random) -> Iterator[Outcome]:
    yield from campaign.killed(found, campaign.chosen(found, round(kills * SHARES[share]), draw))
    yield from campaign.refused(found, campaign.chosen(found, round(refusals * SHARES[share]), draw))


def table(outcomes: list[Outcome]) -> str:
    """The counts as a Markdown table: one line for each part of a run, number of processes and kind of fault."""
    keys = [(_kind(found), found.part, found.processes) for found in outcomes]
    whole = Counter(keys)
    survived = Counter(key for key, found in zip(keys, outcomes, strict=True) if not found.problem)
    lines = ["| Fault | Part of the run | Processes | Injected | Survived |", "| --- | --- | --: | --: | --: |"]
    lines += [
        f"| {kind} | {part} | {n} | {whole[kind, part, n]} | {survived[kind, part, n]} |"
        for kind, part, n in sorted(whole)
    ]
    return "\n".join([*lines, f"| all | | | {len(outcomes)} | {sum(survived.values())} |"])


def _kind(found: Outcome) -> str:
    return "damaged file" if found.kind.startswith("file") else found.kind


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
    parser.add_argument("--kills", type=int, default=100, help="kills at named writes (default: 100)")
    parser.add_argument("--refusals", type=int, default=40, help="refused writes (default: 40)")
    parser.add_argument("--harms", type=int, default=160, help="damaged files, about (default: 160)")
    parser.add_argument("--seed", type=int, default=0, help="draws the writes (default: 0)")
    parser.add_argument(
        "--table", type=Path, default=ROOT / "docs" / "reliability.md", help="page that holds the table"
    )
    arguments = parser.parse_args()
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        for found in injected(Path(folder), arguments.kills, arguments.refusals, arguments.harms, arguments.seed):
            outcomes.append(found)
            tell(f"{len(outcomes):4} {found.kind}: {found.where}: {found.problem or 'survived'}")
    write_table(arguments.table, table(outcomes))
    lost = [found for found in outcomes if found.problem]
    tell(f"{len(outcomes)} injected, {len(outcomes) - len(lost)} survived; {arguments.table}")
    sys.exit(1 if lost else 0)


if __name__ == "__main__":
    main()
