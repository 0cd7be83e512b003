"""The sections that say how the adversary of training edits texts, before it perturbs them or in place of that."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field, model_validator

from textadv.config.adversary import AttackConfig
from textadv.config.mixing import MixingConfig
from textadv.config.types import Count, Distinct, Section, Text, checked

if TYPE_CHECKING:
    from textadv.attacks.edits import EditAttack, StochasticTokens, TextEdits, TextEncoder, Typos, WordTable

Part = Annotated[float, Field(gt=0, le=1)]
TABLE = "Synonyms: a .json of word -> list of words, or lines of words between tabs."
ENCODER = Field(None, description="Folder of an encoder that holds the texts similar; null: none does.")


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

    def make(self, seed: int) -> Typos:
        """What edits the texts."""
        from textadv.attacks.edits import Typos

        return Typos(self.share, self.count, tuple(self.kinds), self.least, None, self.inner, seed)


class StochasticTokensTraining(Section):
    """The same text in other tokens of the vocabulary, at random: no pass through the model."""

    name: Literal["stochastic_tokens"] = Field(
        "stochastic_tokens", description="Tokens cut into smaller ones of the vocabulary."
    )
    rate: Part = Field(0.1, description="Chance that a token is cut in two; so are its parts.")

    def make(self, seed: int) -> StochasticTokens:
        """What edits the texts."""
        from textadv.attacks.edits import StochasticTokens

        return StochasticTokens(self.rate, seed)


class SearchTraining(Section):
    """What every search for edits that break the model has beside its keys."""

    name: str
    queries: Count | None = Field(
        64, description="Most texts that go through the model for one row in one optimizer step; null: no limit."
    )
    share: Part | None = Field(None, description="Most words that are changed, as share of the row's; null: no limit.")

    def make(self, seed: int) -> EditAttack:
        """What edits the texts. Raises DataError or ModelError where a file that it needs cannot be read."""
        from textadv.attacks.edits import ChangedWords

        attack = self._preset(seed)
        if self.share is None:
            return attack
        return replace(attack, constraints=(*attack.constraints, ChangedWords(share=self.share)))

    def _preset(self, seed: int) -> EditAttack:
        raise NotImplementedError


class DeepWordBugTraining(SearchTraining):
    """DeepWordBug (arXiv:1801.04354)."""

    name: Literal["deepwordbug"] = Field("deepwordbug", description="One letter of the most important words.")

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import deepwordbug

        return deepwordbug(queries=self.queries, seed=seed)


class PruthiTraining(SearchTraining):
    """Typos inside of words (arXiv:1905.11268)."""

    name: Literal["pruthi"] = Field("pruthi", description="The worst typos inside of a few words.")
    words: Count = Field(1, description="Words that are changed.")

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import pruthi

        return pruthi(words=self.words, queries=self.queries, seed=seed)


class TextBuggerTraining(SearchTraining):
    """TextBugger (arXiv:1812.05271)."""

    name: Literal["textbugger"] = Field(
        "textbugger", description="Letters of the most important words, or a near word."
    )
    table: Text | None = Field(None, description=f"{TABLE} null: near words of the model's own embeddings.")
    encoder: Text | None = ENCODER

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import textbugger

        table = None if self.table is None else _table(self.table)
        return textbugger(table, _encoder(self.encoder), queries=self.queries, seed=seed)


class BadCharactersTraining(SearchTraining):
    """Edits that readers do not see (arXiv:2106.09898)."""

    name: Literal["bad_characters"] = Field(
        "bad_characters", description="Look-alikes, signs without width, reordered and deleted ones."
    )
    words: Count = Field(1, description="Words that are changed.")

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import bad_characters

        return bad_characters(perturbations=self.words, queries=self.queries, seed=seed)


class HotFlipTraining(SearchTraining):
    """HotFlip on words (arXiv:1712.06751)."""

    name: Literal["hotflip"] = Field("hotflip", description="Words flipped by the gradient; needs a fast tokenizer.")
    words: Count = Field(2, description="Words that are changed.")

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import hotflip

        return hotflip(words=self.words, queries=self.queries, seed=seed)


class TextFoolerTraining(SearchTraining):
    """TextFooler (arXiv:1907.11932)."""

    name: Literal["textfooler"] = Field("textfooler", description="The most important words replaced by synonyms.")
    table: Text = Field(description=TABLE)
    encoder: Text | None = ENCODER

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import textfooler

        return textfooler(_table(self.table), _encoder(self.encoder), queries=self.queries, seed=seed)


class PwwsTraining(SearchTraining):
    """PWWS (ACL 2019, P19-1103)."""

    name: Literal["pwws"] = Field("pwws", description="Words replaced by WordNet synonyms, by saliency times gain.")
    wordnet: Text = Field(description="Folder with WordNet's database files (data.noun, ...).")

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import pwws, read_wordnet

        return pwws(read_wordnet(self.wordnet), queries=self.queries, seed=seed)


class BaeTraining(SearchTraining):
    """BAE-R (arXiv:2004.01970)."""

    name: Literal["bae"] = Field("bae", description="Words replaced by what a masked language model finds likely.")
    masked_lm: Text = Field(description="Folder or Hub id of the masked language model.")
    encoder: Text | None = ENCODER

    def _preset(self, seed: int) -> EditAttack:
        from textadv.attacks.edits import bae, load_masked_model

        return bae(load_masked_model(self.masked_lm), _encoder(self.encoder), queries=self.queries, seed=seed)


def _table(path: str) -> WordTable:
    from textadv.attacks.edits import read_synonyms

    return read_synonyms(path)


def _encoder(folder: str | None) -> TextEncoder | None:
    from textadv.attacks.edits import load_text_encoder

    return None if folder is None else load_text_encoder(folder)


EditsConfig = Annotated[
    TyposTraining
    | StochasticTokensTraining
    | DeepWordBugTraining
    | PruthiTraining
    | TextBuggerTraining
    | BadCharactersTraining
    | HotFlipTraining
    | TextFoolerTraining
    | PwwsTraining
    | BaeTraining,
    Field(discriminator="name"),
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

    def editing(self, tokenizer: object, max_length: int, share: float, seed: int) -> TextEdits | None:
        """The edits of the texts of `share` of the rows; None: there are none.

        Raises DataError or ModelError where a file that they need cannot be read, or the tokenizer does not do.
        """
        from textadv.attacks.edits import TextEdits

        if self.edits is None:
            return None
        return TextEdits(self.edits.make(seed), tokenizer, max_length, share, seed)

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
    lines = []
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
