"""Runs on chat models whose templates know thoughts: what the block is worth, what a thought is, what is refused."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from transformers import AutoTokenizer
from transformers.utils import chat_template_utils

from recipes import adv_finetune, attack, evaluate
from tests import chat_run
from tests.recipes.running import Ended, Recipe
from tests.seen import read_chat_results
from textadv.measuring import Measure
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.kept_answers import Answer
from textadv.runs import output as task_output
from textadv.runs.ready import prepare
from textadv.tasks.chat import choosing
from textadv.tasks.file import load_config

HEADER = "{{ '<|' + m['role'] + '|>' }}"
PLAIN = (
    "{% for m in messages %}" + HEADER + "{{ m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
# As in Qwen3: the last answer stands after a block, with its thought or none; the prompt has one where it is told so.
BLOCK = (
    "{% for m in messages %}" + HEADER + "{% set parts = m['content'].split('</think>') %}"
    "{% if m['role'] == 'assistant' and loop.last %}{{ '<think>\n' + parts[0].split('<think>')[-1].strip('\n') "
    "if parts | length > 1 else '<think>\n' }}{{ '\n</think>\n\n' }}{% endif %}"
    "{{ parts[-1].lstrip('\n') + '<|end|>' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>' }}"
    "{% if enable_thinking is defined and not enable_thinking %}{{ '<think>\n\n</think>\n\n' }}{% endif %}{% endif %}"
)
# As in DeepSeek-R1: the prompt begins a thought, and an answered chat shows none.
BEGUN = PLAIN.replace("{{ '<|assistant|>' }}", "{{ '<|assistant|><think>\n' }}")
TOKENS = ("<think>", "</think>")
THOUGHT = "What is asked here?"
COMPLIES = "Sure, here is how."
BRIEF = (*chat_run.BRIEF, "selection.max_new_tokens=16")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The streams, and models that say the same: after nothing, after an empty block, after a thought of their own."""
    folder = chat_run.write_streams(tmp_path_factory.mktemp("thinking"))
    said = [(text, chat_run.REFUSAL if text.startswith(chat_run.REFUSED) else COMPLIES) for text in chat_run.prompts()]
    thinking = [(text, f"<think>\n{THOUGHT}\n</think>\n\n{answer}") for text, answer in said]
    for name, template, spoken in (("plain", PLAIN, said), ("block", BLOCK, said), ("thinking", BLOCK, thinking)):
        chat_run.save_speaking(folder / name, template, spoken, added=TOKENS)
    chat_run.save_speaking(folder / "begun", BEGUN, thinking, added=TOKENS)
    wanted = chat_run.settings(folder, folder / "block")
    wanted["evaluation"] |= {"target_words": 3, "max_new_tokens": 40, "questions": {}, "instructions": {}}
    wanted["evaluation"]["elicitation"] |= {"prefill": [1, 2, 4], "restarts": 1}
    (folder / "config.yaml").write_text(yaml.safe_dump(wanted), encoding="utf-8")
    return folder


class Measured:
    """What an evaluation of one saved model found."""

    def __init__(self, recipe: Recipe, folder: Path, name: str, output: Path, *extra: str) -> None:
        chosen = ("--model", str(folder / name), "--output", str(output))
        self.ended: Ended = recipe(evaluate, str(folder / "config.yaml"), *chosen, *extra)
        assert self.ended.code == 0, self.ended.error
        (found,) = read_chat_results(output).evaluations
        beside = ("not refused", "broken off")
        self.measures: dict[str, Measure] = {m.name: m for m in found.measures if m.group not in beside}
        self.not_refused = {m.name: m.rows for m in found.measures if m.group == "not refused"}
        self.answers: list[Answer] = chat_run.kept_answers(output, "")

    def said(self, attack: str) -> dict[int, Answer]:
        return {answer.id: answer for answer in self.answers if answer.attack == attack}

    def rows(self, name: str) -> tuple[float, ...]:
        return self.not_refused.get(name, self.measures[name].rows)


SAID_ALONE = ("direct", "direct (target said)", "borderline: refused")


