"""The sections of prompts that a chat model's adversary begins from in training, before it perturbs them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

from pydantic import Field

from textadv.config.adversary import AttackConfig
from textadv.config.mixing import RatioConfig
from textadv.config.types import Count, Positive, Section, Text, Texts

if TYPE_CHECKING:
    from textadv.attacks.prompts.pool import Drawing
    from textadv.attacks.prompts.seeding import Source
    from textadv.data import ChatSplits
    from textadv.data.characters import Surrogates
    from textadv.data.paraphrases import Joined

SEEDS = "attack.seeds"
Part = Annotated[float, Field(gt=0, le=1)]


class SeedsSection(Section):
    """How the prompts of a behaviour are kept and drawn, wherever they come from."""

    name: str
    pool: Count = Field(8, description="Most prompts that are kept for a behaviour.")
    every: Count = Field(
        50, description="Optimizer steps after which the prompts of a behaviour are looked for and measured anew."
    )
    temperature: Positive = Field(
        1.0, description="Nats per token of the target by which a prompt is drawn e times less often than the best."
    )
    half_life: Count | None = Field(
        None,
        description="Optimizer steps after which a prompt that was searched for is drawn half as often, one of a file "
        "never; null: those of every.",
    )

    def drawing(self, seed: int) -> Drawing:
        """How one prompt of a behaviour is drawn."""
        from textadv.attacks.prompts.pool import Drawing

        return Drawing(self.temperature, self.half_life or self.every, seed)

    def join(self, splits: ChatSplits, surrogates: Surrogates = "error") -> Joined | None:
        """The prompts of files, of each training chat; None where none is read. Raises DataError."""
        return None

    def source(self, found: Mapping[int, Sequence[str]], seed: int) -> Source:
        """Where prompts come from. found: those of files, by the id of their behaviour."""
        raise NotImplementedError

    def lighter(self) -> SeedsSection:
        """The same with as little to search as there can be."""
        return self

    @property
    def tokens(self) -> int:
        """How many tokens a search adds to a prompt."""
        return 0


class FileSeeds(SeedsSection):
    """Prompts of any generator or attack, read from files: rows of an original and another prompt, or artefacts."""

    name: Literal["file"] = Field("file", description="Prompts from files.")
    file: Texts = Field(
        description="File path(s): csv, tsv, json, jsonl or parquet with a row for each prompt, or the JSON files of "
        "JailbreakBench (artefacts), HarmBench (test cases, completions) and AdversariaLLM (run.json)."
    )
    columns: dict[Literal["original", "paraphrase", "suffix"], Text] = Field(
        {}, description="Column of each, where its name is another than original_prompt, inpainted_prompt and suffix."
    )

    behaviours: Text | None = Field(
        None, description="Table of BehaviorID and Behavior, where files name behaviours by id; null: none."
    )

    def join(self, splits: ChatSplits, surrogates: Surrogates = "error") -> Joined:
        from textadv.data.artefacts.seeds import read_seeds
        from textadv.data.paraphrases import join_paraphrases

        paths = [self.file] if isinstance(self.file, str) else self.file
        columns = {str(role): name for role, name in self.columns.items()}
        read = read_seeds(paths, SEEDS, columns, self.behaviours, splits.train, surrogates)
        return join_paraphrases(read, splits, SEEDS, exact=True)

    def source(self, found: Mapping[int, Sequence[str]], seed: int) -> Source:
        from textadv.attacks.prompts.seeding import Listed

        return Listed(found)


class GcgSeeds(SeedsSection):
    """Suffixes that greedy coordinate gradient finds on the model as it is then, each going on from the best one."""

    name: Literal["gcg"] = Field("gcg", description="Suffixes of a search by gradients of tokens.")
    steps: Count = Field(20, description="Steps of one search, of which a behaviour has one each time it is renewed.")
    length: Count = Field(20, description="Tokens of the suffix.")
    width: Count = Field(128, description="Candidates that are drawn in each step.")
    top_k: Count = Field(256, description="Most promising tokens of each slot, which candidates are drawn from.")
    loss: Literal["ce", "cw", "mellowmax"] = Field(
        "ce", description="What is lowered: the target's mean loss, the mean of its margins, or its worst tokens."
    )
    momentum: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.0, description="Decay of the slopes gathered so far; 0: none."
    )
    norm_scale: Part = Field(1.0, description="What slopes are multiplied by at every layer norm; 1: nothing.")
    go_on: bool = Field(True, description="Begin a search from the behaviour's best suffix, not anew.")

    def source(self, found: Mapping[int, Sequence[str]], seed: int) -> Source:
        from textadv.attacks.prompts.gcg import Gcg
        from textadv.attacks.prompts.seeding import Searched

        keys = self.model_dump(include={"steps", "length", "width", "top_k", "loss", "momentum", "norm_scale"})
        return Searched(lambda number, init: Gcg(**keys, init=init, seed=number), self.go_on, seed)

    @property
    def tokens(self) -> int:
        return self.length

    def lighter(self) -> SeedsSection:
        return self.model_copy(update={"steps": 1, "width": 2, "top_k": 2})


SeedsConfig = Annotated[FileSeeds | GcgSeeds, Field(discriminator="name")]


class ChatAttackConfig(AttackConfig):
    """How hard the adversary of training tries within the threat model, and which prompts it begins from."""

    seeds: SeedsConfig | None = Field(
        None, description="Other prompts for the behaviours, on which the attack then runs; null: their own alone."
    )


class DiscreteConfig(RatioConfig):
    """How many rows are attacked, and how many of them ask with another prompt first."""

    discrete: Part = Field(1.0, description="With attack.seeds: share of the adversarial rows that ask with one.")


def seeds_problems(attack: ChatAttackConfig, mixing: DiscreteConfig) -> list[str]:
    """What attack.seeds does not allow elsewhere, one line each."""
    if attack.seeds is not None or mixing.discrete == 1:
        return []
    return [
        f"mixing.discrete: {mixing.discrete} is the share of rows that ask with a prompt of attack.seeds, which is "
        "null. Remove it, or set for example attack.seeds: {name: file, file: prompts.jsonl}."
    ]


def seeds_hashes(found: Joined | None) -> dict[str, str]:
    """SHA-256 of the prompts that were read, where there are some."""
    from textadv.values.digests import digest

    return {} if found is None else {SEEDS: digest([json.dumps(found.texts).encode()])}
