"""Generation settings that are not applied are named, where transformers would answer otherwise by them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from transformers import GenerationConfig, LlamaConfig, LlamaForCausalLM

from tests.chat_run import prepared, ready
from textadv.models.generation_settings import AT_ANY_TEMPERATURE, SAMPLING, unapplied, unapplied_notes
from textadv.values.randomness import seeded_scope


def model(**settings: Any) -> LlamaForCausalLM:
    with seeded_scope(0):
        config = LlamaConfig(
            vocab_size=16,
            hidden_size=8,
            intermediate_size=8,
            num_hidden_layers=1,
            num_attention_heads=2,
            max_position_embeddings=64,
        )
        made = LlamaForCausalLM(config).eval()
    made.generation_config = GenerationConfig(eos_token_id=None, pad_token_id=0, **settings)
    return made


def test_what_changes_nothing_is_not_named() -> None:
    plain = {
        "do_sample": True,
        "temperature": 0.6,
        "max_length": 99,
        "repetition_penalty": 1.0,
        "top_p": 1.0,
        "top_k": 0,
    }
    for temperature in (0.0, 1.0):
        assert unapplied(model(), temperature) == unapplied(model(**plain, suppress_tokens=[]), temperature) == {}
    none = model()
    none.generation_config = None
    assert unapplied(none, 1.0) == {} and unapplied_notes("m", none, 1.0) == ()


def test_what_only_changes_draws_is_named_where_answers_are_drawn() -> None:
    made = model(do_sample=True, top_p=0.9, top_k=20, repetition_penalty=1.3)
    assert unapplied(made, 0.0) == {"repetition_penalty": 1.3}
    assert unapplied(made, 0.7) == {"repetition_penalty": 1.3, "top_k": 20, "top_p": 0.9}
    (note,) = unapplied_notes("org/m", made, 0.7)
    assert note.startswith("org/m: its generation_config sets repetition_penalty: 1.3, top_k: 20, top_p: 0.9, which")
    (long,) = unapplied_notes("m", model(suppress_tokens=list(range(99))), 0.0)
    assert "suppress_tokens: [0, 1, 2," in long and "98" not in long


CHANGING: list[dict[str, Any]] = [
    {"repetition_penalty": 50.0},
    {"encoder_repetition_penalty": 50.0},
    {"no_repeat_ngram_size": 1},
    {"encoder_no_repeat_ngram_size": 1},
    {"suppress_tokens": [*range(8)]},
    {"begin_suppress_tokens": [*range(8)]},
    {"bad_words_ids": [[number] for number in range(8)]},
    {"sequence_bias": [[[3], 99.0]]},
    {"forced_eos_token_id": 5},
]


@pytest.mark.parametrize("settings", CHANGING, ids=lambda settings: next(iter(settings)))
def test_what_is_named_changes_the_answers_of_transformers(settings: dict[str, Any]) -> None:
    """One half of the vocabulary or the other holds the likeliest tokens."""
    assert unapplied(model(**settings), 0.0).keys() == settings.keys()
    assert any(_written(model(**own)) != _written(model()) for own in (settings, _other_half(settings)))


def _written(made: LlamaForCausalLM) -> list[list[int]]:
    """What follows either half of the vocabulary."""
    return [made.generate(ids.unsqueeze(0), max_new_tokens=8).tolist() for ids in torch.arange(16).split(8)]


def _other_half(settings: dict[str, Any]) -> dict[str, Any]:
    others = {name: [number + 8 for number in value] for name, value in settings.items() if "suppress" in name}
    others |= {name: [[one + 8] for (one,) in value] for name, value in settings.items() if name == "bad_words_ids"}
    return settings | others


def test_every_setting_is_one_of_transformers() -> None:
    assert {*AT_ANY_TEMPERATURE, *SAMPLING} <= vars(GenerationConfig()).keys()


def test_a_run_names_them_once(tmp_path: Any) -> None:
    prepared(tmp_path)
    (folder,) = [path.parent for path in tmp_path.rglob("config.json")]
    GenerationConfig(do_sample=True, top_p=0.5, repetition_penalty=1.2).save_pretrained(folder)
    told = [line for line in ready(tmp_path, "greedy").warnings if "generation_config" in line]
    assert len(told) == 1 and "sets repetition_penalty: 1.2, which" in told[0] and str(folder) in told[0]
    task = ready(tmp_path, "drawn", "evaluation.temperature=1.0")
    (line,) = [line for line in task.warnings if "generation_config" in line]
    assert "sets repetition_penalty: 1.2, top_p: 0.5, which" in line
    beside = replace(task).compared([str(folder), str(folder)])[-1]
    assert [one for one in dict.fromkeys(beside.warnings) if "generation_config" in one] == [line]
