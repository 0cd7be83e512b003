"""Texts of every kind: each row has a status, with a reason where it is skipped, and nothing raises."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from tests.attacks.edits.toys import Sums, rows, tokenizer
from textadv.attacks.edits import (
    AnyOf,
    Base64,
    EditAttack,
    Genetic,
    Pad,
    RandomEdits,
    Rot13,
    SpellOut,
    Split,
    Status,
    Swarm,
    Synonyms,
    Victim,
    WordTable,
    bad_characters,
    deepwordbug,
    hotflip,
    input_reduction,
    pruthi,
    pwws,
    textbugger,
    textfooler,
    typos,
)
from textadv.models.victim import Asked

TABLE = WordTable("toy", {"good": ("fine", "nice"), "the": ("that",), "a": ("one",)})
TEXTS = {
    "empty": "",
    "blank": " \n\t ",
    "one letter": "a",
    "one sign": "!",
    "right to left": "فيلم جيّد جدًّا ومؤثر",
    "hebrew": "סרט טוב מאוד",
    "chinese": "这部电影真的很好看",
    "japanese": "とても良い映画でした",
    "emoji": "👍🏽 🎬 👩‍👩‍👧 🇫🇷",
    "marks": "e\u0301e\u0301 a\u0300",
    "stop words": "the and of it is not by",
    "half": "good \ud83d film",
    "special": "good [SEP] film [CLS]",
    "zeros": "good\x00film \u200b\u202e",
    "long word": "x" * 20_000,
    "ordinary": "A good film, with a plot.",
}
PRESETS: dict[str, Callable[..., EditAttack]] = {
    "deepwordbug": deepwordbug,
    "pruthi": pruthi,
    "textbugger": textbugger,
    "bad_characters": bad_characters,
    "textfooler": lambda **options: textfooler(TABLE, **options),
    "pwws": lambda **options: pwws(TABLE, **options),
    "hotflip": hotflip,
    "input_reduction": input_reduction,
    "encodings": lambda **options: EditAttack(
        AnyOf((Rot13(), Base64(), Split(), SpellOut(), Pad(("good",)))), RandomEdits(4), **options
    ),
}


def own() -> Victim:
    """All words unknown but a few; every token weighs something, so that every edit matters a little."""
    pieces = tokenizer(["good", "film", "plot"], letters=True)
    table = torch.zeros(len(pieces), 2, dtype=torch.float64)
    table[:, 1] = torch.rand(len(pieces), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    return Victim(Sums(table), pieces, max_length=24)


@pytest.mark.parametrize("name", PRESETS)
def test_every_kind_of_text_has_a_status(name: str) -> None:
    victim = own()
    examples = rows(*TEXTS.values())
    found = PRESETS[name](queries=60)(victim, examples)
    assert len(found) == len(TEXTS) and [row.id for row in found.rows] == list(range(len(TEXTS)))
    by = dict(zip(TEXTS, found.rows, strict=True))
    assert by["half"].status is Status.SKIPPED and "half of a character" in by["half"].reason
    assert by["empty"].status is by["blank"].status is Status.SKIPPED
    assert by["ordinary"].status is not Status.SKIPPED
    for row in found.rows:
        assert (row.status is Status.SKIPPED) <= bool(row.reason) and row.queries <= 60
        if row.after:
            assert victim.logits([Asked(row.edited)])[0].tolist() == pytest.approx(row.after, abs=1e-5)
            assert row.prediction == int(victim.logits([Asked(row.edited)])[0].argmax())
    if name not in ("bad_characters", "input_reduction", "encodings"):
        assert by["stop words"].reason == "the constraints leave no word to edit"


@pytest.mark.parametrize("name", ["deepwordbug", "bad_characters", "hotflip", "input_reduction"])
def test_ten_thousand_words(name: str) -> None:
    (row,) = PRESETS[name](queries=12)(own(), rows("good film " * 5_000)).rows
    assert row.status is (Status.SUCCEEDED if name == "input_reduction" else Status.FAILED)
    assert row.reason == "out of queries" and row.words == 10_000
    assert row.queries <= 12


def test_a_row_that_is_wrong_and_one_of_another_class_are_skipped() -> None:
    found = deepwordbug()(own(), rows("good film", label=0))
    assert found.rows[0].reason == "the model is wrong about it already" and found.robust == (False,)
    spec = deepwordbug()
    spec = EditAttack(spec.transformation, spec.search, spec.constraints, labels=(0,))
    assert spec(own(), rows("good film")).rows[0].reason == "rows of class 1 are not attacked"


def test_logits_that_are_no_numbers_are_told_and_never_win() -> None:
    victim = own()
    model = victim.model
    assert isinstance(model, Sums)
    with torch.no_grad():
        model.embeddings.weight[victim.tokenizer.convert_tokens_to_ids("plot")] = float("nan")
    assert deepwordbug()(victim, rows("plot")).rows[0].reason == "the model's logits are not finite"
    table = WordTable("toy", {"good": ("plot",)})
    (row,) = textfooler(table)(victim, rows("good film")).rows
    assert row.status is Status.FAILED and row.edited == "good film"


def test_a_population_of_texts_without_a_number_ends() -> None:
    victim = own()
    model = victim.model
    assert isinstance(model, Sums)
    with torch.no_grad():
        model.embeddings.weight[victim.tokenizer.convert_tokens_to_ids("plot")] = float("nan")
    table = WordTable("toy", {"good": ("plot",)})
    for search in (Genetic(4, 2), Swarm(4, 2)):
        (row,) = EditAttack(Synonyms(table), search)(victim, rows("good")).rows
        assert row.status is Status.FAILED and row.edited == "good"


def test_typos_of_every_kind_of_text() -> None:
    examples = rows(*TEXTS.values())
    found = typos(1.0)(examples)
    assert found.labels == examples.labels and found.ids == examples.ids
    assert found.texts[0] == "" and found.texts[3] == "!"
