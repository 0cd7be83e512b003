"""The sections of attacks that edit the texts themselves, of evaluation and training alike; each makes its attack."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.edit_sources import EditSources
from textadv.config.types import ConfigError, Count, Distinct, Natural, Section, Text, checked

if TYPE_CHECKING:
    from textadv.attacks.edits import EditAttack

ChangedShare = Annotated[float, Field(gt=0, le=1)]
SHARE = "Share of a text's words that may be changed, in 0..1, one at least; null: no limit."
ENCODER = "Folder or Hub id of the model that holds edited texts similar; null: nothing does."


class EditSection(Section):
    """The keys of every attack by edits."""

    name: str
    queries: Count | None = Field(
        1000, description="Texts that go through the model for one row, at most, its own among them; null: no limit."
    )
    rows: Count | None = Field(
        None,
        description="Reported test rows that are attacked, at most, of each test file: a seeded sample, the same of "
        "every attack; null: all.",
    )
    labels: Annotated[Distinct[int | Text], Field(min_length=1)] | None = Field(
        None, description="Classes, by name or number, whose rows are attacked; others count as they are. null: all."
    )

    def make(self, seed: int, sources: EditSources) -> EditAttack:
        """The attack on rows of its classes.

        Raises ConfigError, from `.KEY` on, where a file cannot be read or a label is no class.
        """
        attack = self._preset(seed, sources)
        if self.labels is None:
            return attack
        return replace(
            attack, labels=tuple(sorted({class_at("labels", label, sources.labels) for label in self.labels}))
        )

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        raise NotImplementedError


class WordsSection(EditSection):
    """The keys of attacks that put words in or change them."""

    not_label_words: bool = Field(
        False, description="Whether names of the classes are left alone, and no text gets one that it has not."
    )

    def make(self, seed: int, sources: EditSources) -> EditAttack:
        """See `EditSection.make`."""
        from textadv.attacks.edits import NotLabelWords

        attack = super().make(seed, sources)
        if not self.not_label_words:
            return attack
        return replace(attack, constraints=(*attack.constraints, NotLabelWords(tuple(sources.labels))))


class EditWordsSection(WordsSection):
    """The keys of attacks that edit words."""

    share: ChangedShare | None = Field(None, description=SHARE)

    def make(self, seed: int, sources: EditSources) -> EditAttack:
        """See `EditSection.make`."""
        from textadv.attacks.edits import ChangedWords

        attack = super().make(seed, sources)
        if self.share is None:
            return attack
        return replace(attack, constraints=(*attack.constraints, ChangedWords(share=self.share)))


class DeepWordBugConfig(EditWordsSection):
    """One letter of the most important words changed (arXiv:1801.04354)."""

    name: Literal["deepwordbug"] = Field("deepwordbug", description="The attack.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import deepwordbug

        return deepwordbug(queries=self.queries, seed=seed)


class PruthiConfig(EditWordsSection):
    """A typo inside a few long words, the best of all (arXiv:1905.11268)."""

    name: Literal["pruthi"] = Field("pruthi", description="The attack.")
    words: Count = Field(1, description="Words that are changed, at most.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import pruthi

        return pruthi(words=self.words, queries=self.queries, seed=seed)


class TextBuggerConfig(EditWordsSection):
    """Letters and near words exchanged in the most important words (arXiv:1812.05271)."""

    name: Literal["textbugger"] = Field("textbugger", description="The attack.")
    table: Text | None = Field(None, description="File of near words; null: by the attacked model's own embeddings.")
    encoder: Text | None = Field(None, description=ENCODER)

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import textbugger

        table = None if self.table is None else sources.table(self.table)
        return textbugger(table, sources.encoder(self.encoder), queries=self.queries, seed=seed)


class BadCharactersConfig(EditWordsSection):
    """Edits that readers do not see (arXiv:2106.09898)."""

    name: Literal["bad_characters"] = Field("bad_characters", description="The attack.")
    words: Count = Field(1, description="Words that are changed, at most.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import bad_characters

        return bad_characters(perturbations=self.words, queries=self.queries, seed=seed)


class TextFoolerConfig(EditWordsSection):
    """Synonyms for the most important words (arXiv:1907.11932)."""

    name: Literal["textfooler"] = Field("textfooler", description="The attack.")
    table: Text = Field(description="File of synonyms: .json of word -> list of words, or lines of words between tabs.")
    encoder: Text | None = Field(None, description=ENCODER)

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import textfooler

        return textfooler(sources.table(self.table), sources.encoder(self.encoder), queries=self.queries, seed=seed)


class PwwsConfig(EditWordsSection):
    """WordNet's synonyms, by saliency times gain (ACL 2019, P19-1103)."""

    name: Literal["pwws"] = Field("pwws", description="The attack.")
    wordnet: Text = Field(description="WordNet's folder dict, of database files.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import pwws

        return pwws(sources.wordnet(self.wordnet), queries=self.queries, seed=seed)


class BaeConfig(EditWordsSection):
    """What a masked language model finds likely in the place of the most important words (arXiv:2004.01970)."""

    name: Literal["bae"] = Field("bae", description="The attack.")
    masked_lm: Text = Field(description="Folder or Hub id of a masked language model.")
    encoder: Text | None = Field(None, description=ENCODER)

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import bae

        return bae(sources.masked_lm(self.masked_lm), sources.encoder(self.encoder), queries=self.queries, seed=seed)


class HotFlipConfig(EditWordsSection):
    """Words flipped to the token with the steepest gradient (arXiv:1712.06751)."""

    name: Literal["hotflip"] = Field("hotflip", description="The attack.")
    words: Count = Field(2, description="Words that are changed, at most.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import hotflip

        return hotflip(words=self.words, queries=self.queries, seed=seed)


class InputReductionConfig(EditSection):
    """The least words at which the model says the same (arXiv:1804.07781); breaks no row."""

    name: Literal["input_reduction"] = Field("input_reduction", description="The attack.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import input_reduction

        return input_reduction(queries=self.queries, seed=seed)


class PaddingConfig(EditSection):
    """The text behind or before others, which may push it past the last token that is read."""

    name: Literal["padding"] = Field("padding", description="The attack.")
    texts: Annotated[Distinct[Text], Field(min_length=1)] | None = Field(
        None, description="What it is padded with; null: two harmless sentences."
    )
    of: int | Text | None = Field(
        None, description="Class, by name or number, whose training rows it is padded with, put together; null: texts."
    )
    times: Annotated[Distinct[Count], Field(min_length=1)] = Field(
        [1, 4, 16], description="How often a padding text is repeated; each is tried."
    )

    @model_validator(mode="after")
    def _rules(self) -> PaddingConfig:
        both = self.texts is not None and self.of is not None
        return checked(self, ["must have its padding from one place, texts or of, the other null"] if both else [])

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import padding, paddings

        texts = {} if self.texts is None else {"texts": tuple(self.texts)}
        if self.of is not None:
            label = class_at("of", self.of, sources.labels)
            texts["texts"] = of_rows("of", lambda: paddings(sources.train, label))
        return padding(**texts, times=tuple(self.times), queries=self.queries, seed=seed)


class TriggerWordsConfig(WordsSection):
    """Words that speak for a class in the training rows, or in the model's own gradient, put into other texts."""

    name: Literal["trigger_words"] = Field("trigger_words", description="The attack.")
    toward: int | Text = Field(
        description="The class, by name or number, that rows of the other classes are taken for."
    )
    words: Count = Field(40, description="Words of the training rows that are tried, the surest ones.")
    inserts: Count = Field(3, description="Words that are put in, at most.")
    gradient: Natural = Field(2, description="Words of the model's own gradient that are tried at each place; 0: none.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import predictive_words, trigger_words

        toward = class_at("toward", self.toward, sources.labels)
        words = of_rows("words", lambda: predictive_words(sources.train, toward, self.words))
        if toward in {class_at("labels", label, sources.labels) for label in self.labels or []}:
            raise ConfigError([f".labels: rows of {sources.labels[toward]} are those of toward. Remove it."])
        return trigger_words(
            words,
            toward=toward,
            inserts=self.inserts,
            gradient=self.gradient,
            labels=tuple(n for n in range(len(sources.labels)) if n != toward),
            queries=self.queries,
            seed=seed,
        )


class SplittingConfig(EditSection):
    """The text in named parts that a sentence puts together."""

    name: Literal["splitting"] = Field("splitting", description="The attack.")
    parts: Annotated[Distinct[Annotated[int, Field(ge=2, le=26)]], Field(min_length=1)] = Field(
        [2, 3, 4], description="How many parts; each is tried."
    )

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import splitting

        return splitting(parts=tuple(self.parts), queries=self.queries, seed=seed)


class Base64Config(EditSection):
    """The text in Base64, behind an instruction to decode it."""

    name: Literal["base64"] = Field("base64", description="The attack.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import base64

        return base64(queries=self.queries, seed=seed)


class Rot13Config(EditSection):
    """The text in ROT13, behind an instruction to decode it."""

    name: Literal["rot13"] = Field("rot13", description="The attack.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import rot13

        return rot13(queries=self.queries, seed=seed)


class SpellingOutConfig(EditSection):
    """The text letter by letter, with a sign between."""

    name: Literal["spelling_out"] = Field("spelling_out", description="The attack.")

    def _preset(self, seed: int, sources: EditSources) -> EditAttack:
        from textadv.attacks.edits import spelling_out

        return spelling_out(queries=self.queries, seed=seed)


BreakingConfig = (
    DeepWordBugConfig
    | PruthiConfig
    | TextBuggerConfig
    | BadCharactersConfig
    | TextFoolerConfig
    | PwwsConfig
    | BaeConfig
    | HotFlipConfig
    | PaddingConfig
    | TriggerWordsConfig
    | SplittingConfig
    | Base64Config
    | Rot13Config
    | SpellingOutConfig
)
"""The attacks that look for another class."""


def of_rows(key: str, make: Callable[[], tuple[str, ...]]) -> tuple[str, ...]:
    """Words or texts of the training rows. Raises ConfigError, from `.KEY: ` on, where there are none."""
    try:
        found = make()
    except ValueError as error:
        raise ConfigError([f".{key}: {error}"]) from error
    if not found:
        raise ConfigError([f".{key}: the training rows hold none. Leave this attack out, or train on more rows."])
    return found


def class_at(key: str, label: int | str | None, names: Sequence[str]) -> int:
    """See `class_id`; raises ConfigError from `.KEY ` on."""
    try:
        return class_id(str(label), names)
    except ConfigError as error:
        raise ConfigError([f".{key} {line}" for line in error.lines]) from error


def class_id(label: int | str, names: Sequence[str]) -> int:
    """The class that has this name, else the one of this number. Raises ConfigError where there is none."""
    text = str(label).strip()
    if text in names:
        return list(names).index(text)
    if text.isdecimal() and int(text) < len(names):
        return int(text)
    known = ", ".join(names[:10]) + ", ..." * (len(names) > 10)
    raise ConfigError([f"must be classes of the data ({known}) or their numbers from 0 on, got {label!r:.40}."])
