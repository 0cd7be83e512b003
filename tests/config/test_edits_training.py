"""The sections attack.edits and mixing.discrete: what they make, and in one sentence each what they refuse."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tests import edited
from tests.config_sample import chat_problems, image_problems, problems, small
from textadv.attacks import AdaptiveRadius, Diverge, GradientAttack, Untargeted
from textadv.attacks.edits import EditAttack, OneOf, PlantedWords, StochasticTokens, TextEdits, Typos
from textadv.attacks.wrappers.edited import OnEdited
from textadv.config.edit_sources import EditSources
from textadv.config.edits_training import EditsConfig
from textadv.config.types import ConfigError
from textadv.objectives import Adversarial, FreeLB, WeightPerturbation
from textadv.objectives.regularised import Consistency

OWN = edited.reader()
SOURCES = EditSources(edited.examples(40), ("good", "bad"))
TYPOS = "attack.edits={name: typos}"


def made(*overrides: str) -> Any:
    """The objective of a run with these overrides."""
    config = small(*overrides)
    edits = config.attack.editing(OWN, 24, config.mixing.discrete, config.seed, SOURCES)
    return config.objective.make(config.attack, config.threat.make(), config.seed, config.mixing, edits)


def test_edits_come_before_the_perturbation() -> None:
    objective = made(TYPOS, "mixing.discrete=0.5", "seed=3")
    assert isinstance(objective, Adversarial) and isinstance(objective.attack, OnEdited)
    edits, ascent = objective.attack.edits, objective.attack.attack
    assert isinstance(edits, TextEdits) and isinstance(ascent, GradientAttack)
    assert edits == TextEdits(Typos(seed=3), OWN, 24, 0.5, 3)
    assert objective.attack.goal == Untargeted()


def test_without_a_perturbation_the_attack_is_the_edits() -> None:
    objective = made("attack.name=edits", TYPOS)
    assert isinstance(objective, Adversarial) and isinstance(objective.attack, TextEdits)
    assert objective.attack.share == 1


def test_every_objective_gets_the_edits() -> None:
    trades = made(TYPOS, "objective.name=trades")
    assert isinstance(trades, Consistency) and isinstance(trades.attack, OnEdited)
    assert isinstance(trades.attack.goal, Diverge)
    freelb = made(TYPOS, "objective.name=freelb")
    assert isinstance(freelb, FreeLB) and isinstance(freelb.edits, TextEdits)
    awp = made(TYPOS, "objective={name: adversarial, weight_perturbation: 0.01}")
    assert isinstance(awp, WeightPerturbation) and isinstance(awp.attack, OnEdited)
    adaptive = made(TYPOS, "mixing.adaptive_radius={}")
    assert isinstance(adaptive.attack, OnEdited) and isinstance(adaptive.attack.attack, AdaptiveRadius)
    staged = made(TYPOS, "attack.steps_schedule={0: 1, 5: 3}")
    assert isinstance(staged.attack, OnEdited)
    assert made("attack.steps=2").attack.steps == 2


# The keys of attack.edits, and what they must make, as it prints itself in part.
SECTIONS: dict[str, tuple[str, tuple[str, ...]]] = {
    "typos": (
        "share: 0.4, count: share, kinds: [swap, space], least: 2, inner: true",
        ("0.4", "'swap', 'space'", "least=2"),
    ),
    "stochastic_tokens": ("rate: 0.3", ("rate=0.3",)),
    "planted_words": ("toward: bad, inserts: 2, words: 1", ("PlantedWords(1 words, inserts=2, labels=(0,)",)),
    "deepwordbug": ("queries: 9, share: 0.25", ("at most 9 a row", "ChangedWords(share=0.25)", "EditDistance")),
    "pruthi": ("words: 2", ("at most 64 a row", "steps=2")),
    "textbugger": ("queries: null, table: TABLE", ("no limit", "Synonyms")),
    "bad_characters": ("words: 3", ("ChangedWords(most=3)",)),
    "hotflip": ("words: 3", ("GradientWords", "steps=3")),
    "textfooler": ("table: TABLE", ("Synonyms(", "table.json")),
    "pwws": ("wordnet: WORDNET", ("Greedy(importance='weighted')",)),
    "padding": ("of: good, labels: [bad]", ("padding", "at most 64 a row", "rows            of class 1")),
    "trigger_words": ("toward: bad, queries: 5", ("at most 5 a row", "'tedious'", "rows            of class 0")),
    "splitting": ("parts: [3]", ("Split(parts=3)",)),
    "base64": ("labels: [1]", ("Base64", "rows            of class 1")),
    "rot13": ("queries: 3", ("Rot13", "at most 3 a row")),
    "spelling_out": ("queries: 3", ("SpellOut",)),
    "one_of": (
        "of: [{name: typos, share: 0.4}, {name: base64, labels: [bad]}]",
        ("Typos(share=0.4", "Base64", "queries=64", "labels=(1,)"),
    ),
}


def place(text: str, folder: Path) -> str:
    (folder / "table.json").write_text('{"good": ["fine"]}')
    (folder / "data.noun").write_text("00001740 03 n 02 entity 0 thing 0 000 | that which is\n")
    return text.replace("TABLE", str(folder / "table.json")).replace("WORDNET", str(folder))


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_makes_its_editor(name: str, tmp_path: Path) -> None:
    keys, expected = SECTIONS[name]
    config = small(f"attack.edits={{name: {name}, {place(keys, tmp_path)}}}", "seed=5")
    assert config.attack.edits is not None
    editor = config.attack.edits.make(5, SOURCES)
    told = str(editor)
    assert [part for part in expected if place(part, tmp_path) not in told] == []
    assert isinstance(editor, Typos | PlantedWords | StochasticTokens | EditAttack | OneOf) and editor.seed == 5


def test_every_section_is_tried() -> None:
    sections = get_args(get_args(EditsConfig)[0])
    names = {section.model_fields["name"].default for section in sections}
    # Its masked language model is tried in the tests of presets.
    assert names == {*SECTIONS, "bae"}


def test_a_missing_file_is_told_when_the_run_is_made_ready() -> None:
    for keys, told in (
        ("textfooler, table: nowhere.json", "attack.edits.table: The synonym table nowhere.json cannot be read"),
        ("pwws, wordnet: nowhere", "attack.edits.wordnet: nowhere holds none of WordNet's files"),
        ("bae, masked_lm: ./nowhere", "attack.edits.masked_lm: .*nowhere"),
    ):
        config = small(f"attack.edits={{name: {keys}}}")
        with pytest.raises(ConfigError, match=told):
            config.attack.editing(OWN, 24, 1.0, 0, SOURCES)


REFUSED: dict[str, tuple[list[str], str]] = {
    "nothing to edit by": (
        ["attack.name=edits"],
        "attack.name: edits trains on edited texts, and attack.edits is null.",
    ),
    "a share of nothing": (
        ["mixing.discrete=0.5"],
        "mixing.discrete: 0.5 is the share of rows that attack.edits edits",
    ),
    "no share": ([TYPOS, "mixing.discrete=0"], "mixing.discrete must be greater than 0, got 0."),
    "more than all": ([TYPOS, "mixing.discrete=1.5"], "mixing.discrete must be at most 1, got 1.5."),
    "plain": ([TYPOS, "objective.name=clean"], "attack.edits does nothing with objective.name: clean"),
    "free": ([TYPOS, "objective.name=free", "attack.steps=1"], "attack.edits does not go with objective.name: free"),
    "freelb on edits alone": (
        [TYPOS, "attack.name=edits", "objective.name=freelb"],
        "objective.name: freelb needs attack.name: pgd, got edits.",
    ),
    "a price on edits alone": (
        [TYPOS, "attack.name=edits", "objective.name=distributional"],
        "objective.name: distributional needs attack.name: pgd, got edits.",
    ),
    "noise on edits alone": (
        [TYPOS, "attack.name=edits", "objective.name=r3f"],
        "objective.name: r3f needs attack.name: noise, got edits.",
    ),
    "a radius of edits": (
        [TYPOS, "attack.name=edits", "mixing.adaptive_radius={}"],
        "mixing.adaptive_radius does not go with attack.name: edits",
    ),
    "a schedule of edits": (
        [TYPOS, "attack.name=edits", "mixing.radius_schedule={start: 0.5, end: 1, steps: 3, kind: linear}"],
        "mixing.radius_schedule does not go with attack.name: edits",
    ),
    "a guard of edits": (
        [TYPOS, "attack.name=edits", "training.guard={}"],
        "training.guard compares the attack of training with a stronger one in the same ball",
    ),
    "steps of edits": (
        [TYPOS, "attack.name=edits", "attack.steps=3"],
        "attack.steps does not apply to attack.name: ed",
    ),
    "a goal of edits": (
        [TYPOS, "attack.name=edits", "attack.goal=margin"],
        "attack.goal does not apply to attack.name: edits, got margin.",
    ),
    "rows of an evaluation": (
        ["attack.edits={name: rot13, rows: 5}"],
        "attack.edits.rows samples the rows of an evaluation",
    ),
    "rows of an evaluation, of one": (
        ["attack.edits={name: one_of, of: [{name: typos}, {name: rot13, rows: 5}]}"],
        "attack.edits.rows samples the rows of an evaluation",
    ),
    "one of one": (["attack.edits={name: one_of, of: [{name: typos}]}"], "attack.edits.of must hold at least 2, got"),
    "tokens of one": (
        ["attack.edits={name: one_of, of: [{name: typos}, {name: stochastic_tokens}]}"],
        "attack.edits.of[1].name must be one of",
    ),
    "an unknown editor": (["attack.edits={name: typo}"], "attack.edits.name must be one of 'typos'"),
    "no name": (["attack.edits={share: 0.5}"], "attack.edits.name is missing"),
    "no table": (["attack.edits={name: textfooler}"], "attack.edits.table is missing"),
    "no word": (["attack.edits={name: typos, share: 0}"], "attack.edits.share must be greater than 0, got 0."),
    "no kind": (["attack.edits={name: typos, kinds: []}"], "attack.edits.kinds must not be empty"),
    "an unknown kind": (["attack.edits={name: typos, kinds: [flip]}"], "attack.edits.kinds[0] must be 'swap'"),
    "no query": (["attack.edits={name: pruthi, queries: 0}"], "attack.edits.queries must be at least 1, got 0."),
    "a key of another": (
        ["attack.edits={name: typos, queries: 5}"],
        "unknown key attack.edits.queries in the override",
    ),
    "edits that choose": (
        ["selection.attack.edits={name: typos}"],
        "unknown key selection.attack.edits in the override",
    ),
    "edits in the panel": (["evaluation.attacks.a={name: edits}"], "evaluation.attacks.a.name must be one of"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_does_not_go_is_told_in_one_sentence(case: str) -> None:
    overrides, told = REFUSED[case]
    lines = problems(*overrides)
    assert len(lines) == 1 and lines[0].startswith(told), lines


def test_images_and_chats_have_no_such_keys() -> None:
    for told in (image_problems, chat_problems):
        assert all("attack.edits" in line for line in told(TYPOS))
        assert "attack.name must be 'pgd'" in told("attack.name=edits")[0]
