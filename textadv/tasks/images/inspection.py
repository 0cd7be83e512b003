"""A look at an image classifier: what an attack does to images, in lines and as a picture."""

from __future__ import annotations

from collections.abc import Iterator

from textadv.measuring import inspect_images
from textadv.report import write_grid
from textadv.tasks.checks import reported_positions
from textadv.tasks.classifier import calibrating, require_trained, shown_attack
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.images.task import examined, resolved_image_threat
from textadv.tasks.protocol import Look


def look(config: ImageRunConfig, wanted: Look) -> Iterator[str]:
    """See `registry.look`; the images are written side by side to the picture."""
    config = config.of_model(wanted.model.path)
    found = examined(config)
    require_trained(found.loaded.initialised, found.splits.labels)
    threat = resolved_image_threat(config, found)
    modules = {key: surrogate.model for key, surrogate in found.surrogates.items()}
    attack = shown_attack(config, wanted.attack, threat, len(found.splits.labels), modules)
    yield f"{wanted.model.line}\nthreat: {threat}\nattack: {attack}\n"

    network = found.loaded.model
    temperature, doubts = calibrating(config, network, found.parts.validation, found.splits.labels)
    yield from doubts
    rows = inspect_images(
        network,
        found.parts.test,
        reported_positions(config, len(found.parts.test))[: wanted.rows],
        attack,
        threat,
        found.splits.labels,
        temperature=temperature,
    )
    for row in rows:
        yield str(row)
    right = sum(row.clean[0] == row.label for row in rows)
    yield f"\n{sum(row.broken for row in rows)} of {right} rows that were right are broken ({len(rows)} rows shown)"
    yield f"picture: {write_grid(rows, wanted.picture)}"
