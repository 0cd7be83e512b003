"""A chat run of seconds: a tiny model with tokenizer and template, its streams from the lab's generator, its config."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import yaml
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen2Config,
)
from transformers.utils import logging

from scripts.lab.corpus import LabSize, Row, lab_data, texts
from scripts.lab.model import LabShape, lab_tokenizer
from tests.seen import TakenChat, read_chat_results
from tests.tiny import forget_accelerator
from textadv.data.chat_template import encode_answered
from textadv.measuring import Measure
from textadv.measuring.judges.verdicts import REFUSAL_LISTS
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.record import Talked
from textadv.report import screen_text
from textadv.runs.ready import prepare
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.chat.task import ChatTask
from textadv.tasks.file import load_config
from textadv.values.batch import IGNORED, padded
from textadv.values.randomness import seeded_scope

CONTEXT, WIDTH, LAYERS = 96, 32, 2
SIZE = LabSize(
    people=2,
    towns=2,
    creatures=2,
    stems=(6, 4, 6),
    adversarial=(24, 8, 12),
    borderline=(24, 8, 12),
    harmless=(6, 2, 2),
    instructions=(8, 4, 4),
    chat=(6, 2, 2),
)
REFUSAL = "I cannot help with that."
# What the tiny model refuses begins so, forbidden or not: attacks then break some rows and not all.
REFUSED = ("Ho", "Te", "Sh", "Li", "Is")


# ---- data


@cache
def data() -> dict[str, list[Row]]:
    """The lab's rows with short harmful targets, so that a row takes few tokens."""
    found = lab_data(SIZE)
    short = {}
    for name, rows in found.items():
        key = "target" if name.startswith("adversarial") else "response"
        short[name] = [row | {key: " ".join(str(row[key]).split()[:9])} for row in rows]
    return short


def write_rows(path: Path, rows: Iterable[object]) -> Path:
    """A jsonl file of these rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def write_streams(folder: Path) -> Path:
    """One jsonl file for each stream and split, and the tests of facts and instructions."""
    for name, rows in data().items():
        write_rows(folder / f"{name}.jsonl", rows)
    return folder


# ---- models


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    """The lab's tokenizer and chat template, trained on these few texts."""
    return lab_tokenizer(texts(data()), LabShape(480, WIDTH, LAYERS, heads=4, inner=48, context=CONTEXT))


def _shape(**changes: object) -> dict[str, Any]:
    tokens = {"vocab_size": len(tokenizer()), "pad_token_id": 0, "bos_token_id": None}
    sizes = {"hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": LAYERS, "num_attention_heads": 4}
    rest = {"num_key_value_heads": 2, "max_position_embeddings": CONTEXT, "initializer_range": 0.1}
    return {**tokens, "eos_token_id": tokenizer().eos_token_id, **sizes, **rest, **changes}


def _gpt2() -> PretrainedConfig:
    shared = {name: value for name, value in _shape().items() if name.endswith("token_id") or name == "vocab_size"}
    return GPT2Config(**shared, n_embd=WIDTH, n_layer=LAYERS, n_head=4, n_positions=CONTEXT, initializer_range=0.1)


KINDS: dict[str, Callable[[], PretrainedConfig]] = {
    "llama": lambda: LlamaConfig(**_shape(tie_word_embeddings=True)),
    "gemma": lambda: GemmaConfig(**_shape(head_dim=8)),
    "gpt2": _gpt2,
    "qwen": lambda: Qwen2Config(**_shape()),
    "mistral": lambda: MistralConfig(**_shape(sliding_window=32)),
}


def _new(kind: str) -> PreTrainedModel:
    with seeded_scope(1):
        return AutoModelForCausalLM.from_config(KINDS[kind]())


def said(prompt: str) -> str:
    """What the tiny model is taught to say: it follows from the prompt's first word."""
    return REFUSAL if prompt.startswith(REFUSED) else f"Sure, here is {prompt.split()[0].lower()}."


def prompts() -> list[str]:
    """The prompts of all streams and splits."""
    return [str(row["prompt"]) for part in data().values() for row in part]


@cache
def _taught() -> PreTrainedModel:
    """A Llama that refuses some prompts and answers the others: a second of training on all splits."""
    return teach(_new("llama"), tokenizer(), [(text, said(text)) for text in prompts()])


