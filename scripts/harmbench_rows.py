"""Joins HarmBench's behaviours with their targets into rows that data.adversarial reads.

    python scripts/harmbench_rows.py --behaviors harmbench_behaviors_text_test.csv \
        --targets harmbench_targets_text.json --output harmbench_test.jsonl [--category standard ...]

Both files are the user's own (HarmBench, arXiv:2402.04249). A contextual behaviour follows its context, as HarmBench
asks it. Each row holds prompt, target and the refusals given with --safe.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path

from textadv.runs.screen import parser as reader
from textadv.values.host.printable import printable, tell
from textadv.values.host.reading import json_of
from textadv.values.plurals import some

CATEGORIES = ("standard", "contextual", "copyright")
NEEDED = {"Behavior", "BehaviorID", "FunctionalCategory", "ContextString"}


def joined_rows(behaviors: Path, targets: Path, categories: list[str], safe: list[str]) -> list[dict[str, object]]:
    """One row per behaviour of these categories, in the file's order.

    Raises ValueError where a column or a behaviour's target is missing, or nothing is left.
    """
    said = json_of(targets.read_bytes())
    if not isinstance(said, dict):
        raise ValueError(f"--targets {targets} must hold an object, behaviour -> target, got a {type(said).__name__}.")
    with behaviors.open(encoding="utf-8", newline="") as lines:
        reader = csv.DictReader(lines)
        absent = NEEDED - set(reader.fieldnames or ())
        if absent:
            raise ValueError(f"--behaviors {behaviors} lacks the columns {', '.join(sorted(absent))}.")
        wanted = [row for row in reader if row["FunctionalCategory"] in categories]
    if not wanted:
        raise ValueError(f"--behaviors {behaviors} has no behaviour of the category {', '.join(categories)}.")
    without = [row["BehaviorID"] for row in wanted if row["BehaviorID"] not in said]
    if without:
        raise ValueError(
            f"--targets {targets} has no target for {some(len(without), 'behaviour')}, first {without[0]}."
        )
    return [{"prompt": prompt_of(row), "target": said[row["BehaviorID"]], "safe": safe} for row in wanted]


def prompt_of(row: dict[str, str]) -> str:
    """The behaviour, after its context where it has one."""
    context, behavior = row["ContextString"].strip(), row["Behavior"].strip()
    return f"{context}\n\n---\n\n{behavior}" if context else behavior


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("--behaviors", required=True, type=Path, help="csv file of HarmBench")
    parser.add_argument("--targets", required=True, type=Path, help="json file: behaviour id -> target")
    parser.add_argument("--output", required=True, type=Path, help="jsonl file to write")
    parser.add_argument("--category", action="append", choices=CATEGORIES, help="default: standard; repeatable")
    parser.add_argument("--safe", action="append", help="a refusal; repeatable")
    arguments = parser.parse_args()
    safe = arguments.safe or ["I cannot help with that."]
    try:
        rows = joined_rows(arguments.behaviors, arguments.targets, arguments.category or ["standard"], safe)
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        arguments.output.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SystemExit(printable(f"error: {error}", lines=True)) from None
    tell(f"{len(rows)} rows: {arguments.output}")


if __name__ == "__main__":
    main()
