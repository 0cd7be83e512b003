"""Presets have the published settings, leave the papers where they say, print themselves and are known by all of it."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest
import torch
from torch import nn

from tests.attacks.edits.test_constraints import encoder
from tests.attacks.edits.toys import rows, tokenizer, victim
from textadv.attacks.edits import (
    AnyOf,
    Beam,
    ChangedWords,
    EditAttack,
    EditDistance,
    Genetic,
    Greedy,
    Letter,
    LongWords,
    MaskedModel,
    MaskedWords,
    NotStopWords,
    NotTwice,
    OwnNeighbours,
    Passage,
    Similarity,
    Status,
    Synonyms,
    WordTable,
    bad_characters,
    bae,
    deepwordbug,
    hotflip,
    input_reduction,
    pruthi,
    pwws,
    textbugger,
    textfooler,
)

TABLE = WordTable("toy", {"good": ("fine", "nice", "bad"), "film": ("movie",)})
WORDS = ("loud", "clear", "strong")
WEIGHTS = {"good": 3.0, "fine": 1.0, "nice": 0.5, "bad": -2.0, "film": 0.5, "movie": 0.3, "the": 0.2}


def parts(attack: EditAttack) -> tuple[object, ...]:
    assert isinstance(attack.transformation, AnyOf)
    return attack.transformation.parts


def test_deepwordbug_tries_one_of_each_edit() -> None:
    attack = deepwordbug()
    assert [part.kind for part in parts(attack) if isinstance(part, Letter)] == [
        "swap",
        "substitute",
        "delete",
        "insert",
    ]
    assert attack.search == Greedy("unk")
    assert attack.constraints == (NotTwice(), NotStopWords(), EditDistance(30))
    (row,) = attack(victim(WEIGHTS), rows("the good film")).rows
    # One query for the row, one for each word that is no stop word, four of the first.
    assert row.status is Status.SUCCEEDED or row.queries >= 7
    assert row.edited.split()[0] == "the" and row.edited.split()[1] != "good"


def test_pruthi_changes_one_long_word_inside() -> None:
    attack = pruthi()
    assert attack.search == Beam(1, steps=1) and {LongWords(4), ChangedWords(most=1), NotStopWords()} <= set(
        attack.constraints
    )
    assert [part.kind for part in parts(attack) if isinstance(part, Letter)] == ["swap", "delete", "insert", "keyboard"]
    # One drawn letter for each of the three gaps that are inside.
    assert len(Letter("insert", "places", inner=True).words("good", Random(0))) == 3
    (row,) = pruthi(words=2)(victim(WEIGHTS), rows("the good film")).rows
    old = Passage.of("the good film").original
    new = Passage.of(row.edited).original
    assert all(a[0] == b[0] and a[-1] == b[-1] for a, b in zip(old, new, strict=True))


def test_textbugger_has_its_five_bugs_and_may_have_an_encoder() -> None:
    attack = textbugger(TABLE, encoder())
    assert [getattr(part, "kind", None) for part in parts(attack)] == ["space", "delete", "swap", "homoglyph", None]
    assert parts(attack)[-1] == Synonyms(TABLE, 5) and parts(textbugger())[-1] == OwnNeighbours(5)
    assert attack.search == Greedy("delete")
    similar = attack.constraints[-1]
    assert isinstance(similar, Similarity) and (similar.least, similar.window, similar.angular) == (0.8, None, False)
    assert not any(isinstance(one, Similarity) for one in textbugger(TABLE).constraints)


def test_textbugger_puts_spaces_into_short_words_and_swaps_in_long_ones() -> None:
    """arXiv:1812.05271, section III-B: a space below 6 letters, a swap above 4."""
    space, delete, swap = (part for part in parts(textbugger()) if isinstance(part, Letter) and part.inner)
    told = {word: [len(part.words(word, Random(0))) for part in (space, delete, swap)] for word in WORDS}
    assert told == {"loud": [1, 1, 0], "clear": [1, 1, 1], "strong": [0, 1, 1]}


def test_bad_characters_changes_what_readers_do_not_see() -> None:
    attack = bad_characters(perturbations=2)
    assert attack.search == Genetic(32, 10) and ChangedWords(most=2) in attack.constraints
    kinds = [part.kind for part in parts(attack) if isinstance(part, Letter)]
    assert kinds == ["homoglyph", "invisible", "reorder", "backspace"]
    (row,) = attack(victim(WEIGHTS | {"the": -0.2}), rows("the good film")).rows
    assert row.changed <= 2 and row.status is Status.SUCCEEDED


def test_textfooler_takes_fifty_synonyms_by_importance() -> None:
    attack = textfooler(TABLE, encoder())
    assert attack.transformation == Synonyms(TABLE, 50) and attack.search == Greedy("delete")
    similar = attack.constraints[-1]
    assert isinstance(similar, Similarity) and (similar.window, similar.angular) == (15, True)
    assert similar.least == pytest.approx(0.840845057) and similar.least_short == 0.1
    (row,) = textfooler(TABLE)(victim(WEIGHTS), rows("the good film")).rows
    # Of the candidates for the word that counts most the one with the largest margin, not the first that would do.
    assert row.edited == "the bad film" and row.status is Status.SUCCEEDED


def test_textfooler_compares_with_the_original_around_all_changes() -> None:
    """Of the axes 1, 1 and 3 one changed is a cosine of 10/11, angular 0.86, and both are 9/11, 0.80; compared with the
    text as substituted so far the second would have 10/11 as well. Below 15 words 0.1 is enough."""
    weights = {"good": 1.0, "fine": 0.9, "film": 1.0, "bad": 0.9, "long": 3.0, "plot": 0.1}
    table = WordTable("toy", {"good": ("fine",), "film": ("bad",)})
    attack = textfooler(table, encoder())
    (row,) = attack(victim(weights), rows(f"good {'long ' * 3}{'x ' * 10}film")).rows
    assert row.changed == 1, row.edited
    (row,) = attack(victim(weights), rows("good film")).rows
    assert row.edited == "fine bad"


def test_pwws_orders_words_by_saliency_times_gain() -> None:
    """`long` counts most and no synonym of it gains anything; `good` is therefore changed first."""
    weights = {"long": 5.0, "tall": 4.9, "good": 3.0, "bad": -9.0}
    table = WordTable("toy", {"long": ("tall",), "good": ("bad",)})
    attack = pwws(table)
    assert attack.search == Greedy("weighted") and attack.constraints == (NotTwice(), NotStopWords())
    (row,) = attack(victim(weights), rows("long good")).rows
    assert row.edited == "long bad"


def test_pwws_chooses_on_the_text_as_it_stands_and_takes_what_gains() -> None:
    """`bad` is better than `dull` alone, and beside `awful` worse: by the paper the text would be `bad awful`."""
    table = WordTable("toy", {"good": ("bad", "dull"), "film": ("awful",), "plot": ("tale",)})
    weights = {"good": 9.0, "film": 9.5, "plot": 1.0, "bad": 1.0, "dull": 1.1, "awful": 1.0, "tale": 2.0}
    own = victim(weights)
    own = replace(own, model=Beside(own.model, own.tokenizer.convert_tokens_to_ids(["bad", "awful"])))
    (row,) = pwws(table)(own, rows("good film plot")).rows
    assert row.edited == "dull awful plot"


class Beside(nn.Module):
    """The model, and where both of these tokens are in a text 5 more for class 1."""

    def __init__(self, model: nn.Module, tokens: list[int]) -> None:
        super().__init__()
        self.model, self.tokens = model, tokens

    def forward(self, input_ids: torch.Tensor, **inputs: torch.Tensor) -> torch.Tensor:
        logits = self.model(input_ids=input_ids, **inputs)
        both = torch.stack([(input_ids == token).any(dim=1) for token in self.tokens]).all(dim=0)
        return logits + torch.stack([torch.zeros_like(both), both], dim=1) * 5.0


class Fills(nn.Module):
    """Says for every place what the last word before it says: a table (V, V) of logits by the token before."""

    def __init__(self, table: torch.Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, input_ids: torch.Tensor, **_: torch.Tensor) -> object:
        before = input_ids.roll(1, dims=1)
        return type("Output", (), {"logits": self.table[before]})


def masked() -> MaskedModel:
    """After `the` it expects bad 0.6, fine 0.3 and a piece of a word 0.1."""
    own = tokenizer(list(WEIGHTS), letters=True)
    own.add_special_tokens({"mask_token": "[MASK]"})
    table = torch.full((len(own), len(own)), -30.0)
    ids = own.convert_tokens_to_ids(["bad", "fine", "##x"])
    table[own.convert_tokens_to_ids("the"), torch.tensor(ids)] = torch.tensor([0.6, 0.3, 0.1]).log()
    return MaskedModel("toy", "0", Fills(table), own)


def test_bae_takes_what_a_masked_model_finds_likely() -> None:
    model = masked()
    assert [word for word, _ in model.fill([("the ", " film")], 2)[0]] == ["bad", "fine"]
    attack = bae(model, encoder())
    assert attack.transformation == MaskedWords(model, 50) and attack.search == Greedy("delete")
    similar = attack.constraints[-1]
    assert isinstance(similar, Similarity) and (similar.window, similar.least) == (15, pytest.approx(0.936338023))
    assert similar.least_short == 0.1
    (row,) = bae(model)(victim(WEIGHTS), rows("the good film")).rows
    assert row.edited == "the bad film"
    # Either breaks the row; the one with the larger margin comes back, likely or not.
    (row,) = bae(model)(victim(WEIGHTS | {"fine": -3.0}), rows("the good film")).rows
    assert row.edited == "the fine film"
    least = EditAttack(MaskedWords(model, 50, least=0.5), Greedy("delete"))
    (row,) = least(victim(WEIGHTS | {"bad": 2.9}), rows("the good")).rows
    assert row.edited == "the bad"
    (row,) = EditAttack(MaskedWords(model, 1, insert=True), Beam(1, 1), (ChangedWords(most=1),))(
        victim(WEIGHTS), rows("the good")
    ).rows
    assert row.edited == "the bad good"


def test_hotflip_flips_to_the_token_with_the_steepest_gradient() -> None:
    attack = hotflip()
    assert attack.search == Beam(10, steps=2) and ChangedWords(most=2) in attack.constraints
    (row,) = attack(victim(WEIGHTS, letters=True), rows("good film")).rows
    assert "bad" in row.edited.split() and row.slopes >= 1


def test_input_reduction_keeps_the_class_with_few_words() -> None:
    attack = input_reduction()
    assert attack.search == Beam(5) and attack.constraints == ()
    (row,) = attack(victim(WEIGHTS | {"dull": -1.0}), rows("the good film dull nice")).rows
    assert row.edited.split() == ["good"] and row.prediction == 1 and row.status is Status.SUCCEEDED


def test_an_attack_prints_itself_and_is_known_by_all_of_it() -> None:
    attack = textfooler(TABLE, queries=100)
    text = str(attack)
    assert text.splitlines()[0] == f"textfooler ({attack.identity[:12]})"
    for line in ("Misclassify()", "Synonyms(table='toy', count=50)", "Greedy()", "at most 100 a row"):
        assert line in text
    others = [
        replace(attack, seed=1),
        replace(attack, queries=None),
        replace(attack, constraints=()),
        replace(attack, search=Greedy("unk")),
        replace(attack, transformation=Synonyms(WordTable("toy", {"good": ("fine",)}), 50)),
        textfooler(TABLE, encoder(), queries=100),
    ]
    assert len({attack.identity, *(other.identity for other in others)}) == 7
    assert textfooler(TABLE, queries=100).identity == attack.identity
    assert replace(attack, together=3).identity == attack.identity, "rows side by side change no result"