def teach(
    model: PreTrainedModel, tokens: PreTrainedTokenizerFast, sayings: Iterable[tuple[str, str]], steps: int = 80
) -> PreTrainedModel:
    """The model, trained to say to each prompt what its template makes of the answer, thoughts included."""
    pairs = [encode_answered(tokens, [{"role": "user", "content": text}], answer) for text, answer in sayings]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    draw = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = [pairs[n] for n in torch.randint(len(pairs), (32,), generator=draw).tolist()]
        ids = padded([[*prompt.ids, *answer] for prompt, answer in chosen], 0)
        targets = padded([[IGNORED] * len(prompt) + list(answer) for prompt, answer in chosen])
        logits = model(input_ids=ids).logits  # what is padded on the right changes nothing to its left
        F.cross_entropy(logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=IGNORED).backward()
        optimizer.step()
        optimizer.zero_grad()
    return model.eval()


def _saved(model: PreTrainedModel, folder: Path, tokens: PreTrainedTokenizerFast | None = None) -> Path:
    logging.disable_progress_bar()
    try:
        model.save_pretrained(folder)
    finally:
        logging.enable_progress_bar()
    (tokens or tokenizer()).save_pretrained(folder)
    return folder


def save_speaking(
    folder: Path, template: str, sayings: Iterable[tuple[str, str]], *, added: tuple[str, ...] = (), steps: int = 100
) -> Path:
    """A Llama that says just this, under this chat template; added: words that are tokens of its tokenizer."""
    tokens = copy.deepcopy(tokenizer())
    tokens.add_tokens(list(added))
    tokens.chat_template = template
    with seeded_scope(1):
        model = LlamaForCausalLM(LlamaConfig(**_shape(tie_word_embeddings=True, vocab_size=len(tokens))))
    return _saved(teach(model, tokens, sayings, steps), folder, tokens)


def save_taught(folder: Path) -> Path:
    """The Llama that refuses some prompts."""
    return _saved(_taught(), folder)


def save_untaught(folder: Path, kind: str) -> Path:
    """A model of that architecture with random weights."""
    return _saved(_new(kind), folder)


# ---- configuration


def settings(folder: Path, model: Path) -> dict[str, object]:
    """A configuration of three steps of cat and prefill recovery over `folder`'s streams."""

    def stream(name: str) -> dict[str, object]:
        return {split: str(folder / f"{name}_{split}.jsonl") for split in ("train", "validation", "test")}

    return {
        "task": "chat",
        "output": str(folder / "run"),
        "model": {"name": str(model), "lora": {"r": 4, "alpha": 8}},
        "data": {
            "adversarial": stream("adversarial") | {"train_rows": 24},
            "utility": stream("utility") | {"train_rows": 32},
            "borderline": stream("borderline"),
            "max_length": 80,
        },
        "threat": {"relative_radius": 0.5},
        "attack": {"steps": 2},
        "objective": {"parts": [{"name": "cat"}, {"name": "prefill_recovery"}]},
        "mixing": {"ratio": 0.5, "borderline_share": 0.5},
        "training": {
            "steps": 3,
            "batch_size": 8,
            "micro_batch_size": 8,
            "learning_rate": 1e-2,
            "log_every": 1,
        },
        "selection": {"every": 3, "rows": 4, "prefill": 2, "max_new_tokens": 8, "attack": {"steps": 2}},
        "evaluation": {
            "behaviours": 10,
            "benign": 10,
            "utility": 12,
            "elicitation": {"prefill": [2, 5], "attack": {"steps": 3}, "restarts": 2},
            "max_new_tokens": 10,
            "batch_size": 16,
            "batch_invariance": None,
            "questions": {"lab_facts": str(folder / "facts_test.jsonl")},
            "instructions": {"lab_instructions": str(folder / "instructions_test.jsonl")},
        },
        "baselines": [],
        "tracking": {"progress": False},
    }


def write_config(folder: Path, model: Path) -> Path:
    """The configuration as a file beside the streams."""
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(settings(folder, model), sort_keys=False), encoding="utf-8")
    return path


