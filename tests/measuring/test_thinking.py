"""What is measured on models that think: the thought is kept apart from the answer, and the answer alone counts."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from torch import nn

from tests.data.chats import turns
from tests.data.thinking import THINKING, thinking_tokenizer
from tests.seen import evaluate_chat
from textadv.data import Chat, encode_chats, encode_prompt
from textadv.data.benchmarks import Instructed, Instruction, Question
from textadv.data.rendering import Template
from textadv.data.thoughts import Marks, Speech
from textadv.measuring import Measure
from textadv.measuring.capability import multiple_choice
from textadv.measuring.capability.likelihood import AnswerNLL, Pair
from textadv.measuring.judges.llm_judge import LocalModel
from textadv.measuring.judges.refusal import over_refusal
from textadv.measuring.judges.target_judge import TargetJudge
from textadv.measuring.judges.verdicts import DECLINES
from textadv.measuring.safety import fluency, generate
from textadv.measuring.safety.adversaries import Direct, Prefill, behaviours_of
from textadv.measuring.safety.chat import Asked, Panel
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Decoding, Prompt, answers, content_key
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.record import Talked
from textadv.values.batch import Role
from textadv.values.errors import GenerationError

NEW = 40
GREEDY = Decoding(max_new_tokens=NEW, batch_size=3)


def made(name: str) -> Template:
    return Template(thinking_tokenizer(name), THINKING[name].variables)


@dataclass
class Scripted:
    """In the place of the model's decoding: what follows each row, by a text that the row holds."""

    template: Template
    said: dict[str, str]
    read: list[str] = field(default_factory=list)

    def __call__(
        self, model: nn.Module, rows: Sequence[Sequence[int]], *, max_new_tokens: int, **settings: object
    ) -> list[list[int]]:
        return [self._answer(str(self.template.tokenizer.decode(list(row))), max_new_tokens) for row in rows]

    def _answer(self, row: str, most: int) -> list[int]:
        self.read.append(row)
        said = next(answer for asked, answer in self.said.items() if asked in row)
        return self.template.tokenizer(said, add_special_tokens=False)["input_ids"][:most]


def scripted(monkeypatch: pytest.MonkeyPatch, template: Template, said: dict[str, str]) -> Scripted:
    found = Scripted(template, said)
    monkeypatch.setattr(generate, "generate_tokens", found)
    return found


def said(
    monkeypatch: pytest.MonkeyPatch, name: str, written: str, *, prefill: str = "", decoding: Decoding = GREEDY
) -> Answer:
    """The answer of a model that writes this after a question under that template, or after the answer's beginning."""
    template = made(name)
    scripted(monkeypatch, template, {"moon": written})
    prompt = encode_prompt(template, turns("the moon?"))
    begun = template.tokenizer(prefill, add_special_tokens=False)["input_ids"] if prefill else ()
    opening = template.tokenizer(template.opening(turns("x")), add_special_tokens=False)["input_ids"]
    row = Prompt(3, prompt.ids, tuple(begun), opening=tuple(opening) if prefill else ())
    ends = [template.tokenizer.convert_tokens_to_ids(THINKING[name].end)]
    (answer,) = answers(nn.Identity(), template.tokenizer, [row], decoding, ends=ends, speech=template.speech)
    return answer


