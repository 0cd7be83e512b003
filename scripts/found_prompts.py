"""Writes what attacks found on a chat model in the formats of other projects, from the answers that a run keeps.

    python scripts/found_prompts.py runs/lab_llm/answers/hardened.jsonl --format jailbreakbench --output found.json \
        [--attack gcg ...] [--behaviours harmbench_behaviors_text_all.csv]

Prompts of a behaviour stand by the share of their answers that complied, the highest first; of equal shares the one
with more answers, then as attacks come in the file. The request as it stands comes after all rewritten prompts that any
answer complied with: what one of fifty answers to it says is no jailbreak to send again. --attack direct writes it
alone.

jailbreakbench: one artefact, for each behaviour the first of these prompts with an answer that complied, where there is
one; a null prompt where attacks found none that can be sent. `answers` says how many answers to the prompt there are,
`answers_complied` how many of them complied. Queries are answers: `number_of_queries` those of the chosen attack to the
behaviour, `queries_to_jailbreak` how many of them it took to the first that complied (null without one), and
`total_number_of_queries` the sum of the former. `search_forwards` are passes that the attack's searches took besides.
harmbench: test_cases.json, every prompt by BehaviorID, once; completions: the same with every answer and its label.
adversariallm: run.json, a run for each behaviour with a step for each answer.

Without --behaviours, HarmBench's BehaviorIDs are row_N, and a table of them is written beside the output. Attacks that
change no text (a prefill, an embedding attack) have no prompt to write, and are left out. The written file can be named
in evaluation.rewrites as {name: artefacts, file: ...}.
"""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from textadv.runs.screen import parser as reader
from textadv.values.host.printable import printable, tell
from textadv.values.plurals import some

DIRECT = "direct"
FORMATS = ("jailbreakbench", "harmbench", "completions", "adversariallm")


class Kept(NamedTuple):
    """What a file of answers holds: attempts, the model's name, and how many answers of which attacks are left out."""

    attempts: list[Any]
    model: str
    left: Counter[str]


def kept(path: Path, attacks: Sequence[str]) -> Kept:
    """The attempts of the newest evaluation, by rows, attacks as they come in the file, rounds and samples.

    attacks: of these, or of all. Raises ValueError where the file has none.
    """
    from textadv.data.records import records

    found, left, model, there = [], Counter[str](), "", dict[str, int]()
    for _, line in records(path):
        answer, target = line.get("answer"), line.get("target")
        if not isinstance(answer, dict) or target is None or line.get("earlier"):
            continue
        name, model = str(answer.get("attack")), str(line.get("model", ""))
        place = there.setdefault(name, len(there))
        # The answer of an earlier round of the same attack is no answer more.
        if (attacks and name not in attacks) or answer.get("shared") == name:
            continue
        attempt = _attempt(line, name)
        if attempt is None:
            left[name] += 1
        else:
            found.append(((line["row"], place, answer.get("restart") or 0, answer.get("sample", 0)), attempt))
    _require_there(path, attacks, there)
    if not found:
        told = f" of {', '.join(attacks)}" if attacks else ""
        left_out = f"; left out: {', '.join(_changing_nothing(left))}" if left else ""
        raise ValueError(f"{path} holds no answer to a prompt of text{told}{left_out}. {_named(there)}")
    return Kept([attempt for _, attempt in sorted(found, key=lambda pair: pair[0])], model, left)


def _attempt(line: Mapping[str, Any], name: str) -> Any:
    """What an answer of an attack was made to; None where it changed no text."""
    from textadv.data.artefacts.attempts import Attempt

    answer = line["answer"]
    plain = line.get("chat") or [{"role": "user", "content": line["prompt"]}]
    sent = answer.get("sent") or (plain if name == DIRECT else [])
    failed = answer["status"] == "error"
    if not sent and not failed:
        return None
    # Of an error nothing was sent: no prompt was found.
    *history, last = [{"content": None}] if failed else sent
    outcome = str(line.get("outcome")).partition(":")[0]
    beside = {"attack": name, "round": answer.get("restart"), "outcome": line.get("outcome")}
    return Attempt(
        behaviour=f"row_{line['row']}",
        goal=line["prompt"],
        prompt=last["content"],
        history=tuple(history),
        responses=() if failed else (answer["text"],),
        broken={"complied": True, "unknown": None, "None": None}.get(outcome, False),
        beside=beside | {"search_forwards": answer.get("forwards", 0)},
    )


def _require_there(path: Path, attacks: Sequence[str], there: Collection[str]) -> None:
    missing = [name for name in attacks if name not in there]
    if missing:
        raise ValueError(f"--attack {', '.join(missing)}: {path} holds no answer under that name. {_named(there)}")


