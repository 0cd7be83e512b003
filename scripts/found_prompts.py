"""Writes what attacks found on a chat model in the formats of other projects, from the answers that a run keeps.

    python scripts/found_prompts.py runs/lab_llm/answers/hardened.jsonl --format jailbreakbench --output found.json \
        [--attack gcg ...] [--behaviours harmbench_behaviors_text_all.csv]

What an attack asked a behaviour twice stands there once.

jailbreakbench: one artefact, for each behaviour the first prompt that broke it, else the last that was tried; null
where attacks found none that can be sent.
harmbench: test_cases.json, every prompt by BehaviorID; completions: the same with answers and labels.
adversariallm: run.json, a run for each behaviour with a step for each answer.

Without --behaviours, HarmBench's BehaviorIDs are row_N, and a table of them is written beside the output. Attacks that
change no text (a prefill, an embedding attack) have no prompt to write, and are left out. The written file can be named
in evaluation.rewrites as {name: artefacts, file: ...}.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from textadv.runs.screen import parser as reader
from textadv.values.host.printable import printable, tell

FORMATS = ("jailbreakbench", "harmbench", "completions", "adversariallm")


class Kept(NamedTuple):
    """What a file of answers holds: attempts, the model's name, and how many answers of which attacks are left out."""

    attempts: list[Any]
    model: str
    left: Counter[str]


def kept(path: Path, attacks: Sequence[str]) -> Kept:
    """The attempts of the newest evaluation, in the order of rows, attacks and rounds; attacks: of these, or of all.

    Raises ValueError where the file has none.
    """
    from textadv.data.artefacts.attempts import Attempt
    from textadv.data.records import records

    found, left, model = [], Counter[str](), ""
    for _, line in records(path):
        answer, target = line.get("answer"), line.get("target")
        if not isinstance(answer, dict) or target is None or line.get("earlier"):
            continue
        name, model = str(answer.get("attack")), str(line.get("model", ""))
        if attacks and name not in attacks:
            continue
        if answer.get("shared") == name:
            # The answer of an earlier round of the same attack.
            continue
        sent = answer.get("sent") or ([{"role": "user", "content": line["prompt"]}] if name == "direct" else [])
        failed = answer["status"] == "error"
        if not sent and not failed:
            left[name] += 1
            continue
        # Of an error nothing was sent: no prompt was found.
        *history, last = [{"content": None}] if failed else sent
        outcome = str(line.get("outcome")).partition(":")[0]
        beside = {"attack": name, "round": answer.get("restart"), "outcome": line.get("outcome")}
        attempt = Attempt(
            behaviour=f"row_{line['row']}",
            goal=line["prompt"],
            prompt=last["content"],
            history=tuple(history),
            responses=() if failed else (answer["text"],),
            broken={"complied": True, "unknown": None, "None": None}.get(outcome, False),
            beside=beside,
        )
        found.append(((line["row"], name, answer.get("restart") or 0, answer.get("sample", 0)), attempt))
    if not found:
        told = f" of {', '.join(attacks)}" if attacks else ""
        raise ValueError(f"{path} holds no answer to a prompt of text{told}; left out are {dict(left)}.")
    return Kept([attempt for _, attempt in sorted(found, key=lambda pair: pair[0])], model, left)


def named(attempts: Sequence[Any], behaviours: Path | None) -> list[Any]:
    """The attempts with BehaviorIDs from a table. Raises ValueError where it lacks a request."""
    from textadv.data.artefacts.harmbench import read_behaviours
    from textadv.data.contamination import plain

    if behaviours is None:
        return list(attempts)
    names = {plain(text): name for name, texts in read_behaviours(behaviours, "--behaviours").items() for text in texts}
    lacking = [attempt.goal for attempt in attempts if plain(attempt.goal) not in names]
    if lacking:
        raise ValueError(
            f"--behaviours {behaviours} has no row for {len(set(lacking))} requests, first {lacking[0]!r}."
        )
    return [replace(attempt, behaviour=names[plain(attempt.goal)]) for attempt in attempts]


