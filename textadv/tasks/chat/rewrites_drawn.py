"""Sections of attacks in text that search nothing: random spellings, dialogues, templates, prompts of files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from textadv.config.types import ConfigError, Count, Distinct, Section, Share, Text, Texts
from textadv.values.plurals import some

if TYPE_CHECKING:
    from textadv.attacks.prompts.many_shot import Shot
    from textadv.attacks.prompts.template_files import Wrapper
    from textadv.attacks.prompts.worded import Wording
    from textadv.data.artefacts.joining import Joined
    from textadv.measuring.safety.adversaries import Adversary
    from textadv.tasks.chat.rewritable import Rewritable


def _worded(wording: Wording, scene: Rewritable, *, drawn: bool = False) -> Adversary:
    """drawn: its variants are drawn alike."""
    from textadv.attacks.prompts.worded import Worded

    return scene.asked_with(Worded(wording), drawn=drawn)


def listed(value: str | list[str]) -> list[str]:
    """One path or several as a list."""
    return [value] if isinstance(value, str) else value


class BestOfNConfig(Section):
    """Random spellings of the request, each asked once."""

    name: Literal["best_of_n"] = Field(description="best_of_n: scrambled words, other case, noise in the characters.")
    draws: Count = Field(10, description="Spellings per behaviour, each of which is answered and judged.")
    sigma: Share = Field(0.4, description="How much is changed, 0 to 1.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary."""
        from textadv.attacks.prompts.best_of_n import BestOfN

        return _worded(BestOfN(self.draws, self.sigma, scene.seed), scene, drawn=True)


class ManyShotConfig(Section):
    """Dialogues of a file, in which an assistant answers, in front of the request."""

    name: Literal["many_shot"] = Field(description="many_shot: dialogues before the request.")
    file: Texts = Field(description="File(s) of dialogues: prompt and response, or messages, as data.utility reads.")
    shots: Count = Field(16, description="Dialogues before the request.")
    form: Literal["turns", "text"] = Field("turns", description="turns of the chat, or text in the user's message.")
    draws: Count = Field(1, description="Draws of dialogues per behaviour, each of which is answered and judged.")

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary. Raises ConfigError where the file cannot be read or has too few dialogues for a behaviour."""
        from textadv.attacks.prompts.many_shot import ManyShot

        dialogues = self._dialogues(scene)
        if self.shots > len(dialogues):
            raise ConfigError(
                [
                    f"{scene.key}.shots: {some(self.shots, 'dialogue is', 'dialogues are')} asked for and "
                    f"{scene.key}.file has "
                    f"{len(dialogues)}. Lower shots, or name more files."
                ]
            )
        wording = ManyShot(dialogues, self.shots, self.form, self.draws, scene.seed)
        fewest, row = min(
            ((len(wording.others(chat.prompt)), chat.id) for chat in scene.chats), default=(self.shots, 0)
        )
        if fewest < self.shots:
            raise ConfigError(
                [
                    f"{scene.key}.shots: {some(self.shots, 'dialogue is', 'dialogues are')} asked for and "
                    f"{scene.key}.file has {fewest} that "
                    f"do not ask what behaviour {row} asks. Lower shots to {fewest}, or name more files."
                    if fewest
                    else f"{scene.key}.file: every dialogue asks what behaviour {row} asks. Name more files."
                ]
            )
        return _worded(wording, scene, drawn=True)

    def _dialogues(self, scene: Rewritable) -> tuple[Shot, ...]:
        from textadv.attacks.prompts.many_shot import Shot
        from textadv.data import DataError, load_chats
        from textadv.values.batch import Role

        kept = scene.template.surrogates
        try:
            rows = load_chats(Role.UTILITY, train=listed(self.file), validation_fraction=0.0, surrogates=kept).train
        except DataError as error:
            # The reader knows the keys of a stream.
            line = str(error).replace("data.utility.train", f"{scene.key}.file").replace("data.utility", scene.key)
            raise ConfigError([line]) from error
        # Of a dialogue of several turns the last question is taken, which its answer is to.
        shots = dict.fromkeys(Shot(chat.prompt, scene.template.split(chat.answers["response"]).text) for chat in rows)
        return tuple(shots)


class TemplatesConfig(Section):
    """The request inside other texts: jailbreak templates."""

    name: Literal["templates"] = Field(description="templates: the request in each of several texts.")
    file: Texts | None = Field(
        None, description="Text file(s), each a template that holds {prompt} where the request goes; null: none."
    )
    shipped: Distinct[Literal["acting", "fiction", "json", "lesson", "past", "translation"]] = Field(
        [], description="Shipped templates, harmless ones that were written for this project."
    )

    @model_validator(mode="after")
    def _rules(self) -> TemplatesConfig:
        if self.file is None and not self.shipped:
            raise ConfigError(
                [
                    "evaluation.rewrites: templates needs file, shipped or both. Name text files that hold {prompt}, "
                    "or set shipped: [acting]."
                ]
            )
        return self

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary. Raises ConfigError where a file cannot be read or has no place for the request."""
        from textadv.attacks.prompts.template_files import Templates, shipped

        own = [] if self.file is None else [_template(path, scene.key) for path in listed(self.file)]
        return _worded(Templates((*own, *map(shipped, self.shipped))), scene)