def _named(there: Collection[str]) -> str:
    return f"It has answers to {', '.join(there)}." if there else "It has no answer to an attack at all."


def _changing_nothing(left: Mapping[str, int]) -> list[str]:
    return [f"{some(count, 'answer')} to {name}, which changes no text" for name, count in left.items()]


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
            f"--behaviours {behaviours} has no row for {some(len(set(lacking)), 'request')}, first {lacking[0]!r}."
        )
    return [replace(attempt, behaviour=names[plain(attempt.goal)]) for attempt in attempts]


def write(kind: str, path: Path, attempts: Sequence[Any], model: str) -> int:
    """Writes the attempts in a format; how many were left out, since it has no place for turns before a prompt."""
    from textadv.data.artefacts.adversariallm import write_adversariallm
    from textadv.data.artefacts.attempts import Artefact
    from textadv.data.artefacts.harmbench import write_completions, write_test_cases
    from textadv.data.artefacts.jailbreakbench import write_jailbreakbench

    ordered = [one for own in candidates(attempts) for one in own]
    if kind == "adversariallm":
        steps = [replace(one, beside={**one.beside, "scores": {}}) for one in ordered]
        attack = "+".join(dict.fromkeys(one.beside["attack"] for one in ordered))
        write_adversariallm(path, Artefact(tuple(steps), (), {"config": {"model": model, "attack": attack}}))
        return 0
    single = [one for one in ordered if not one.history]
    if kind == "jailbreakbench":
        chosen = jailbreaks([one for one in attempts if not one.history])
        write_jailbreakbench(path, Artefact(tuple(chosen), (), {"parameters": parameters(chosen, model)}))
    elif kind == "completions":
        write_completions(path, Artefact(tuple(one for one in single if one.prompt is not None)))
    else:
        once = {(one.behaviour, one.prompt): one for one in reversed(single) if one.prompt is not None}
        write_test_cases(path, Artefact(tuple(reversed(once.values()))))
    return len(attempts) - len(single)


def candidates(attempts: Sequence[Any]) -> list[list[Any]]:
    """The attempts by goal, and there by attack and prompt, the prompt that answers most often complied with first.

    What the share of answers orders, and where the request as it stands comes, says the head of this file.
    """
    goals = {goal: place for place, goal in enumerate(dict.fromkeys(one.goal for one in attempts))}
    groups: dict[tuple[Any, ...], list[Any]] = {}
    for one in attempts:
        key = (one.goal, one.beside["attack"], str(one.history), one.prompt)
        groups.setdefault(key, []).append(one)

    def rank(own: Sequence[Any]) -> tuple[Any, ...]:
        complied, first = sum(one.broken is True for one in own), own[0]
        as_it_stands = first.prompt is not None and (
            first.beside["attack"] == DIRECT or first.prompt.strip() == first.goal.strip()
        )
        return goals[first.goal], first.prompt is None, not complied, as_it_stands, -complied / len(own), -len(own)

    return sorted(groups.values(), key=rank)


def jailbreaks(attempts: Sequence[Any]) -> list[Any]:
    """For each goal one attempt of the best prompt, with the counts of JailbreakBench's artefacts in `beside`.

    The attempt is one that complied where any did, else one that nobody decided on, else the first. A query is an
    answer to any prompt of the same attack and goal.
    """
    best: dict[str, list[Any]] = {}
    for own in candidates(attempts):
        best.setdefault(own[0].goal, own)
    return [_jailbreak(own, attempts) for own in best.values()]


def _jailbreak(own: Sequence[Any], attempts: Sequence[Any]) -> Any:
    one = min(own, key=lambda attempt: (attempt.broken is not True, attempt.broken is not None))
    of = (one.goal, one.beside["attack"])
    asked = [other for other in attempts if (other.goal, other.beside["attack"]) == of]
    queries = [other for other in asked if other.responses]
    until = next((number for number, other in enumerate(queries, 1) if other.broken is True), None)
    counts = {
        "number_of_queries": len(queries),
        "queries_to_jailbreak": until,
        "answers": sum(len(attempt.responses) for attempt in own),
        "answers_complied": sum(attempt.broken is True for attempt in own),
        "search_forwards": sum(other.beside["search_forwards"] for other in asked),
    }
    return replace(one, beside={**one.beside, **counts})


def parameters(chosen: Sequence[Any], model: str) -> dict[str, Any]:
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
        "total_number_of_queries": sum(attempt.beside["number_of_queries"] for attempt in chosen),
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
    told = _changing_nothing(found.left)
    told += [f"{some(turned, 'prompt')} with turns before, which the format has no place for"] if turned else []
    tell(f"{arguments.output} written" + (f"; left out: {', '.join(told)}" if told else ""))


if __name__ == "__main__":
    main()
