"""What a run reads must not lie in what it removes: a model, rows or a template in the folder that is overwritten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from textadv.config.run import RunSection
from textadv.config.types import ConfigError


def require_outside(
    config: RunSection, output: Path, parts: Sequence[str], more: Sequence[tuple[str, str]] = ()
) -> None:
    """Raises ConfigError where a path that the configuration names lies in one of the output folder's parts.

    more: further paths by what names them, such as an option.
    """
    going = [(output / part).resolve() for part in parts]
    named = [*_texts(config.model_dump(exclude={"output"}), ""), *more]
    found = [(key, text) for key, text in named if _lies_in(text, going)]
    if found:
        told = ", ".join(f"{key}: {text}" for key, text in found)
        raise ConfigError(
            [
                f"checkpoint.overwrite=true would remove what this run reads from output {output}: {told}. "
                "Name another output folder."
            ]
        )


def _texts(value: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(value, str):
        yield key, value
    elif isinstance(value, Mapping):
        for name, part in value.items():
            yield from _texts(part, f"{key}.{name}" if key else str(name))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part, key)


def _lies_in(text: str, going: Sequence[Path]) -> bool:
    try:
        place = Path(text).resolve()
        return bool(text) and place.exists() and any(part in (place, *place.parents) for part in going)
    except (OSError, RuntimeError, ValueError):
        return False