def _template(path: str, key: str) -> Wrapper:
    from textadv.attacks.prompts.template_files import Wrapper
    from textadv.data.records import opened
    from textadv.values.errors import DataError

    try:
        return Wrapper(Path(path).stem, opened(Path(path)).strip("\r\n"))
    except DataError as error:
        raise ConfigError([f"{key}.file: {path}: {str(error).removeprefix(f'{path}: ')}"]) from error


class ArtefactsConfig(Section):
    """Prompts that others found for these behaviours."""

    name: Literal["artefacts"] = Field(description="artefacts: prompts of files.")
    file: Texts = Field(
        description="File(s) of JailbreakBench (artefacts), HarmBench (test cases, completions) or AdversariaLLM "
        "(run.json), or rows original_prompt, inpainted_prompt (csv, tsv, json, jsonl, parquet)."
    )
    behaviours: Text | None = Field(
        None, description="Table of BehaviorID and Behavior, where files name behaviours by id; null: none."
    )
    prompts: Count | None = Field(
        None, description="Prompts per behaviour at most, likeliest to break first; null: all, each a round."
    )

    def make(self, scene: Rewritable) -> Adversary:
        """The adversary. Raises ConfigError where a file cannot be read or holds nothing for any behaviour."""
        from textadv.attacks.prompts.from_files import FromFiles
        from textadv.data import DataError

        try:
            return _worded(FromFiles(self._joined(scene), self.prompts), scene)
        except DataError as error:
            raise ConfigError([str(error)]) from error

    def _joined(self, scene: Rewritable) -> Joined:
        from textadv.data import DataError
        from textadv.data.artefacts.harmbench import read_behaviours
        from textadv.data.artefacts.joining import joined, read_artefact, require_named

        found = [read_artefact(path, f"{scene.key}.file", scene.template.surrogates) for path in listed(self.file)]
        names = None if self.behaviours is None else read_behaviours(self.behaviours, f"{scene.key}.behaviours")
        requests = {chat.id: (chat.conversation, chat.prompt) for chat in scene.chats}
        require_named(found, requests, names, scene.key)
        told = joined(found, requests, names)
        if not told.attempts:
            raise DataError(
                f"{scene.key}.file: {told}, so that no behaviour could be asked. {_remedy(told, scene.key)}"
            )
        return told


def _remedy(told: Joined, key: str) -> str:
    """What to do about a file that holds no prompt for any behaviour."""
    asked = some(told.tried, "entry asks", "entries ask")
    found = (
        f"{asked} for behaviours of data.adversarial and have no prompt (null or blanks): name a file in which prompts "
        "were found."
    )
    words = f"Their goal, or Behavior in {key}.behaviours, has to be the request in words as data.adversarial has it."
    return " ".join([found] * bool(told.tried) + [words] * (not told.tried or bool(told.unknown)))
