"""Multiple choice: the rules on numbers worked by hand, the prompts as tokens, and a model end to end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase

from tests.data.chats import TEMPLATES, chat_tokenizer
from textadv.data import DataError, reviews_tokenizer
from textadv.data.benchmarks import Question
from textadv.measuring.capability import multiple_choice
from textadv.measuring.capability.likelihood import AnswerNLL, Pair
from textadv.measuring.capability.multiple_choice import ChoiceScores, ScoredQuestion, choice_result, score_choices
from textadv.measuring.statistics import wilson
from textadv.values.randomness import seeded_scope

MOON = Question("moon", "How is the moon?", ("a story", "bread at home", "no"), (1,), "the night sky")
SEA = Question("sea", "Is the sea wet?", ("yes", "it is dry"), (0,))


def scored(question: Question, values: Sequence[float], sizes: Sequence[int]) -> ScoredQuestion:
    return ScoredQuestion(question, tuple(values), tuple(sizes))


def scores(*rows: ScoredQuestion, skipped: tuple[str, ...] = ()) -> ChoiceScores:
    return ChoiceScores("cloze", False, rows, skipped)


def test_the_rules_by_hand() -> None:
    # By the sum "no" wins; per byte -14/7 = -2.0, -15/13 = -1.15 and -4/2 = -2.0, so the right one does.
    moon = scored(MOON, (-14.0, -15.0, -4.0), (7, 13, 2))
    sea = scored(SEA, (-1.0, -9.0), (3, 9))
    both = scores(moon, sea, skipped=("sun",))
    result = choice_result(both, "acc")
    assert (result.rate, result.per_row, result.ids) == (wilson(1, 2), (0.0, 1.0), ("moon", "sea"))
    assert (result.value, result.low, result.high) == (0.5, wilson(1, 2).low, wilson(1, 2).high)
    assert (result.rule, result.layout, result.chat_template, result.skipped) == ("acc", "cloze", False, ("sun",))
    # -1/3 = -0.33 and -9/9 = -1: right again.
    assert choice_result(both, "acc_norm").rate == wilson(2, 2)
    assert choice_result(both, "mc1").per_row == (0.0, 1.0)


def test_a_tie_is_wrong() -> None:
    """A model whose answers do not depend on the question gets nothing for the first place."""
    result = choice_result(scores(scored(SEA, (-2.0, -2.0), (3, 3))), "acc")
    assert result.rate == wilson(0, 1)


def test_mc2_is_the_share_of_the_right_choices() -> None:
    question = Question("q", "Why?", ("a", "b", "c"), (0, 2))
    near = scored(question, [math.log(p) for p in (0.1, 0.3, 0.2)], (1, 1, 1))
    # The likelihoods of long choices are zero in floating point; their ratio is not.
    far = scored(question, [math.log(p) - 2000 for p in (0.2, 0.2, 0.1)], (1, 1, 1))
    result = choice_result(scores(near, far), "mc2")
    assert result.rate is None
    assert result.per_row == pytest.approx((0.5, 0.6))
    assert result.value == pytest.approx(0.55)
    assert (result.low, result.high) == pytest.approx((0.5, 0.6))


def test_rules_that_do_not_fit() -> None:
    question = Question("q", "Why?", ("a", "b", "c"), (0, 2))
    with pytest.raises(ValueError, match="'q' has 2: read the file with targets \"mc1\""):
        choice_result(scores(scored(question, (-1, -2, -3), (1, 1, 1))), "mc1")
    with pytest.raises(ValueError, match="one of acc, acc_norm, mc1, mc2, got 'f1'"):
        choice_result(scores(), "f1")
    assert choice_result(scores(), "acc").rate == wilson(0, 0)
    assert math.isnan(choice_result(scores(), "mc2").value)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """The pairs that `score_choices` has scored; each token costs 1."""
    seen: list[Pair] = []

    def fake(model: nn.Module, pairs: Sequence[Pair], batch_size: int) -> list[AnswerNLL]:
        seen.extend(pairs)
        return [AnswerNLL(float(len(answer)), len(answer)) for _, answer in pairs]

    monkeypatch.setattr(multiple_choice, "answer_nll", fake)
    return seen


def llama(vocabulary: int, positions: int = 512) -> nn.Module:
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    with seeded_scope(3):
        return LlamaForCausalLM(
            LlamaConfig(**shape, vocab_size=vocabulary, max_position_embeddings=positions, initializer_range=0.5)
        ).eval()


def text(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int]) -> str:
    return str(tokenizer.decode(list(ids)))


@pytest.mark.parametrize("kind", ["byte", "byte_trimmed", "metaspace_first"])
def test_without_a_template_the_choice_follows_with_a_blank(kind: str, asked: list[Pair]) -> None:
    tokenizer = chat_tokenizer("chatml", kind)
    found = score_choices(llama(1000), tokenizer, [MOON], chat_template=False)
    for (prompt, answer), choice in zip(asked, MOON.choices, strict=True):
        assert text(tokenizer, prompt) == "Question: How is the moon?\nAnswer:"
        assert text(tokenizer, answer).strip() == choice
        assert [*prompt, *answer] == tokenizer(f"Question: How is the moon?\nAnswer: {choice}").input_ids
    assert found.scored[0].sizes == (7, 13, 2)
    assert found.scored[0].log_likelihoods == tuple(-float(len(answer)) for _, answer in asked)


def test_special_tokens_around_the_text_are_no_answer(asked: list[Pair]) -> None:
    tokenizer = reviews_tokenizer()
    question = Question("q", "good or bad", ("good film", "bad film"), (0,))
    score_choices(llama(len(tokenizer)), tokenizer, [question], chat_template=False)
    assert asked[0][0][0] == tokenizer.cls_token_id
    assert [text(tokenizer, answer) for _, answer in asked] == [" good film", " bad film"]


@pytest.mark.parametrize("kind", ["byte", "metaspace_first"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_with_a_template_the_answer_is_the_choice_alone(template: str, kind: str, asked: list[Pair]) -> None:
    tokenizer = chat_tokenizer(template, kind)
    score_choices(llama(1000), tokenizer, [MOON], chat_template=True)
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": MOON.question}], add_generation_prompt=True, tokenize=True, return_dict=False
    )
    assert [list(prompt) for prompt, _ in asked] == [list(rendered)] * 3
    assert [text(tokenizer, answer).strip() for _, answer in asked] == list(MOON.choices)


def test_letters_list_the_choices(asked: list[Pair]) -> None:
    tokenizer = chat_tokenizer()
    found = score_choices(llama(1000), tokenizer, [MOON, SEA], chat_template=False, layout="letters")
    assert text(tokenizer, asked[0][0]) == (
        "The following are multiple choice questions (with answers) about the night sky.\n\n"
        "How is the moon?\nA. a story\nB. bread at home\nC. no\nAnswer:"
    )
    assert [text(tokenizer, answer) for _, answer in asked] == [" A", " B", " C", " A", " B"]
    assert [row.sizes for row in found.scored] == [(1, 1, 1), (1, 1)]
    asked.clear()
    score_choices(llama(1000), tokenizer, [SEA], chat_template=True, layout="letters")
    assert "B. it is dry\nAnswer with the letter of the right choice.<|im_end|>" in text(tokenizer, asked[0][0])
    assert [text(tokenizer, answer) for _, answer in asked] == ["A", "B"]


def test_too_long_is_an_error_or_counted() -> None:
    tokenizer = chat_tokenizer()
    long = Question("long", "How is the moon? " * 20, ("yes", "no"), (0,))
    model = llama(1000, positions=80)
    with pytest.raises(DataError, match=r"Question 'long' has \d+ tokens .* the model 80 positions"):
        score_choices(model, tokenizer, [SEA, long], chat_template=False)
    found = score_choices(model, tokenizer, [long, SEA], chat_template=False, too_long="skip")
    assert ([row.question.id for row in found.scored], found.skipped) == (["sea"], ("long",))
    assert choice_result(found, "acc").rate.total == 1


def test_only_zero_shot() -> None:
    with pytest.raises(ValueError, match="shots must be 0, got 5"):
        score_choices(llama(1000), chat_tokenizer(), [SEA], chat_template=False, shots=5)


@pytest.mark.parametrize("chat_template", [False, True])
def test_a_model_that_was_taught_the_answers_finds_them(chat_template: bool) -> None:
    tokenizer = chat_tokenizer()
    questions = [MOON, SEA, Question("sun", "Is the sun cold?", ("yes", "it is dry", "no"), (2,))]
    model = llama(len(tokenizer))
    pairs: list[Pair] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(
            multiple_choice,
            "answer_nll",
            lambda _, given, size: pairs.extend(given) or [AnswerNLL(1.0, 1)] * len(given),
        )
        score_choices(model, tokenizer, questions, chat_template=chat_template)
    right = [pairs[place] for place in (1, 3, 7)]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(30):
        loss = torch.stack([_nll(model, pair) for pair in right]).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    found = score_choices(model, tokenizer, questions, chat_template=chat_template, batch_size=3)
    assert choice_result(found, "acc").per_row == (1.0, 1.0, 1.0)
    expected = -_nll(model, right[0]).item()
    assert found.scored[0].log_likelihoods[1] == pytest.approx(expected, rel=1e-4)


def _nll(model: nn.Module, pair: Pair) -> torch.Tensor:
    prompt, answer = pair
    whole = torch.tensor([[*prompt, *answer]])
    logits = model(input_ids=whole).logits[0, len(prompt) - 1 : -1]
    return nn.functional.cross_entropy(logits, torch.tensor(list(answer)), reduction="sum")
