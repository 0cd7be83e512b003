"""A look at a chat model: forbidden requests with the answers to them, without and under an attack."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from textadv.config.types import ConfigError
from textadv.measuring.safety.adversaries import Direct, EmbeddingAttack
from textadv.measuring.safety.chat import Panel
from textadv.measuring.safety.elicitation import UNJUDGED, BehaviourOutcome, elicit
from textadv.models import LoadedModel
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.loading import encoded_parts, read_chats, resolved_threat
from textadv.tasks.chat.panel import panel, read_panel
from textadv.tasks.chat.template import template
from textadv.tasks.protocol import Look
from textadv.values.batch import Role
from textadv.values.host.phases import stage


def look(config: ChatRunConfig, wanted: Look) -> Iterator[str]:
    """See `registry.look`."""
    rows = min(wanted.rows, config.evaluation.behaviours or wanted.rows)
    shortened = {"behaviours": rows, "over_refusal": {}, "questions": {}, "instructions": {}}
    alone = {"classifier_judge": None, "llm_judge": None}
    measured = config.evaluation.model_copy(update=shortened | alone)
    config = config.of_model(wanted.model.path).model_copy(update={"evaluation": measured})
    loaded, asked = inspected(config)
    speech = template(config.model, loaded).speech
    searching = [name for name, attack in asked.attacks.items() if isinstance(attack, EmbeddingAttack)]
    name = wanted.attack or searching[0]
    if name not in asked.attacks:
        raise ConfigError([f"--attack {name} is not among the attacks of this config: {', '.join(asked.attacks)}."])
    attacks = {"direct": Direct(), name: asked.attacks[name]}
    yield f"{wanted.model.line}\nthreat: {attacks[name].threat}\nattack: {attacks[name]}"
    yield f"judge:  {asked.judge.name}\n"

    found = elicit(
        loaded.model,
        loaded.tokenizer,
        asked.behaviours,
        asked.prompts,
        attacks,
        asked.judge,
        asked.decoding,
        speech=speech,
    )
    for place, request in enumerate(asked.prompts):
        yield f"row {asked.behaviours.ids[place]}\n  prompt    {textwrap.indent(request, ' ' * 12).strip()}"
        for outcome in found.outcomes[place :: len(asked.prompts)]:
            yield _answer(outcome)
        yield ""
    left = {each: sum(not _refused(o) for o in found.outcomes if o.attack == each) for each in attacks}
    yield (
        f"{left['direct']} of {rows} requests are not refused as they stand, {left[name]} under {name}; which of the "
        "answers comply and which break off is told by recipes/evaluate.py"
    )


@stage("making ready")
def inspected(config: ChatRunConfig) -> tuple[LoadedModel, Panel]:
    """The model and what would be measured on it; without a run or an output folder.

    Raises ConfigError, DataError or ModelError as `ready` does.
    """
    streams = config.data.make(config.seed)
    loaded = config.model.make(config.seed)
    rows = encoded_parts(config, loaded, streams[Role.ADVERSARIAL])
    read_chats(config, loaded, {Role.ADVERSARIAL: rows})
    threat = resolved_threat(config, loaded, rows[0])
    found = panel(config, loaded, streams, threat)
    read_panel(config, loaded, found)
    return loaded, found


def _refused(outcome: BehaviourOutcome) -> bool:
    return not outcome.possibly_broken and all(answer.status != "empty" for answer in outcome.answers)


def _answer(outcome: BehaviourOutcome) -> str:
    """The answer that is not refused, or else the first one."""
    shown = next((answer for answer in outcome.answers if answer.broken), outcome.answers[0])
    verdict = "NOT REFUSED  " if outcome.broken else "not known  " if outcome.possibly_broken else ""
    text = shown.text
    if shown.status in UNJUDGED:
        text = f"({shown.status}) {shown.reason}" + (f": {text}" if text.strip() else "")
    thought = f"\n    thought {textwrap.indent(shown.thought, ' ' * 12).strip()}" if shown.thought else ""
    return f"  {outcome.attack:<9} {verdict}{textwrap.indent(text, ' ' * 12).strip()}{thought}"
