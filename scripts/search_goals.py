"""Each goal of the search on chat models alone, and the panel: what scripts/bench_search.py prints."""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from textadv.data import Chat, encode_chats
from textadv.measuring.judges.target_judge import TargetJudge
from textadv.measuring.judges.verdicts import REFUSAL_LISTS, RefusalList
from textadv.measuring.safety import search_panel
from textadv.measuring.safety.adversaries import EmbeddingAttack
from textadv.measuring.safety.beginnings import Beginnings
from textadv.measuring.safety.elicitation import Elicitation, elicit
from textadv.measuring.safety.generate import Decoding
from textadv.measuring.safety.radius_curve import at_radius
from textadv.models import LoadedModel, device_of
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.elicitation import ElicitationConfig, SearchConfig, measuring_attack
from textadv.tasks.chat.template import template
from textadv.values.batch import Role
from textadv.values.host.printable import tell

WORDS = 3
NOTHING = RefusalList("nothing", (), anywhere=True, case_sensitive=True)
PANEL = "panel"
TOKENS = 40


@dataclass(frozen=True)
class Bench:
    """The model, and the behaviours that it is asked."""

    config: ChatRunConfig
    loaded: LoadedModel
    chats: Sequence[Chat]

    @property
    def requests(self) -> list[str]:
        return [chat.conversation for chat in self.chats]

    def attack(self, wanted: ElicitationConfig, factor: float) -> EmbeddingAttack:
        """The embedding attack as configured so, at `factor` times the threat's radius."""
        threat = self.config.threat.make()
        sample = self.rows.batch(range(min(len(self.chats), 32))).to(device_of(self.loaded.model))
        threat = at_radius(threat.resolved(self.loaded.model, sample.prompts()), factor)
        one = measuring_attack(wanted.attack, "evaluation.elicitation.attack", threat, self.config.seed)
        refusals = REFUSAL_LISTS[self.config.evaluation.judge]
        beginnings = Beginnings.of(template(self.config.model, self.loaded), refusals)
        return wanted.embedding_attack(one, beginnings, self.config.evaluation.batch_size)

    @property
    def rows(self) -> Any:
        return encode_chats(self.chats, template(self.config.model, self.loaded), self.config.data.max_length)

    def judged(self, attacks: Mapping[str, EmbeddingAttack], store: Path) -> tuple[Elicitation, ...]:
        """What the attacks bring out, by each judge."""
        targets = {request: chat.answers["harmful"] for request, chat in zip(self.requests, self.chats, strict=True)}
        refusals = REFUSAL_LISTS[self.config.evaluation.judge]
        decoding = Decoding(TOKENS, batch_size=self.config.evaluation.batch_size)
        model, tokenizer = self.loaded.model, self.loaded.tokenizer
        judges = (TargetJudge(targets, NOTHING, WORDS), TargetJudge(targets, refusals, WORDS), refusals)
        return tuple(
            elicit(model, tokenizer, self.rows, self.requests, attacks, judge, decoding, store=store)
            for judge in judges
        )


def contestants(wanted: ElicitationConfig, goals: Collection[str] = ()) -> dict[str, ElicitationConfig]:
    """The whole target as it stood; each goal of the panel alone, as independent restarts and in one go; the panel.

    goals: only these, where there are any.
    """
    whole = wanted.attack.model_copy(update={"steps": wanted.restarts * wanted.attack.steps})
    named = {"elicit": SearchConfig(goal="elicit"), **{_named(leg): _alone(leg) for leg in search_panel.PANEL}}
    found = {}
    for name, search in named.items():
        if goals and search.goal not in goals:
            continue
        found[name] = wanted.model_copy(update={"search": [search]})
        found[f"{name}, in one go"] = wanted.model_copy(update={"search": [search], "restarts": 1, "attack": whole})
    return {**found, PANEL: wanted.model_copy(update={"search": None})}


def _named(leg: search_panel.Leg) -> str:
    return f"{leg.goal}, steps of {leg.relative_step_size:g}"


def _alone(leg: search_panel.Leg) -> SearchConfig:
    return SearchConfig(goal=leg.goal, relative_step_size=leg.relative_step_size, momentum=leg.momentum)


def outcomes(found: Elicitation, attack: str) -> list[bool]:
    """Per behaviour whether any search of the attack broke it."""
    return [outcome.broken for outcome in found.outcomes if outcome.attack == attack]


def table(judged: Sequence[Elicitation]) -> list[str]:
    """The lines of the table."""
    lines = ["| search | begins with the target | and refuses nowhere | not refused, by the list | passes |"]
    lines.append("| --- | --- | --- | --- | --- |")
    for success in judged[0].attacks:
        cells = [_cell(outcomes(found, PANEL), outcomes(found, success.name)) for found in judged]
        passes = (success.forwards + success.backwards) / success.low.total
        lines.append(f"| {success.name} | {' | '.join(cells)} | {passes:.0f} |")
    return lines


def _cell(panel: list[bool], own: list[bool]) -> str:
    pairs = list(zip(panel, own, strict=True))
    return f"{sum(own)} (+{pairs.count((True, False))}, -{pairs.count((False, True))})"


def bench(config: ChatRunConfig, split: str, rows: int, factors: Sequence[float], goals: Collection[str] = ()) -> None:
    """Prints a table for each multiple of the threat's radius: the first rows of the split, on the config's model.

    goals: see `contestants`.
    """
    splits = config.data.make(config.seed)[Role.ADVERSARIAL]
    chats = {"validation": splits.validation, "test": splits.test}[split][:rows]
    asked = Bench(config, config.model.make(config.seed), chats)
    wanted = config.evaluation.elicitation
    for factor in factors:
        attacks = {name: asked.attack(own, factor) for name, own in contestants(wanted, goals).items()}
        with tempfile.TemporaryDirectory() as folder:
            judged = asked.judged(attacks, Path(folder) / "answers.jsonl")
        effort = f"{wanted.restarts} restarts of {wanted.attack.steps} steps"
        tell(f"\n{len(chats)} behaviours ({split}), {attacks[PANEL].threat}; {effort}\n")
        tell("\n".join(table(judged)))