def write(kind: str, path: Path, attempts: Sequence[Any], model: str) -> int:
    """Writes the attempts in a format; how many were left out, since it has no place for turns before a prompt."""
    from textadv.data.artefacts.adversariallm import write_adversariallm
    from textadv.data.artefacts.attempts import Artefact
    from textadv.data.artefacts.harmbench import write_completions, write_test_cases
    from textadv.data.artefacts.jailbreakbench import write_jailbreakbench

    if kind == "adversariallm":
        steps = [replace(one, beside={**one.beside, "scores": {}}) for one in attempts]
        attack = "+".join(dict.fromkeys(one.beside["attack"] for one in attempts))
        write_adversariallm(path, Artefact(tuple(steps), (), {"config": {"model": model, "attack": attack}}))
        return 0
    single = [one for one in attempts if not one.history]
    if kind == "jailbreakbench":
        chosen, sent = list(_first_broken(single).values()), [one for one in single if one.prompt is not None]
        write_jailbreakbench(path, Artefact(tuple(chosen), (), {"parameters": parameters(chosen, len(sent), model)}))
    elif kind == "completions":
        write_completions(path, Artefact(tuple(one for one in single if one.prompt is not None)))
    else:
        once = {(one.behaviour, one.prompt): one for one in reversed(single) if one.prompt is not None}
        write_test_cases(path, Artefact(tuple(reversed(once.values()))))
    return len(attempts) - len(single)


def _first_broken(attempts: Sequence[Any]) -> dict[str, Any]:
    chosen: dict[str, Any] = {}
    for attempt in attempts:
        before = chosen.get(attempt.goal)
        if before is None or (before.broken is not True and (attempt.prompt is not None or before.prompt is None)):
            chosen[attempt.goal] = attempt
    return chosen


def parameters(chosen: Sequence[Any], queries: int, model: str) -> dict[str, Any]:
    """What JailbreakBench's artefacts say of themselves; null where it is not known."""
    broken = sum(attempt.broken is True for attempt in chosen)
    return {
        "method": "+".join(dict.fromkeys(attempt.beside["attack"] for attempt in chosen)),
        "model": model,
        "attack_type": "white_box",
        "defense": None,
        "attack_success_rate": broken / len(chosen) if chosen else 0.0,
        "total_number_of_jailbreaks": broken,
        "number_of_submitted_prompts": len(chosen),
        "total_number_of_queries": queries,
        "total_prompt_tokens": None,
        "total_response_tokens": None,
        "evaluation_date": None,
        "evaluation_llm_provider": None,
        "method_parameters": {},
    }


def write_table(path: Path, attempts: Sequence[Any]) -> Path:
    """The table of behaviours, beside an output."""
    from textadv.data.artefacts.harmbench import behaviour_rows
    from textadv.values.host.writing import write_text

    rows = behaviour_rows({attempt.behaviour: attempt.goal for attempt in attempts})
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    table = path.with_name(f"{path.stem}_behaviours.csv")
    write_text(table, out.getvalue())
    return table


def main() -> None:
    """Reads the command line; a mistake in the input ends with one message, not a traceback."""
    parser = reader(__doc__)
    parser.add_argument("answers", type=Path, help="jsonl file in the answers/ of a run")
    parser.add_argument("--format", required=True, choices=FORMATS)
    parser.add_argument("--output", required=True, type=Path, help="json file to write")
    parser.add_argument("--attack", action="append", default=[], help="of these attacks alone; repeatable")
    parser.add_argument("--behaviours", type=Path, help="table of BehaviorID and Behavior")
    arguments = parser.parse_args()
    from textadv.values.errors import WriteError

    try:
        found = kept(arguments.answers, arguments.attack)
        attempts = named(found.attempts, arguments.behaviours)
        turned = write(arguments.format, arguments.output, attempts, found.model)
        if arguments.format in FORMATS[1:3] and arguments.behaviours is None:
            tell(f"behaviours: {write_table(arguments.output, attempts)}")
    except (OSError, ValueError, WriteError) as error:
        raise SystemExit(printable(f"error: {error}", lines=True)) from None
    told = [f"{count} answers to {name}, which changes no text" for name, count in found.left.items()]
    told += [f"{turned} prompts with turns before them, which the format has no place for"] if turned else []
    tell(f"{arguments.output} written" + (f"; left out: {', '.join(told)}" if told else ""))


if __name__ == "__main__":
    main()