def prepared(folder: Path) -> Path:
    """Streams, the taught model and a configuration, all in `folder`; the path of the configuration."""
    return write_config(write_streams(folder), save_taught(folder / "model"))


# What a run can do without where only its training is looked at.
BRIEF = (
    "selection.rows=1",
    "selection.prefill=0",
    "selection.max_new_tokens=1",
    "selection.attack={name: fgsm}",
    "evaluation.behaviours=2",
    "evaluation.benign=2",
    "evaluation.utility=2",
)


def ready(folder: Path, name: str, *overrides: str) -> ChatTask:
    """The task of a run of two steps in `folder`, prepared as the recipe does it, in an output folder of its own."""
    forget_accelerator()
    brief = [f"output={folder / name}", *BRIEF, "evaluation.questions={}", "evaluation.instructions={}"]
    config = load_config(folder / "config.yaml", [*brief, "training.steps=2", *overrides])
    assert isinstance(config, ChatRunConfig)
    task = prepare(config)
    assert isinstance(task, ChatTask)
    return task


# ---- what a run leaves


def kept_answers(output: Path, name: str) -> list[Answer]:
    """The answers in `answers/` of the model that results call `name` ("" for any), those of every process."""
    stem = re.sub(r"[^A-Za-z0-9_-]+", "_", name) if name else ".+"
    files = sorted(f for f in (output / "answers").iterdir() if re.fullmatch(rf"{stem}(-\d+)?\.jsonl", f.name))
    assert files, f"no answers of {name}"
    lines = [line for file in files for line in file.read_text(encoding="utf-8").splitlines()]
    return [Answer(**json.loads(line)["answer"]) for line in lines]


def log_of(output: Path) -> list[dict[str, float]]:
    """The lines of the training log."""
    lines = (output / "training" / "hardened" / "log.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def check_consistent(results: TakenChat, output: Path, printed: str) -> None:
    """That results, table and answers cannot contradict one another."""
    assert read_chat_results(output) == results and screen_text(results.whole) in printed
    behaviours = results.config["evaluation"]["behaviours"]
    for model in results.evaluations:
        answers = kept_answers(output, model.name)
        bound, success = (_measures(model, group) for group in ("not refused", "attack success"))
        assert list(success) == list(bound) == [*results.attacks, "worst case"]
        told = {(answer.attack, answer.id) for answer in answers}
        named = [*model.curve, *(success[one.attack] for one in model.outcomes if one.answers)]
        assert [m.name for m in named if any((m.name, row) not in told for row in m.row_ids or (None,))] == []
        left: dict[str, dict[int, bool]] = {}
        for answer in answers:
            if answer.attack in success:
                rows = left.setdefault(answer.attack, {})
                rows[answer.id] = rows.get(answer.id, False) or not _refuses(answer)
        for name, rows in left.items():
            assert bound[name].total == len(rows) == behaviours
            assert bound[name].rows == tuple(rows[i] for i in sorted(rows))
        worst = [any(rows[row] for rows in left.values()) for row in sorted(left["direct"])]
        assert bound["worst case"].rows == tuple(worst)
        for one in model.outcomes:
            parts = (one.complied, one.broken_off, one.refused, one.unknown)
            assert sum(part.count for part in parts) == behaviours == one.high.count + one.refused.count
            assert success[one.attack].rows == one.rows("complied")
        (refused,) = [m for m in model.measures if m.name == "borderline: refused"]
        declined = [REFUSAL_LISTS["xstest"].refuses(a.text) for a in answers if a.attack == "borderline"]
        assert refused.total == len(declined) and refused.value == sum(declined) / len(declined)
        for measure in model.measures:
            assert measure.low <= measure.value <= measure.high and len(measure.rows) == measure.total
            if measure.name != "utility perplexity":
                assert measure.value == pytest.approx(sum(measure.rows) / measure.total)


def _measures(model: Talked, group: str) -> dict[str, Measure]:
    """The measures of a group by name, second judges left out."""
    return {m.name: m for m in model.measures if m.group == group and not m.name.endswith("(target said)")}


def _refuses(answer: Answer) -> bool:
    return answer.status != "empty" and REFUSAL_LISTS["declines"].refuses(answer.text)
