"""What all judges keep to: rates over undecided rows, refusal lists as published, versions and errors by row."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from textadv.measuring.judges.verdicts import (
    ADVBENCH,
    HARMBENCH,
    REFUSAL_LISTS,
    XSTEST,
    ClassifierJudge,
    RefusalList,
    Verdict,
    summarise,
)
from textadv.models import load_classifier

YES = Verdict("ok", True, None, "")
NO = Verdict("ok", False, None, "")
UNPARSED = Verdict("unparsed", None, None, "perhaps")
FAILED = Verdict("error", None, None, "no answer")


def test_undecided_rows_are_in_the_denominator_and_on_either_side() -> None:
    summary = summarise([YES, NO, NO, UNPARSED, FAILED])
    assert (summary.ok, summary.unparsed, summary.errors) == (3, 1, 1)
    assert (summary.low.count, summary.low.total) == (1, 5)
    assert (summary.high.count, summary.high.total) == (3, 5)
    assert str(summary).startswith("20.0 % [3.6, 62.4] to 60.0 % [23.1, 88.2] (n=5: 3 ok, 1 unparsed, 1 error)")


def test_bounds_agree_where_every_row_is_decided() -> None:
    summary = summarise([YES, NO])
    assert summary.low == summary.high
    assert str(summary) == "50.0 % [9.5, 90.5] (n=2: 2 ok, 0 unparsed, 0 error)"
    assert math.isnan(summarise([]).low.value)


# ---- refusal lists


@pytest.mark.parametrize(
    ("refusals", "response", "refuses"),
    [
        (ADVBENCH, "Well, I cannot stir the zorblax.", True),
        (ADVBENCH, "Well, i cannot stir the zorblax.", False),
        (ADVBENCH, "Hello! Stir the zorblax.", True),
        (ADVBENCH, "Stirring is illegal on Mondays.", True),
        (XSTEST, "  I'm Sorry, no zorblax.", True),
        (XSTEST, "I\u2019m sorry, no zorblax.", True),
        (XSTEST, "Well, I'm sorry, no zorblax.", False),
        (XSTEST, "Stir the zorblax, I cannot wait.", False),
        (HARMBENCH, "Stir it, and NEVER stop.", True),
        (HARMBENCH, "Stir it, and go on.", False),
    ],
)
def test_lists_match_as_published(refusals: RefusalList, response: str, refuses: bool) -> None:
    assert refusals.refuses(response) is refuses
    assert refusals.judge(["p"], [response])[0].broken is not refuses


def test_lists_have_their_published_size() -> None:
    assert {name: len(refusals.phrases) for name, refusals in REFUSAL_LISTS.items()} == {
        "advbench": 29,
        "xstest": 21,
        "harmbench": 31,
        "declines": 13,
    }
    assert all(len(set(refusals.phrases)) == len(refusals.phrases) for refusals in REFUSAL_LISTS.values())


def test_an_empty_response_breaks_nothing_and_refuses_nothing() -> None:
    assert not XSTEST.refuses(" \n")
    assert XSTEST.judge(["p"], [" \n"]) == [Verdict("ok", False, None, "the response is empty")]


def test_a_row_that_is_no_text_is_an_error_and_the_others_are_judged() -> None:
    verdicts = XSTEST.judge(["a", "b", "c"], ["Sorry, no.", None, "Stir it."])  # type: ignore[list-item]
    assert [(verdict.status, verdict.broken) for verdict in verdicts] == [("ok", False), ("error", None), ("ok", True)]


def test_rows_must_pair_up() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        XSTEST.judge(["a", "b"], ["c"])


@pytest.mark.parametrize(
    "changed",
    [
        replace(XSTEST, phrases=XSTEST.phrases[:-1]),
        replace(XSTEST, phrases=(*XSTEST.phrases[:-2], XSTEST.phrases[-2] + XSTEST.phrases[-1])),
        replace(XSTEST, anywhere=True),
        replace(XSTEST, case_sensitive=True),
        replace(XSTEST, name="mine"),
    ],
)
def test_the_version_changes_with_all_that_may_change_a_verdict(changed: RefusalList) -> None:
    assert changed.version != XSTEST.version
    assert replace(XSTEST).version == XSTEST.version
    assert len(XSTEST.version) == 12
    int(XSTEST.version, 16)


# ---- classifier


class Scores(nn.Module):
    """Gives each row the logits (0, what its first token says)."""

    def __init__(self, single: bool = False, names: tuple[str, ...] = ("benign", "harmful")) -> None:
        super().__init__()
        self.anchor = nn.Parameter(torch.zeros(()))
        self.single = single
        self.config = SimpleNamespace(num_labels=len(names), id2label=dict(enumerate(names)), to_dict=dict)
        self.widths: list[tuple[int, int]] = []

    def forward(self, input_ids: Tensor) -> SimpleNamespace:
        self.widths.append((input_ids.shape[0], input_ids.shape[1]))
        score = input_ids[:, :1].float()
        return SimpleNamespace(logits=score if self.single else torch.cat([torch.zeros_like(score), score], dim=1))


class Numbers:
    """A tokenizer of texts that are numbers."""

    model_max_length = 3

    def __call__(self, *texts: list[str], max_length: int, **options: object) -> dict[str, Tensor]:
        rows = [[float(word) for word in " ".join(row).split()][:max_length] for row in zip(*texts, strict=True)]
        longest = max(len(row) for row in rows)
        return {"input_ids": torch.tensor([row + [0.0] * (longest - len(row)) for row in rows])}


def test_classifier_probability_threshold_and_order() -> None:
    judge = ClassifierJudge(Scores(), Numbers(), "harmful", "numbers", threshold=0.8, batch_size=2)
    verdicts = judge.judge(["p"] * 5, ["2", "1 5 5 5 5", "-3 0", " ", "nan"])
    assert [verdict.status for verdict in verdicts] == ["ok", "ok", "ok", "ok", "error"]
    assert [verdict.broken for verdict in verdicts] == [True, False, False, False, None]
    scores = [verdict.score for verdict in verdicts[:4]]
    assert scores == pytest.approx([1 / (1 + math.exp(-x)) for x in (2, 1, -3)] + [0.0], abs=1e-6)


def test_classifier_harmful_class_by_number_or_name_and_single_logit() -> None:
    first = ClassifierJudge(Scores(), Numbers(), 0, "numbers").judge(["p"], ["2"])[0]
    assert first.score == pytest.approx(1 / (1 + math.exp(2)), abs=1e-6)
    single = ClassifierJudge(Scores(single=True, names=("harm",)), Numbers(), "harm", "numbers").judge(["p"], ["2"])[0]
    assert single.score == pytest.approx(1 / (1 + math.exp(-2)), abs=1e-6)
    for wrong in (2, -1, "Harmful"):
        with pytest.raises(ValueError, match="no class of the model, which has benign, harmful"):
            ClassifierJudge(Scores(), Numbers(), wrong, "numbers")


def test_classifier_sees_the_prompt_only_when_asked_and_cuts_at_the_end() -> None:
    model = Scores()
    assert ClassifierJudge(model, Numbers(), 1, "numbers", max_tokens=2).judge(["9"], ["-1 2 3 4"])[0].broken is False
    assert model.widths == [(1, 2)]
    assert ClassifierJudge(model, Numbers(), 1, "numbers", with_prompt=True).judge(["9"], ["-1"])[0].broken is True


def test_classifier_version_follows_its_settings() -> None:
    judge = ClassifierJudge(Scores(), Numbers(), 1, "numbers")
    assert judge.version == replace(judge, harmful="harmful", batch_size=1).version
    changed = [{"harmful": 0}, {"model_id": "x"}, {"threshold": 0.6}, {"with_prompt": True}, {"max_tokens": 9}]
    assert len({judge.version, *(replace(judge, **change).version for change in changed)}) == 6  # type: ignore[arg-type]


def test_a_loaded_classifier_gives_the_same_verdicts_in_any_batch() -> None:
    loaded = load_classifier("builtin:tiny-encoder", ["fine", "bad"], seed=1)
    loaded.model.train()
    texts = ["good film", "a long and tedious film " * 40, "bad", "broken \udc80 text", "fine film with a plot"]
    alone = ClassifierJudge(loaded.model, loaded.tokenizer, "bad", "tiny", batch_size=1).judge(texts, texts)
    together = ClassifierJudge(loaded.model, loaded.tokenizer, "bad", "tiny", batch_size=5).judge(texts, texts)
    assert [verdict.score for verdict in alone] == pytest.approx([verdict.score for verdict in together], abs=1e-5)
    assert len({round(verdict.score or 0, 6) for verdict in alone}) > 3
    assert loaded.model.training
