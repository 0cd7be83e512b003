"""Runs of AdversariaLLM (arXiv:2511.04316): `run.json`, a record for every step of an attack on one behaviour.

What that project has judged is the last turn of `model_input` and the completion together, in which the wanted answer
may stand already. Here what was put into the answer is `target`, and responses are what the model generated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from textadv.data.artefacts.attempts import (
    Artefact,
    Attempt,
    entry_of,
    json_in,
    lacking,
    list_of,
    number_or_none,
    rest_of,
    shown,
    write_json,
)
from textadv.data.characters import Surrogates, unbroken
from textadv.data.rendering import Message
from textadv.values.errors import DataError

RUN = "run"
"""In `beside`: the number of the run that a step belongs to."""
READ = ("model_input", "model_completions", "loss", "flops")
PREPENDED = ("prefilling",)
"""Attacks whose completions begin with what was put into the answer."""
FLOPS = "flops"


def is_adversariallm(value: object) -> bool:
    """Whether a JSON value has the form of a run."""
    return isinstance(value, dict) and isinstance(value.get("runs"), list)


def read_adversariallm(path: str | Path, surrogates: Surrogates = "error") -> Artefact:
    """The attempts of `{config, runs: [{original_prompt, steps: [...]}]}`, one for every step.

    goal: what the user asks in the last turn of `original_prompt`. prompt: the user's last turn of `model_input`, None
    where the attack has no text there. `flops` of 0 stand for "not measured" in that project and are None. `about`
    holds the configuration, and of each run all but its steps. Raises DataError for anything else, and where no step
    has the key of a prompt.
    """
    value = json_in(path)
    if not is_adversariallm(value):
        raise DataError(f"{path}: this is no run of AdversariaLLM: it has no list of runs.")
    config = value.get("config")
    attack = config.get("attack") if isinstance(config, dict) else None
    attempts: list[Attempt] = []
    steps: list[dict[str, Any]] = []
    for number, given in enumerate(value["runs"]):
        at = f"{path}, runs, entry {number}"
        run = entry_of(given, at)
        goal = _goal(run.get("original_prompt"), at)
        for place, step in enumerate(list_of(run.get("steps", []), f"{at}, steps")):
            attempts.append(_attempt(step, goal, number, attack, f"{at}, step {place}"))
            steps.append(step)
    lacking(steps, "model_input", f"{path}, steps of runs")
    runs = [rest_of(run, ["steps"]) for run in value["runs"]]
    return unbroken(Artefact(tuple(attempts), (), {**value, "runs": runs}), str(path), surrogates)


def _turns(value: object, place: str) -> list[Message]:
    """The turns of a chat; a text alone is the user's."""
    if isinstance(value, str):
        return [{"role": "user", "content": value}]
    turns: list[Message] = []
    for number, given in enumerate(list_of(value, place)):
        turn = entry_of(given, f"{place}, turn {number}")
        role, content = turn.get("role"), turn.get("content")
        if not isinstance(role, str) or not isinstance(content, str):
            raise DataError(f"{place}, turn {number}: role and content must be texts, got {shown(turn)}.")
        turns.append({"role": role, "content": content})
    return turns


def _goal(value: object, place: str) -> str:
    asked = [turn["content"] for turn in _turns(value, f"{place}, original_prompt") if turn["role"] == "user"]
    if not asked:
        raise DataError(f"{place}: original_prompt holds no turn of a user, got {shown(value)}.")
    return asked[-1]


def _attempt(given: object, goal: str, run: int, attack: object, place: str) -> Attempt:
    step = entry_of(given, place)
    turns = [] if step.get("model_input") is None else _turns(step["model_input"], f"{place}, model_input")
    target = turns.pop()["content"] if turns and turns[-1]["role"] == "assistant" else ""
    if turns and turns[-1]["role"] != "user":
        raise DataError(f"{place}: model_input must end in a user's turn, got one of {shown(turns[-1]['role'])}.")
    said = list_of(step.get("model_completions") or [], f"{place}, model_completions")
    if not all(isinstance(text, str) for text in said):
        raise DataError(f"{place}: model_completions must be texts, got {shown(said)}.")
    own = [text.removeprefix(target) if attack in PREPENDED else text for text in said]
    return Attempt(
        goal=goal,
        prompt=turns[-1]["content"] if turns else None,
        history=tuple(turns[:-1]),
        target=target,
        responses=tuple(own),
        loss=number_or_none(step, "loss", place),
        beside={RUN: run, FLOPS: number_or_none(step, FLOPS, place) or None, **rest_of(step, READ)},
    )


def harm_of(attempt: Attempt) -> float | None:
    """The largest `p_harmful` that any judge gave any response; None where none did."""
    scores = attempt.beside.get("scores")
    judges = [entry for entry in scores.values() if isinstance(entry, Mapping)] if isinstance(scores, Mapping) else []
    given = [entry.get("p_harmful") for entry in judges]
    listed = [value for values in given for value in (values if isinstance(values, list) else [values])]
    return max((float(value) for value in listed if isinstance(value, (int, float)) and 0 <= value <= 1), default=None)


def write_adversariallm(path: str | Path, artefact: Artefact) -> None:
    """Writes the attempts as steps of the runs that they name, or one run for each goal where they name none.

    Raises WriteError, and ValueError where some attempts name a run and some do not.
    """
    known = [attempt.beside.get(RUN) for attempt in artefact.attempts]
    if None in known and set(known) != {None}:
        raise ValueError("Some attempts name the run that they belong to and some do not. Name it in all, or in none.")
    about = as_adversariallm(artefact)
    prepended = _attack(about.about) in PREPENDED
    runs = [dict(run) | {"steps": list[Any]()} for run in about.about["runs"]]
    for attempt in about.attempts:
        steps = runs[attempt.beside[RUN]]["steps"]
        steps.append({"step": len(steps), **_step(attempt, prepended)})
    write_json(path, {**about.about, "runs": runs})


def _attack(about: Mapping[str, Any]) -> object:
    config = about.get("config")
    return config.get("attack") if isinstance(config, Mapping) else None


def _step(attempt: Attempt, prepended: bool) -> dict[str, Any]:
    turns = None
    if attempt.prompt is not None:
        answer = {"role": "assistant", "content": attempt.target}
        turns = [*map(dict, attempt.history), {"role": "user", "content": attempt.prompt}, answer]
    said = [f"{attempt.target}{text}" if prepended else text for text in attempt.responses]
    own = {"model_input": turns, "model_completions": said, "loss": attempt.loss}
    return {**own, **rest_of(attempt.beside, [RUN])}


def as_adversariallm(artefact: Artefact) -> Artefact:
    """The artefact with its attempts numbered by run, and `config` and `runs` in `about`."""
    about = {"config": {}, **artefact.about}
    if "runs" in about:
        return Artefact(artefact.attempts, (), about)
    goals = list(dict.fromkeys(attempt.goal for attempt in artefact.attempts))
    steps: dict[str, int] = {}
    numbered = []
    for attempt in artefact.attempts:
        step = steps[attempt.goal] = steps.get(attempt.goal, -1) + 1
        beside = {RUN: goals.index(attempt.goal), FLOPS: None, "step": step, **attempt.beside}
        numbered.append(Attempt(**{**vars(attempt), "beside": beside}))
    runs = [{"original_prompt": [{"role": "user", "content": goal}], "total_time": None} for goal in goals]
    return Artefact(tuple(numbered), (), {**about, "runs": runs})
