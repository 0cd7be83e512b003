"""What a trained model is, for the card beside it: what it was trained from, on and with, as configured."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from textadv.config.run import RunSection
from textadv.measuring import Training

SOURCES = ("train", "path", "paraphrases")
FILES = "files"


def described(config: RunSection, training: Training, threat: str, *, attacked: bool) -> str:
    """The first part of a trained model's card, in Markdown.

    threat: where training attacked its rows. attacked: whether it did.
    """
    how = f"within {threat}" if attacked else "none: a plain fine-tune, to compare with"
    lines = [
        f"- base model: `{config.model.name}`",
        f"- trained on, as configured: {'; '.join(sources(config.data.model_dump())) or 'built-in rows'}",
        f"- objective: {training.objective}, {training.steps:,} optimizer steps",
        f"- selected checkpoint: {training.selected}, of step {training.selected_step:,}",
        f"- rows attacked in training: {how}",
    ]
    facts = "\n".join(lines)
    return f"""# {training.name}

{facts}

`config.yaml` of the run has all settings, `report.md` and `results.json` what was measured{_thresholds(config)}. That
says nothing about other attacks, radii or data.
"""


def _thresholds(config: RunSection) -> str:
    detection = getattr(config.evaluation, "detection", None)
    if detection is None:
        return ""
    return (
        f", with the thresholds of class {detection.positive} (differences of logits) at which its recall and false "
        "positives were counted"
    )


def sources(data: Mapping[str, Any], key: str = "data") -> Iterator[str]:
    """The data sets and files that a section of data names, each under its key."""
    name = data.get("name")
    if isinstance(name, str) and name != FILES:
        yield f"`{key}.name`: {name}"
    for part in SOURCES:
        value = data.get(part)
        if isinstance(value, str) or (isinstance(value, Sequence) and value):
            yield f"`{key}.{part}`: {value if isinstance(value, str) else ', '.join(map(str, value))}"
    for part, value in data.items():
        if isinstance(value, Mapping) and "name" in value:
            yield from sources(value, f"{key}.{part}")