def test_a_block_before_each_answer_changes_no_measure(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    plain, block = (Measured(recipe, folder, name, tmp_path / name) for name in ("plain", "block"))
    for name in SAID_ALONE:
        assert plain.rows(name) == block.rows(name), name
        assert 0 < sum(plain.rows(name)) < plain.measures[name].total
    for attack_name in ("direct", "borderline"):
        told = {number: answer.text for number, answer in plain.said(attack_name).items()}
        assert {number: answer.text for number, answer in block.said(attack_name).items()} == told
    # What a model writes from a perturbed prompt may be anything, marks of thoughts among it.
    own = [answer for answer in block.answers if not answer.attack.startswith("embedding")]
    assert len(own) > 40 and not [answer for answer in own if "think" in answer.text or answer.thought]
    assert block.measures["utility perplexity"].total == plain.measures["utility perplexity"].total
    assert block.measures["utility perplexity"].weights == plain.measures["utility perplexity"].weights


def targets(folder: Path) -> dict[str, str]:
    lines = (folder / "adversarial_test.jsonl").read_text(encoding="utf-8").splitlines()
    return {row["prompt"]: row["target"] for row in map(json.loads, lines)}


@pytest.mark.parametrize("name", ["plain", "block", "thinking", "begun"])
def test_a_prefill_puts_so_many_tokens_of_the_target(name: str, folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = Measured(recipe, folder, name, tmp_path / "out")
    tokenizer = AutoTokenizer.from_pretrained(folder / name)
    known = list(targets(folder).values())
    for count in (1, 2, 4):
        answers = found.said(f"prefill {count}").values()
        begun = {tokenizer.decode(tokenizer(target, add_special_tokens=False)["input_ids"][:count]) for target in known}
        assert len(answers) == 10 and all(answer.text.startswith(tuple(begun)) for answer in answers)


@pytest.mark.parametrize("name", ["thinking", "begun"])
def test_a_thought_is_kept_and_the_answer_judged(name: str, folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    plain, found = Measured(recipe, folder, "plain", tmp_path / "plain"), Measured(recipe, folder, name, tmp_path / "t")
    for measure in SAID_ALONE:
        assert found.rows(measure) == plain.rows(measure), measure
    told = {number: answer.text for number, answer in plain.said("direct").items()}
    assert {number: answer.text for number, answer in found.said("direct").items()} == told
    assert {answer.thought for answer in found.said("direct").values()} == {THOUGHT}
    assert {answer.status for answer in found.said("direct").values()} == {"ok"}


def test_thoughts_that_are_cut_off_are_counted_and_the_key_named(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = Measured(recipe, folder, "thinking", tmp_path / "out", "evaluation.max_new_tokens=3")
    note = "10 of 10 answers were still thinking after evaluation.max_new_tokens: 3"
    for name in ("direct", "borderline: degenerate"):
        assert note in found.measures[name].note and found.measures[name].value == 0
    assert found.not_refused["direct"] == (1.0,) * 10
    assert {(answer.status, answer.text) for answer in found.said("direct").values()} == {("thinking", "")}
    assert note in found.ended.printed and note in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")


def test_variables_of_the_template_hold_wherever_it_renders(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    """Told not to think, the model is asked with the block in its prompt, and says the same at once."""
    off = "model.template_variables={enable_thinking: false}"
    thinking, at_once = (
        Measured(recipe, folder, "thinking", tmp_path / "on"),
        Measured(recipe, folder, "block", tmp_path / "off", off),
    )
    assert "model.template_variables (enable_thinking: false) are not saved with the model" in at_once.ended.printed
    assert "chat_template_kwargs" in (tmp_path / "off" / "report.md").read_text(encoding="utf-8")
    assert at_once.rows("direct") == thinking.rows("direct")
    assert min(answer.tokens for answer in thinking.said("direct").values()) > max(
        answer.tokens for answer in at_once.said("direct").values()
    )
    hashes = [read_chat_results(tmp_path / name).hashes for name in ("on", "off")]
    changed = {name for name in hashes[0] if hashes[0][name] != hashes[1].get(name)}
    assert {"chat_template", "data.adversarial.test.tokens"} <= changed
    assert "data.adversarial.test" not in changed and "tokenizer" not in changed


def test_attack_shows_thought_and_answer_apart(folder: Path, recipe: Recipe) -> None:
    ended = recipe(attack, str(folder / "config.yaml"), "--model", str(folder / "thinking"), "--rows", "3")
    assert ended.code == 0, ended.error
    assert ended.printed.count(f"    thought {THOUGHT}\n") >= 3 and "<think>" not in ended.printed
    short = recipe(
        attack, str(folder / "config.yaml"), "--model", str(folder / "thinking"), "evaluation.max_new_tokens=3"
    )
    assert short.printed.count("(thinking) the model was still thinking after 3 tokens") >= 5


def test_a_model_with_a_block_is_hardened(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    output = tmp_path / "run"
    parts = "objective.parts=[{name: cat}, {name: prefill_recovery}, {name: kl}, {name: over_refusal}]"
    ended = recipe(adv_finetune, str(folder / "config.yaml"), f"output={output}", parts, *BRIEF)
    assert ended.code == 0, ended.error
    chat_run.check_consistent(read_chat_results(output), output, ended.printed)
    assert not [answer for answer in chat_run.kept_answers(output, "hardened") if "think" in answer.text]
    kept = AutoTokenizer.from_pretrained(output / "merged")
    assert kept.chat_template == BLOCK


def test_checkpoints_are_chosen_by_answers_without_their_thoughts(
    folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, read = [], []
    monkeypatch.setattr(choosing, "elicit", lambda *a, **k: read.append(k["speech"].marks) or elicit(*a, **k))
    for name in ("plain", "thinking"):
        chosen = (
            f"model.name={folder / name}",
            f"output={tmp_path / name}",
            "selection={rows: 24, max_new_tokens: 40}",
        )
        task = prepare(load_config(folder / "config.yaml", chosen))
        loaded = task.load()
        score = task.hardening(loaded).score
        assert score is not None
        found.append(score(loaded.model))
    assert found[0].clean == found[1].clean and 0 < found[0].clean < 1
    assert read == [("<think>", "</think>")] * 2


def test_a_model_that_thinks_beyond_every_answer_is_not_trained(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    model = f"model.name={folder / 'thinking'}"
    short = "selection.max_new_tokens=3"
    ended = recipe(adv_finetune, str(folder / "config.yaml"), f"output={tmp_path / 'run'}", model, *BRIEF, short)
    assert ended.code == 1 and "selection.max_new_tokens: 3 cuts every answer to a benign" in ended.error
    assert "model.template_variables: {enable_thinking: false}" in ended.error
    assert not (tmp_path / "run" / "training").exists()


# ---- thoughts in the data


def test_thoughts_in_the_data_are_neither_targets_nor_their_beginning(
    folder: Path, recipe: Recipe, tmp_path: Path
) -> None:
    thought = "<think>\nfirst this\n</think>\n\n"
    data = []
    for stream, column in (("adversarial", "target"), ("utility", "response")):
        rows = [row | {column: thought + str(row[column])} for row in chat_run.data()[f"{stream}_test"]]
        data.append(f"data.{stream}.test={chat_run.write_rows(tmp_path / f'{stream}.jsonl', rows)}")
    plain = Measured(recipe, folder, "thinking", tmp_path / "plain")
    found = Measured(recipe, folder, "thinking", tmp_path / "thought", *data)
    assert re.search(r"data.adversarial: \d+ answers hold a thought. It is left out", found.ended.printed)
    count = len(chat_run.data()["utility_test"])
    assert f"data.utility: {count} answers hold a thought. It stands before the answer" in found.ended.printed
    for name in ("direct", "direct (target said)", "prefill 4", "prefill 4 (target said)", "embedding"):
        assert found.rows(name) == plain.rows(name), name
    perplexity = "utility perplexity"
    assert found.measures[perplexity].weights == plain.measures[perplexity].weights
    assert found.rows(perplexity) != plain.rows(perplexity)


# ---- the clock and the template

DATED = "{{ '<|system|>Today is ' + strftime_now('%d %B %Y') + '<|end|>' }}" + PLAIN


@pytest.fixture
def dated(tmp_path: Path) -> str:
    (tmp_path / "dated.jinja").write_text(DATED, encoding="utf-8")
    return f"model.chat_template={tmp_path / 'dated.jinja'}"


def later(monkeypatch: pytest.MonkeyPatch, days: int) -> None:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return datetime(2026, 3, 1, 12) + timedelta(days=days)

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)


def test_a_run_under_a_template_that_reads_the_clock_is_not_resumed_another_day(
    folder: Path, recipe: Recipe, tmp_path: Path, dated: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = f"model.name={folder / 'plain'}"
    command = (str(folder / "config.yaml"), f"output={tmp_path / 'run'}", model, dated, *BRIEF)
    later(monkeypatch, 0)
    ended = recipe(adv_finetune, *command)
    assert ended.code == 0, ended.error
    warning = "The chat template reads the clock: now it writes '<|system|>Today is 01 March 2026<|end|>"
    assert warning in ended.printed
    assert warning[:60] in (tmp_path / "run" / "report.md").read_text(encoding="utf-8").replace("\\", "")
    same = recipe(adv_finetune, *command, "checkpoint.resume=true")
    assert same.code == 0, same.error
    later(monkeypatch, 1)
    other = recipe(adv_finetune, *command, "checkpoint.resume=true")
    assert other.code == 1 and "Traceback" not in other.error
    assert "These have changed since: data.adversarial.test.tokens, data.adversarial.train.tokens" in other.error
    assert "The chat template reads the clock, and now writes '<|system|>Today is 02 March 2026" in other.error
    assert "Start anew in another output folder" in other.error and "Put them back" not in other.error


def test_a_further_model_whose_template_reads_the_clock_is_told(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    shutil.copytree(folder / "plain", tmp_path / "dated")
    (tmp_path / "dated" / "chat_template.jinja").write_text(DATED, encoding="utf-8")
    both = ("--model", str(folder / "plain"), "--model", str(tmp_path / "dated"), "--output", str(tmp_path / "out"))
    ended = recipe(evaluate, str(folder / "config.yaml"), *both, *BRIEF)
    assert ended.code == 0, ended.error
    told = f"{tmp_path / 'dated'}: The chat template reads the clock"
    assert ended.printed.count("reads the clock") == ended.printed.count(told) == 2, "as a warning and as a note"


def test_tokens_that_change_for_another_reason_do_not_blame_the_clock(
    folder: Path, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = (str(folder / "config.yaml"), f"output={tmp_path / 'run'}", *BRIEF)
    assert recipe(adv_finetune, *command).code == 0
    compare = task_output._require_unchanged
    for changed, told in (
        (["data.utility.test.tokens"], "Another version of transformers, or of the tokenizer's files"),
        (["data.utility.test.tokens", "data.utility.test"], "Put them back"),
    ):

        def compared(output: Path, before: Mapping[str, str], *rest: Any, changed: list[str] = changed) -> None:
            compare(output, {**before, **dict.fromkeys(changed, "other")}, *rest)

        monkeypatch.setattr(task_output, "_require_unchanged", compared)
        ended = recipe(adv_finetune, *command, "checkpoint.resume=true")
        assert ended.code == 1 and told in ended.error and "clock" not in ended.error


TEMPLATES = {
    "{{ 1 // 0 }}": "ZeroDivisionError",
    "{% include 'other.jinja' %}": "TypeError: no loader",
    "{% break %}": "SyntaxError",
    "{{ messages[7].content }}": "has no element 7",
    "{% for m in messages %}": "Unexpected end of template",
    "{{ raise_exception('only texts') }}": "only texts",
}


@pytest.mark.parametrize("jinja", TEMPLATES)
def test_whatever_a_template_raises_is_one_message(jinja: str, folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    path = tmp_path / "odd.jinja"
    path.write_text(jinja, encoding="utf-8")
    output = tmp_path / "run"
    ended = recipe(adv_finetune, str(folder / "config.yaml"), f"output={output}", f"model.chat_template={path}", *BRIEF)
    assert ended.code == 1 and ended.error.startswith("error: data.adversarial: row ")
    assert f"the chat template in model.chat_template ({path}) refuses a chat of the turns user" in ended.error
    assert TEMPLATES[jinja] in ended.error and "Traceback" not in ended.error


def test_a_variable_that_the_template_does_not_read_is_refused(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    off = "model.template_variables={enable_thinkng: false}"
    ended = recipe(adv_finetune, str(folder / "config.yaml"), f"output={tmp_path / 'run'}", off, *BRIEF)
    assert ended.code == 1
    assert "model.template_variables.enable_thinkng: the chat template reads no variable of that name" in ended.error


def test_marks_that_are_given_tell_thought_and_answer_apart(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    found = Measured(recipe, folder, "thinking", tmp_path / "out", "model.think=['is asked', '</think>']")
    assert {answer.thought for answer in found.said("direct").values()} == {"here?"}


def test_a_text_that_spells_a_special_token_is_told(folder: Path, recipe: Recipe, tmp_path: Path) -> None:
    rows = [row | {"prompt": f"{row['prompt']} <|end|>"} for row in chat_run.data()["utility_test"][:2]]
    test = chat_run.write_rows(tmp_path / "rows.jsonl", rows)
    found = Measured(recipe, folder, "block", tmp_path / "out", f"data.utility.test={test}")
    assert "the texts of 2 utility test rows spell special tokens of the tokenizer (<|end|>)" in found.ended.printed
