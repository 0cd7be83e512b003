"""The sections that say how the adversary of training edits texts, before it perturbs them or in place of that."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from textadv.config.adversary import AttackConfig
from textadv.config.edit_sources import EditSources
from textadv.config.edits import BreakingConfig, EditSection, class_at, of_rows
from textadv.config.mixing import MixingConfig
from textadv.config.types import ConfigError, Count, Distinct, Section, Text, checked

if TYPE_CHECKING:
    from textadv.attacks.edits import OneOf, PlantedWords, StochasticTokens, TextEdits, Typos

Part = Annotated[float, Field(gt=0, le=1)]
QUERIES = 64
DRAWN = ("typos", "planted_words", "stochastic_tokens", "one_of")


class TyposTraining(Section):
    """Typos of fingers, at random: no pass through the model."""

    name: Literal["typos"] = Field("typos", description="A swap, a letter less or more, a wrong key.")
    share: Part = Field(0.2, description="Share of a row's words that get one.")
    count: Literal["up to", "share"] = Field(
        "up to", description="up to: a share drawn for each row, from 0 to that; share: always that, one word at least."
    )
    kinds: Annotated[
        Distinct[
            Literal[
                "swap",
                "delete",
                "insert",
                "keyboard",
                "substitute",
                "space",
                "homoglyph",
                "invisible",
                "reorder",
                "backspace",
            ]
        ],
        Field(min_length=1),
    ] = Field(["swap", "delete", "insert", "keyboard"], description="Kinds of typos, one drawn for each word.")
    least: Count = Field(3, description="Letters of the shortest word that gets one.")
    inner: bool = Field(False, description="Leave first and last letters as they are.")

    def make(self, seed: int, sources: EditSources) -> Typos:
        """What edits the texts."""
        from textadv.attacks.edits import Typos

        return Typos(self.share, self.count, tuple(self.kinds), self.least, None, self.inner, seed)


class PlantedWordsTraining(Section):
    """Words that speak for a class, planted into texts of the others at random: no pass through the model."""

    name: Literal["planted_words"] = Field("planted_words", description="Words of the training rows of one class.")
    toward: int | Text = Field(description="The class, by name or number, whose words they are; its rows get none.")
    words: Count = Field(300, description="Words that are drawn from, those that speak most strongly for the class.")
    inserts: Count = Field(3, description="Words that a text gets, at most; from 1 on as many as drawn.")

    def make(self, seed: int, sources: EditSources) -> PlantedWords:
        """What edits the texts. Raises ConfigError where the training rows hold no such word."""
        from textadv.attacks.edits import PlantedWords, telling_words

        toward = class_at("toward", self.toward, sources.labels)
        words = of_rows("words", lambda: tuple(telling_words(sources.train, toward, self.words)))
        others = tuple(n for n in range(len(sources.labels)) if n != toward)
        return PlantedWords(words, self.inserts, others, seed)


class StochasticTokensTraining(Section):
    """The same text in other tokens of the vocabulary, at random: no pass through the model."""

    name: Literal["stochastic_tokens"] = Field(
        "stochastic_tokens", description="Tokens cut into smaller ones of the vocabulary."
    )
    rate: Part = Field(0.1, description="Chance that a token is cut in two; so are its parts.")

    def make(self, seed: int, sources: EditSources) -> StochasticTokens:
        """What edits the texts."""
        from textadv.attacks.edits import StochasticTokens

        return StochasticTokens(self.rate, seed)


def brief(data: object) -> object:
    """A search of training asks the model up to 64 times for a row where the file says nothing else."""
    asks = isinstance(data, dict) and data.get("name") not in DRAWN
    return {"queries": QUERIES, **data} if asks and isinstance(data, dict) else data


Each = TyposTraining | PlantedWordsTraining | BreakingConfig


class OneOfTraining(Section):
    """For each row one of several, drawn among those that edit rows of its class."""

    name: Literal["one_of"] = Field("one_of", description="One of several, drawn for each row in each step.")
    of: Annotated[
        list[Annotated[Annotated[Each, Field(discriminator="name")], BeforeValidator(brief)]],
        Field(min_length=2),
    ] = Field(description="The sections of these edits, two or more.")

    def make(self, seed: int, sources: EditSources) -> OneOf:
        """What edits the texts. Raises ConfigError as each of them does."""
        from textadv.attacks.edits import OneOf

        made = []
        for n, section in enumerate(self.of):
            try:
                made.append(section.make(seed, sources))
            except ConfigError as error:
                raise ConfigError([f".of[{n}]{line}" for line in error.lines]) from error
        return OneOf(tuple(made), seed)


EditsConfig = Annotated[
    Annotated[Each | StochasticTokensTraining | OneOfTraining, Field(discriminator="name")],
    BeforeValidator(brief),
]


class TextAttackConfig(AttackConfig):
    """How hard the adversary of training tries within the threat model, and how it edits the texts before."""

    name: Literal["pgd", "fgsm", "r_fgsm", "virtual_adversarial", "noise", "edits"] = Field(  # type: ignore[assignment]
        "pgd", description="The attack; edits: attack.edits alone, without a perturbation."
    )
    edits: EditsConfig | None = Field(
        None, description="Edits of the texts that the attack then perturbs, drawn anew in every step; null: none."
    )

    @property
    def perturbs(self) -> bool:
        return self.name != "edits"

    def editing(
        self, tokenizer: object, max_length: int, share: float, seed: int, sources: EditSources
    ) -> TextEdits | None:
        """The edits of the texts of `share` of the rows; None: there are none.

        Raises ConfigError or ModelError where a file that they need cannot be read, or the tokenizer does not do.
        """
        from textadv.attacks.edits import TextEdits

        if self.edits is None:
            return None
        try:
            editor = self.edits.make(seed, sources)
        except ConfigError as error:
            raise ConfigError([f"attack.edits{line}" for line in error.lines]) from error
        return TextEdits(editor, tokenizer, max_length, share, seed)

    @model_validator(mode="after")
    def _edited(self) -> TextAttackConfig:
        if self.perturbs or self.edits is not None:
            return self
        return checked(
            self,
            [
                "attack.name: edits trains on edited texts, and attack.edits is null. Set for example attack.edits: "
                "{name: typos}."
            ],
        )


class TextMixingConfig(MixingConfig):
    """How many rows are attacked, which, how far, and how many of them have their texts edited."""

    discrete: Part = Field(1.0, description="With attack.edits: share of the attacked rows whose texts are edited.")


def edits_problems(attack: TextAttackConfig, mixing: TextMixingConfig, objective: str, guarded: bool) -> list[str]:
    """What attack.edits does not allow elsewhere, one line each. guarded: whether there is a training.guard."""
    if attack.edits is None:
        if mixing.discrete == 1:
            return []
        return [
            f"mixing.discrete: {mixing.discrete} is the share of rows that attack.edits edits, which is null. Remove "
            "it, or set for example attack.edits: {name: typos}."
        ]
    several = attack.edits.of if isinstance(attack.edits, OneOfTraining) else [attack.edits]
    lines = [
        "attack.edits.rows samples the rows of an evaluation, and training edits those of each step. Set "
        "mixing.discrete instead."
        for one in several
        if isinstance(one, EditSection) and one.rows is not None
    ][:1]
    if objective == "clean":
        lines.append(
            "attack.edits does nothing with objective.name: clean, which attacks no row. To train on edited texts set "
            "objective.name: adversarial and attack.name: edits."
        )
    if objective == "free":
        lines.append(
            "attack.edits does not go with objective.name: free, which keeps the perturbation of a row's tokens over "
            "objective.replays. Set objective.name: adversarial or freelb."
        )
    if attack.perturbs:
        return lines
    if mixing.adaptive_radius is not None:
        lines.append("mixing.adaptive_radius does not go with attack.name: edits, which has no radius. Remove it.")
    if mixing.radius_schedule is not None:
        lines.append("mixing.radius_schedule does not go with attack.name: edits, which has no radius. Remove it.")
    if guarded:
        lines.append(
            "training.guard compares the attack of training with a stronger one in the same ball, and attack.name: "
            "edits has none. Set training.guard: null."
        )
    return lines
