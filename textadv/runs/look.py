"""A look at one model: rows without and with an attack, side by side."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from torch import nn

from textadv.config.chat import ChatRunConfig
from textadv.config.images import ImageRunConfig
from textadv.config.models import NamedModel
from textadv.config.tasks import ClassifierRunConfig
from textadv.config.text import ConfigError, RunConfig
from textadv.data import Rows
from textadv.measuring import calibrated, inspect_images, inspect_rows
from textadv.measuring.safety.adversaries import Direct, EmbeddingAttack
from textadv.measuring.safety.elicitation import UNJUDGED, BehaviourOutcome, elicit
from textadv.report import write_grid
from textadv.tasks import attacks as build_attacks
from textadv.tasks import components as build
from textadv.tasks import surrogates as build_surrogates
from textadv.tasks.chat.task import inspected
from textadv.tasks.chat.template import template
from textadv.tasks.images.task import ready, require_trained, resolved_image_threat
from textadv.tasks.text.task import encoded, reported_positions, resolved_threat
from textadv.tasks.trial import read_texts
from textadv.values.host.printable import tell


def model_line(named: NamedModel) -> str:
    """The line that says which model is attacked."""
    return f"model:  {named.path}" if named.name == named.path else f"model:  {named.name} ({named.path})"


def calibrating(config: ClassifierRunConfig, model: nn.Module, validation: Rows, labels: Sequence[str]) -> float:
    """The temperature that the evaluation would fit; prints what cannot be right about it and about the answers."""
    if not config.evaluation.calibrate:
        return 1.0
    fitted = calibrated(model, validation, config.evaluation.batch_size, labels)
    for doubt in fitted.doubts:
        tell(f"note: {doubt}\n")
    return fitted.temperature


def show(config: RunConfig, named: NamedModel, count: int, name: str) -> None:
    """Prints `count` test rows before and after the attack of that name."""
    model = config.model.model_copy(update={"name": named.path, "lora": None})
    config = config.model_copy(update={"model": model})
    splits = build.splits(config.data, config.seed)
    loaded = build.model(config.model, splits.labels, config.seed)
    train, validation, test = encoded(splits, loaded, config)
    for warning in read_texts(config, loaded, (train, validation, test)):
        tell(f"warning: {warning}")
    threat = resolved_threat(config, loaded, train)
    surrogates = build_surrogates.text_surrogates(config, loaded, splits, test)
    modules = {key: found.model for key, found in surrogates.items()}
    wanted = {name: config.evaluation.attacks[name]}
    attack = build_attacks.panel(wanted, threat, config.seed, len(splits.labels), modules)[name]
    tell(f"{model_line(named)}\nthreat: {threat}\nattack: {attack}")
    tell("each token: (how far it moved, in radii), -> the token it is now nearest to, where that is another\n")

    def words(ids: list[int]) -> list[str]:
        return [str(loaded.tokenizer.decode([token])).strip() or "_" for token in ids]

    temperature = calibrating(config, loaded.model, validation, splits.labels)
    found = inspect_rows(
        loaded.model,
        test,
        reported_positions(config, len(test))[:count],
        attack,
        threat,
        words,
        splits.labels,
        temperature=temperature,
    )
    for row in found:
        tell(f"{row}\n")
    right = sum(row.clean[0] == row.label for row in found)
    tell(f"{sum(row.broken for row in found)} of {right} rows that were right are broken ({len(found)} rows shown)")


def show_images(config: ImageRunConfig, named: NamedModel, count: int, name: str, picture: Path) -> None:
    """Prints what the attack of that name does to `count` test images, and writes them side by side to `picture`."""
    model = config.model.model_copy(update={"name": named.path, "lora": None})
    config = config.model_copy(update={"model": model})
    found = ready(config)
    require_trained(found)
    threat = resolved_image_threat(config, found)
    wanted = {name: config.evaluation.attacks[name]}
    modules = {key: surrogate.model for key, surrogate in found.surrogates.items()}
    attack = build_attacks.panel(wanted, threat, config.seed, len(found.splits.labels), modules)[name]
    tell(f"{model_line(named)}\nthreat: {threat}\nattack: {attack}\n")

    network = found.loaded.model
    temperature = calibrating(config, network, found.parts.validation, found.splits.labels)
    rows = inspect_images(
        network,
        found.parts.test,
        reported_positions(config, len(found.parts.test))[:count],
        attack,
        threat,
        found.splits.labels,
        temperature=temperature,
    )
    for row in rows:
        tell(row)
    right = sum(row.clean[0] == row.label for row in rows)
    tell(f"\n{sum(row.broken for row in rows)} of {right} rows that were right are broken ({len(rows)} rows shown)")
    tell(f"picture: {write_grid(rows, picture)}")


def show_chat(config: ChatRunConfig, named: NamedModel, count: int, attack_name: str | None) -> None:
    """Prints `count` forbidden requests with the answers to them, without and under the attack."""
    rows = min(count, config.evaluation.behaviours or count)
    shortened = {"behaviours": rows, "over_refusal": {}, "questions": {}, "instructions": {}}
    alone = {"classifier_judge": None, "llm_judge": None}
    measured = config.evaluation.model_copy(update=shortened | alone)
    model = config.model.model_copy(update={"name": named.path, "lora": None})
    loaded, panel = inspected(config.model_copy(update={"model": model, "evaluation": measured}))
    speech = template(model, loaded).speech
    searching = [name for name, attack in panel.attacks.items() if isinstance(attack, EmbeddingAttack)]
    name = attack_name or searching[0]
    if name not in panel.attacks:
        raise ConfigError([f"--attack {name} is not among the attacks of this config: {', '.join(panel.attacks)}."])
    attacks = {"direct": Direct(), name: panel.attacks[name]}
    tell(f"{model_line(named)}\nthreat: {attacks[name].threat}\nattack: {attacks[name]}")
    tell(f"judge:  {panel.judge.name}\n")

    found = elicit(
        loaded.model,
        loaded.tokenizer,
        panel.behaviours,
        panel.prompts,
        attacks,
        panel.judge,
        panel.decoding,
        speech=speech,
    )
    for place, request in enumerate(panel.prompts):
        tell(f"row {panel.behaviours.ids[place]}\n  prompt    {textwrap.indent(request, ' ' * 12).strip()}")
        for outcome in found.outcomes[place :: len(panel.prompts)]:
            tell(_answer(outcome))
        tell("")
    left = {each: sum(not _refused(o) for o in found.outcomes if o.attack == each) for each in attacks}
    tell(
        f"{left['direct']} of {rows} requests are not refused as they stand, {left[name]} under {name}; which of the "
        "answers comply and which break off is told by recipes/evaluate.py"
    )


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