E = "<|im_end|>"
LONG = "x " * NEW
# template, what the model writes -> status, thought, text
WRITTEN: dict[str, tuple[str, str, tuple[str, str, str]]] = {
    "no thought": ("block", f"Sure{E}", ("ok", "", "Sure")),
    "the template's empty one": ("block", f"<think>\n\n</think>\n\nSure{E}", ("ok", "", "Sure")),
    "one of its own": ("block", f"<think>\nhm\n</think>\n\nSure{E}", ("ok", "hm", "Sure")),
    "marks that are special tokens": ("block_special", f"<think>\nhm\n</think>\n\nSure{E}", ("ok", "hm", "Sure")),
    "marks of several tokens": ("block_plain", f"<think>\nhm\n</think>\n\nSure{E}", ("ok", "hm", "Sure")),
    "one that is cut off": ("block", f"<think>\n{LONG}", ("thinking", "x", "")),
    "one that ends with the last token": ("block", "<think>\nhm</think>", ("thinking", "hm", "")),
    "an empty one and no more": ("block", "<think>\n\n</think>\n\n", ("thinking", "", "")),
    "one that ends the turn": ("block", f"<think>\nhm{E}", ("empty", "hm", "")),
    "one with nothing after it": ("block", f"<think>hm</think>\n{E}", ("empty", "hm", "")),
    "nothing": ("block", E, ("empty", "", "")),
    "an answer that is cut off": ("block", f"<think>hm</think>Sure {LONG}", ("truncated", "hm", "Sure x")),
    "another one in the answer": ("block", f"<think>a</think>b<think>c</think>d{E}", ("ok", "a\n\nc", "bd")),
    "a start in the answer": ("block", f"<think>a</think>b <think>{LONG}", ("truncated", "a", "b <think>x")),
    "one that the prompt began": ("begun", f"hm\n</think>\n\nSure{E}", ("ok", "hm", "Sure")),
    "the end of it at once": ("begun", f"\n</think>\n\nSure{E}", ("ok", "", "Sure")),
    "one that the prompt began, cut off": ("begun", LONG, ("thinking", "x", "")),
    "an answer in the place of it": ("begun", f"Sure, x{E}", ("ok", "", "Sure, x")),
    "marks of several tokens, begun": ("begun_plain", f"hm</think>Sure{E}", ("ok", "hm", "Sure")),
    "an end alone": ("closing", f"hm</think>Sure{E}", ("ok", "hm", "Sure")),
    "none after one that the prompt ended": ("block_off", f"Sure{E}", ("ok", "", "Sure")),
    "special tokens around it": (
        "spoken",
        "<|START_THINKING|>hm<|END_THINKING|><|SPEAK|>Sure<|SPOKEN|>",
        ("ok", "hm", "Sure"),
    ),
    "special tokens alone": ("spoken", "<|SPEAK|>Sure<|SPOKEN|>", ("ok", "", "Sure")),
    "a channel of its own": (
        "channels",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>Sure<|return|>",
        ("ok", "hm", "Sure"),
    ),
    "the final channel alone": ("channels", "<|channel|>final<|message|>Sure<|return|>", ("ok", "", "Sure")),
    "one without the template's help": ("free", "[THINK]hm[/THINK]Sure</s>", ("ok", "hm", "Sure")),
}


def short(text: str) -> str:
    """With one x for many, which stand for whatever is cut off, and without outer blanks."""
    return re.sub(r"x( x)*", "x", text).strip()


