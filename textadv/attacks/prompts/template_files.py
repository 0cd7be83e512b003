"""Texts with a place for the request: jailbreak templates, from files of the user's or the few that are shipped."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.resources import files

from textadv.attacks.prompts.rewritten import AskedFor
from textadv.attacks.prompts.worded import said_instead
from textadv.data.rendering import Message
from textadv.values.errors import DataError
from textadv.values.plurals import some

PLACE = "{prompt}"
SHIPPED = ("acting", "fiction", "json", "lesson", "past", "translation")
"""The names of the templates in `wordings/`, written for this project; there is nothing harmful in them."""


@dataclass(frozen=True)
class Wrapper:
    """A text that holds `{prompt}`, where the request goes; other braces are text. name: as reports call it."""

    name: str
    text: str

    def __post_init__(self) -> None:
        if PLACE not in self.text:
            raise DataError(f"the template {self.name} does not hold {PLACE}, where the request goes. Put it in.")

    def around(self, request: str) -> str:
        """The text with the request in it."""
        return self.text.replace(PLACE, request)


def shipped(name: str) -> Wrapper:
    """A shipped template. Raises DataError where there is none of that name."""
    if name not in SHIPPED:
        raise DataError(f"there is no template {name!r} shipped; there are {', '.join(SHIPPED)}.")
    text = (files("textadv") / "attacks" / "prompts" / "wordings" / f"{name}.txt").read_text(encoding="utf-8")
    return Wrapper(name, text.strip("\n"))


@dataclass(frozen=True)
class Templates:
    """The request in each of several templates."""

    templates: tuple[Wrapper, ...]

    def __post_init__(self) -> None:
        if not self.templates:
            raise ValueError("Templates needs one or more, got none.")

    def __str__(self) -> str:
        return f"request in {some(len(self.templates), 'template')}: {', '.join(one.name for one in self.templates)}"

    @property
    def variants(self) -> int:
        """One for each template."""
        return len(self.templates)

    def __call__(self, asked: AskedFor, variant: int) -> tuple[Message, ...]:
        """The messages with the last one in template number `variant`."""
        return said_instead(asked, self.templates[variant].around(asked.messages[-1]["content"]))