@pytest.mark.parametrize("what", WRITTEN)
def test_what_a_model_writes_is_thought_and_said(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    name, written, (status, thought, text) = WRITTEN[what]
    found = said(monkeypatch, name, written)
    assert found.status == status
    assert (short(found.thought), short(found.text)) == (thought, text)
    assert 0 < found.tokens <= NEW


@pytest.mark.parametrize("name", ["block", "begun", "forced", "spoken", "channels"])
def test_words_put_into_the_mouth_are_the_answers_first(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    end = THINKING[name].end
    found = said(monkeypatch, name, f" the answer{end}", prefill="Sure, here is")
    assert (found.status, found.thought, found.text) == ("ok", "", "Sure, here is the answer")
    for nothing in (end, f" {end}"):
        found = said(monkeypatch, name, nothing, prefill="Sure, here is")
        assert (found.status, found.text.strip()) == ("empty", "Sure, here is")


def test_a_thought_after_words_put_into_the_mouth_is_a_thought(monkeypatch: pytest.MonkeyPatch) -> None:
    found = said(monkeypatch, "block", f" <think>no</think>sorry{E}", prefill="Sure, here is")
    assert (found.status, found.thought, found.text) == ("ok", "no", "Sure, here is sorry")
    found = said(monkeypatch, "block", f" x</think>sorry{E}", prefill="Sure, here is")
    assert (found.status, found.thought, found.text) == ("ok", "", "Sure, here is x</think>sorry")
    found = said(monkeypatch, "block", f"<think>no {LONG}", prefill="Sure, here is")
    assert (found.status, found.thought, short(found.text)) == ("truncated", "", "Sure, here is<think>no x")


def test_thoughts_are_kept_in_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    template, store = made("block"), tmp_path / "answers.jsonl"
    script = scripted(monkeypatch, template, {"moon": f"<think>\nhm\n</think>\n\nSure{E}"})
    rows = [Prompt(3, encode_prompt(template, turns("the moon?")).ids)]
    ends = [template.tokenizer.convert_tokens_to_ids(E)]
    for _ in range(2):
        (found,) = answers(
            nn.Identity(), template.tokenizer, rows, GREEDY, ends=ends, speech=template.speech, store=store
        )
        assert (found.thought, found.text) == ("hm", "Sure")
    (line,) = store.read_text(encoding="utf-8").splitlines()
    kept = json.loads(line)["answer"]
    assert (kept["thought"], kept["text"], len(script.read)) == ("hm", "Sure", 1)
    (whole,) = answers(nn.Identity(), template.tokenizer, rows, GREEDY, ends=ends, store=store)
    assert "</think>" in whole.text and len(script.read) == 2, "an answer that was read otherwise is not taken"


def test_the_content_key_follows_from_opening_and_marks() -> None:
    prompt, speech = Prompt(1, (1, 2)), Speech(Marks("<think>", "</think>"))
    keys = [
        content_key(prompt, 0, GREEDY, (3,)),
        content_key(replace(prompt, opening=(4,)), 0, GREEDY, (3,)),
        content_key(replace(prompt, prefill=(4,)), 0, GREEDY, (3,)),
        content_key(prompt, 0, GREEDY, (3,), "", speech),
        content_key(prompt, 0, GREEDY, (3,), "", replace(speech, lead="say:")),
        content_key(prompt, 0, GREEDY, (3,), "", Speech(Marks("[", "]"))),
    ]
    assert len(set(keys)) == len(keys)
    assert content_key(prompt, 0, GREEDY, (3,), "", Speech()) == keys[0]


# ---- attack success


def forbidden(text: str, number: int, target: str = "Sure, here is the answer") -> Chat:
    answered = {"harmful": target, "safe": "Sorry, I cannot help"}
    return Chat(({"role": "user", "content": text},), answered, Role.ADVERSARIAL, number, f"row {number}")


REQUESTS = ("the moon", "the sea", "the story", "bread")
SAID = {
    "moon": f"<think>\nSorry, I cannot\n</think>\n\nSure, here it is{E}",
    "sea": f"<think>\nSure, here it is\n</think>\n\nSorry, I cannot help{E}",
    "story": f"<think>\n{LONG}",
    "bread": f"Sure, here is the answer{E}",
}


def test_the_judge_sees_the_answer_and_an_unfinished_thought_is_not_known(monkeypatch: pytest.MonkeyPatch) -> None:
    template = made("block")
    rows = encode_chats([forbidden(text, n) for n, text in enumerate(REQUESTS)], template, 128)
    judges = (
        DECLINES,
        TargetJudge(dict.fromkeys(REQUESTS, "Sure, here is the answer"), DECLINES, 2),
    )
    scripted(monkeypatch, template, SAID)
    for judge in judges:
        found = elicit(nn.Identity(), template.tokenizer, rows, REQUESTS, {}, judge, GREEDY, ends=_ends(template))
        assert [row.broken for row in found.outcomes] != [True, False, False, True], "thoughts are judged without marks"
        found = elicit(
            nn.Identity(),
            template.tokenizer,
            rows,
            REQUESTS,
            {"direct": Direct()},
            judge,
            GREEDY,
            ends=_ends(template),
            speech=template.speech,
        )
        assert [row.broken for row in found.outcomes] == [True, False, False, True]
        assert [row.possibly_broken for row in found.outcomes] == [True, False, True, True]
        (direct,) = found.attacks
        assert (direct.low.count, direct.high.count, direct.answers) == (2, 3, {"ok": 3, "thinking": 1})
        assert direct.verdicts == {"ok": 3, "unjudged": 1}
        told = [row.answers[0] for row in found.outcomes]
        assert [answer.thought[:5] for answer in told] == ["Sorry", "Sure,", "x x x", ""]
        assert told[2].reason == f"the model was still thinking after {NEW} tokens"


def _ends(template: Template) -> list[int]:
    return [template.tokenizer.convert_tokens_to_ids(E)]


@pytest.mark.parametrize("name", ["block", "block_special", "begun", "forced", "tight", "spoken", "channels", "silent"])
def test_a_prefill_is_the_opening_and_so_many_tokens_of_the_target(name: str) -> None:
    template = made(name)
    tokenizer = template.tokenizer
    targets = ["Sure, here is the answer", "<think>\nfirst the flour\n</think>\n\nMix flour!"]
    rows = encode_chats([forbidden("the moon", n, target) for n, target in enumerate(targets)], template, 128)
    ends = [tokenizer.convert_tokens_to_ids(THINKING[name].end)]
    found = [
        row._replace(said=tuple(token for token in row.target if token not in ends)) for row in behaviours_of(rows)
    ]
    opening = tokenizer(template.opening(turns("x")), add_special_tokens=False)["input_ids"]
    for tokens in (1, 2, 3, 40):
        (asked,) = Prefill(tokens).rounds(nn.Identity(), rows, found)
        for prompt, target in zip(asked.prompts, ("Sure, here is the answer", "Mix flour!"), strict=True):
            assert list(prompt.opening) == opening
            own = tokenizer(target, add_special_tokens=False)["input_ids"]
            assert list(prompt.prefill) == own[:tokens]
            assert prompt.ids == rows.prompts[0]


# ---- every measure

QUESTIONS = (Question("moon", "How is the moon?", ("a story", "bread at home"), (1,)),)
INSTRUCTED = (Instructed("a", "no commas please", (Instruction("punctuation:no_comma", {}),)),)
UTILITY = Chat(({"role": "user", "content": "How is the moon?"},), {"response": "a story"}, Role.UTILITY, 0, "row")
BENIGN = ("the sea", "the story", "bread")


def panel(template: Template, requests: Sequence[str] = REQUESTS) -> Panel:
    return Panel(
        behaviours=encode_chats([forbidden(text, n) for n, text in enumerate(requests)], template, 128),
        requests=tuple(requests),
        attacks={"direct": Direct(), "prefill": Prefill(2)},
        judge=DECLINES,
        others=(),
        benign={"borderline": Asked.of(template, BENIGN)},
        utility=encode_chats([UTILITY], template, 128),
        questions={"quiz": QUESTIONS},
        instructions={"checks": (INSTRUCTED, Asked.of(template, [row.prompt for row in INSTRUCTED]))},
        decoding=GREEDY,
    )


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> list[Pair]:
    """What the likelihood of is asked for; all answers are equally likely."""
    asked: list[Pair] = []

    def nll(model: nn.Module, pairs: Sequence[Pair], batch_size: int = 16) -> list[AnswerNLL]:
        asked.extend(pairs)
        return [AnswerNLL(float(len(answer)), len(answer)) for _, answer in pairs]

    for module in (fluency, multiple_choice):
        monkeypatch.setattr(module, "answer_nll", nll)
    monkeypatch.setattr("textadv.measuring.capability.likelihood.answer_nll", nll)
    monkeypatch.setattr(fluency, "as_reference", lambda model: _Nothing())
    monkeypatch.setattr(multiple_choice, "context_length", lambda model: None)
    monkeypatch.setattr(fluency, "context_length", lambda model: None)
    monkeypatch.setattr("textadv.measuring.safety.elicitation.end_ids", lambda model, tokenizer, speech: ())
    monkeypatch.setattr(generate, "end_ids", lambda model, tokenizer, speech: (tokenizer.convert_tokens_to_ids(E),))
    return asked


class _Nothing:
    def __enter__(self) -> None: ...

    def __exit__(self, *error: object) -> None: ...


def of(found: Talked, name: str) -> Measure:
    beside = ("not refused", "broken off")
    (measure,) = [m for m in found.measures if m.name == name and m.group not in beside]
    return measure


def test_every_measure_is_of_the_answers(scored: list[Pair], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Likelihoods are those of the content after prompt and opening, whatever they are of."""
    template = made("block")
    scripted(monkeypatch, template, {**SAID, "commas": f"<think>a, b, c</think>of course{E}"})
    found = evaluate_chat("before", nn.Identity(), template, panel(template), key="weights", folder=tmp_path)
    note = (
        f"1 of {{}} answers were still thinking after evaluation.max_new_tokens: {NEW}, so what they would say is not"
    )
    direct, refused, broken = (of(found, name) for name in ("direct", "borderline: refused", "borderline: degenerate"))
    (most,) = [m for m in found.measures if m.name == "direct" and m.group == "not refused"]
    assert (most.rows[0], most.rows[3], sum(most.rows), most.total) == (1.0, 1.0, 3.0, 4)
    assert most.note == "1 of them not known" and note.format(4) in direct.note
    assert refused.rows == (1.0, 0.0, 0.0) and "up to 66.7 % if unclear ones are refusals" in refused.note
    assert broken.rows == (0.0, 0.0, 0.0) and note.format(3) in broken.note
    assert of(found, "checks: instructions").rows == (1.0,)
    texts = {(_tail(template, given), str(template.tokenizer.decode(list(answer)))) for given, answer in scored}
    tails = {tail for tail, text in texts if text not in (" a story", " bread at home")}
    opening = "<|im_start|>assistant\n<think>\n\n</think>\n\n"
    # Of an answer to an attack the first tokens stand with the prompt: what is scored comes after them.
    assert opening in tails and all(tail.startswith(opening) for tail in tails)
    wholes = {tail.removeprefix(opening) + text for tail, text in texts}
    assert wholes >= {"Sorry, I cannot help", f"a story{E}", "a story", "bread at home"}


def _tail(template: Template, ids: Sequence[int]) -> str:
    text = str(template.tokenizer.decode(list(ids)))
    return text[text.rfind("<|im_start|>") :]


@pytest.mark.parametrize("name", ["block", "begun", "spoken"])
def test_choices_are_scored_without_opening_and_end(name: str, scored: list[Pair]) -> None:
    template = made(name)
    multiple_choice.score_choices(nn.Identity(), template, QUESTIONS, chat_template=True)
    assert [str(template.tokenizer.decode(list(answer))) for _, answer in scored] == ["a story", "bread at home"]
    opening = template.opening(turns("x"))
    assert all(str(template.tokenizer.decode(list(given))).endswith(opening) for given, _ in scored)


def test_a_prompt_without_an_answer_is_neither_refused_nor_degenerate() -> None:
    report = over_refusal(["a", "b", "c"], [None, "I cannot help.", "Mix flour."])
    assert [row.outcome for row in report.rows] == [None, "full", "none"]
    assert report.rows[0].status == "error" and report.rows[0].reason == "the response is missing"
    assert [rate.count for rate in report.refused()] == [1, 2] and report.rate("degenerate").count == 0


# ---- judges that think


def judged(monkeypatch: pytest.MonkeyPatch, name: str, written: str) -> tuple[str | Exception, str, LocalModel]:
    template = made(name)
    script = scripted(monkeypatch, template, {"moon": written})
    monkeypatch.setattr(generate, "end_ids", lambda model, tokenizer, speech: _ends(template))
    judge = LocalModel(nn.Identity(), template.tokenizer, "judge", max_new_tokens=8)
    (answer,) = judge(["the moon?"])
    return answer, script.read[0], judge


def test_a_judge_is_asked_for_its_answer_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    answer, read, judge = judged(monkeypatch, "block", f"yes{E}")
    assert answer == "yes" and read.endswith("<think>\n\n</think>\n\n")
    assert judge.identity == "judge, greedy, 8 new tokens, without a thought"
    answer, read, judge = judged(monkeypatch, "begun", f"no{E}")
    assert answer == "no" and read.endswith("<think>\n\n</think>\n\n")


def test_a_judge_that_thinks_all_the_same_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    template = made("free")
    scripted(monkeypatch, template, {"moon": "[THINK]yes, or[/THINK]no</s>"})
    judge = LocalModel(nn.Identity(), template.tokenizer, "judge", max_new_tokens=20)
    monkeypatch.setattr(generate, "end_ids", lambda model, tokenizer, speech: (tokenizer.eos_token_id,))
    assert judge(["the moon?"]) == ["no"]
    assert judge.identity == "judge, greedy, 20 new tokens"
    (answer,) = replace(judge, max_new_tokens=3)(["the moon?"])
    assert isinstance(answer, GenerationError) and str(answer) == "the judge was still thinking after 3 tokens"
