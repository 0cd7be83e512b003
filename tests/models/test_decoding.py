"""Generation: the same tokens as one row at a time without a cache, whatever stands beside a row."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    GemmaConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    PretrainedConfig,
    Qwen2Config,
)

from textadv.data.thoughts import Speech
from textadv.models.decoding import context_length, end_ids, generate_tokens
from textadv.models.running import _added
from textadv.values.batch import Perturbation
from textadv.values.errors import GenerationError, PerturbationError
from textadv.values.randomness import derived_seed, seeded_scope
from textadv.values.spaces import Ablation, Embeddings, Hidden, Space

PAD, FIRST, END, VOCABULARY, WIDTH = 0, 1, 2, 48, 32
SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 48,
    "initializer_range": 0.3,
    "max_position_embeddings": 64,
    "pad_token_id": PAD,
    "bos_token_id": FIRST,
    "eos_token_id": END,
}
CONFIGS: dict[str, PretrainedConfig] = {
    "llama": LlamaConfig(**SIZES),
    "mistral": MistralConfig(**SIZES, sliding_window=6),
    "qwen2": Qwen2Config(**SIZES),
    "gemma": GemmaConfig(**SIZES, head_dim=16),
    "gpt2": GPT2Config(
        vocab_size=VOCABULARY,
        n_positions=64,
        n_embd=WIDTH,
        n_layer=2,
        n_head=2,
        initializer_range=0.3,
        pad_token_id=PAD,
        bos_token_id=FIRST,
        eos_token_id=END,
    ),
}
NEW = 12
architectures = pytest.mark.parametrize("name", CONFIGS)
spaces = pytest.mark.parametrize("space", [Embeddings(), Hidden(0)], ids=["embeddings", "hidden"])


def causal(name: str = "llama", dtype: torch.dtype = torch.float64, lora: bool = False) -> nn.Module:
    """A tiny model in training mode whose answers vary with the prompt."""
    with seeded_scope(0):
        model = AutoModelForCausalLM.from_config(CONFIGS[name])
        if lora:
            adapters = LoraConfig(
                r=2, target_modules="all-linear", task_type=TaskType.CAUSAL_LM, init_lora_weights=False
            )
            adapters.fan_in_fan_out = name == "gpt2"
            model = get_peft_model(model, adapters)
    return model.to(dtype).train()


def prompts(lengths: Sequence[int] = (3, 9, 1, 6, 4)) -> list[list[int]]:
    generator = torch.Generator().manual_seed(5)
    return [torch.randint(3, VOCABULARY, (length,), generator=generator).tolist() for length in lengths]


def greedy(model: nn.Module, rows: Sequence[Sequence[int]], **settings: object) -> list[list[int]]:
    wanted = {"max_new_tokens": NEW, "end_ids": (END,), "pad_id": PAD} | settings
    return generate_tokens(model, rows, **wanted)  # type: ignore[arg-type]


@torch.no_grad()
def uncached(
    model: nn.Module, prompt: Sequence[int], delta: Tensor | None = None, space: Space | None = None, new: int = NEW
) -> list[int]:
    """One row alone, the whole text read anew for every token, the delta on the prompt's positions."""
    found: list[int] = []
    training = model.training
    model.eval()
    while len(found) < new and (not found or found[-1] != END):
        ids = torch.tensor([[*prompt, *found]])
        if delta is None:
            logits = model(input_ids=ids, use_cache=False).logits
        else:
            assert space is not None
            moved = nn.functional.pad(delta[: len(prompt)], (0, 0, 0, len(found)))[None]
            with _added(model, Perturbation(space, moved)):
                logits = model(input_ids=ids, use_cache=False).logits
        found.append(int(logits[0, -1].argmax()))
    model.train(training)
    return found


def streams(rows: Sequence[int], sample: int = 0) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(derived_seed(7, row, sample)) for row in rows]


@architectures
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("lora", [False, True], ids=["plain", "lora"])
def test_greedy_is_that_of_transformers_for_any_batch_size(name: str, dtype: torch.dtype, lora: bool) -> None:
    model = causal(name, dtype, lora)
    rows = prompts()
    expected = []
    model.eval()
    for prompt in rows:
        ids = torch.tensor([prompt])
        mask = torch.ones_like(ids)
        found = model.generate(input_ids=ids, attention_mask=mask, max_new_tokens=NEW, do_sample=False)
        expected.append(found[0, len(prompt) :].tolist())
    model.train()
    assert len({tuple(answer) for answer in expected}) == len(rows), "all answers differ, or the test shows nothing"
    for size in (1, 2, len(rows)):
        parts = [greedy(model, rows[start : start + size]) for start in range(0, len(rows), size)]
        assert [answer for part in parts for answer in part] == expected
    assert model.training and not any(parameter.grad is not None for parameter in model.parameters())


def test_rows_that_end_early_leave_the_others_alone() -> None:
    """One row's third token is made an ending token: it stops there, and the rest go on as they did."""
    model, rows = causal(), prompts()
    free = greedy(model, rows, end_ids=())
    ending = free[1][2]
    found = greedy(model, rows, end_ids=(END, ending))
    expected = []
    for answer in free:
        cut = next((n + 1 for n, token in enumerate(answer) if token in (END, ending)), NEW)
        expected.append(answer[:cut])
    assert found == expected
    assert len({len(answer) for answer in expected}) > 1 and max(map(len, expected)) == NEW


@architectures
@spaces
def test_a_perturbed_prompt_is_answered_as_without_cache_and_padding(name: str, space: Space) -> None:
    model, rows = causal(name), prompts()
    generator = torch.Generator().manual_seed(1)
    delta = torch.zeros(len(rows), 9 + 4, WIDTH, dtype=torch.float64)
    size = 0.5 if isinstance(space, Embeddings) else 3.0
    for row, prompt in enumerate(rows):
        delta[row, : len(prompt)] = size * torch.randn((len(prompt), WIDTH), generator=generator, dtype=torch.float64)
    expected = [uncached(model, prompt, delta[row], space) for row, prompt in enumerate(rows)]
    plain = [uncached(model, prompt) for prompt in rows]
    changed = [one != other for one, other in zip(expected, plain, strict=True)]
    assert sum(changed) >= 3, "the delta matters"
    for size in (1, 2, len(rows)):
        found = []
        for start in range(0, len(rows), size):
            place = slice(start, start + size)
            found += greedy(model, rows[place], delta=delta[place], space=space)
        assert found == expected
    assert greedy(model, rows) == plain, "nothing of the delta stays behind"


def test_a_delta_may_be_shorter_than_the_longest_row() -> None:
    """As when answer tokens follow the prompt: what has no delta is not moved."""
    model, rows = causal(), prompts((3, 9))
    delta = torch.ones(2, 3, WIDTH, dtype=torch.float64)
    wide = nn.functional.pad(delta, (0, 0, 0, 6))
    found = greedy(model, rows, delta=delta, space=Embeddings())
    assert found == [uncached(model, rows[n], wide[n], Embeddings()) for n in range(2)]
    assert found != greedy(model, rows)


@architectures
def test_samples_do_not_depend_on_the_batch(name: str) -> None:
    model, rows = causal(name), prompts()
    numbers = list(range(len(rows)))
    whole = greedy(model, rows, temperature=1.0, generators=streams(numbers))
    for size in (1, 2):
        parts = []
        for start in range(0, len(rows), size):
            chosen = numbers[start : start + size]
            parts += greedy(model, [rows[n] for n in chosen], temperature=1.0, generators=streams(chosen))
        assert parts == whole
    assert whole != greedy(model, rows, temperature=1.0, generators=streams(numbers, sample=1))
    assert whole != greedy(model, rows)


def test_sampled_tokens_follow_the_models_probabilities() -> None:
    model, temperature = causal(), 2.0
    with torch.no_grad():
        expected = (model.eval()(input_ids=torch.tensor([[5, 6, 7]])).logits[0, -1] / temperature).softmax(dim=0)
    count = 4000
    found = greedy(
        model, [[5, 6, 7]] * count, temperature=temperature, generators=streams(range(count)), max_new_tokens=1
    )
    counts = torch.bincount(torch.tensor(found).flatten(), minlength=VOCABULARY)
    deviation = (expected * (1 - expected) / count).sqrt()
    assert ((counts / count - expected).abs() < 4.5 * deviation + 1e-3).all()
    assert (counts > 0).sum() > 10


def test_a_low_temperature_is_greedy() -> None:
    model, rows = causal(), prompts()
    assert greedy(model, rows, temperature=1e-4, generators=streams(range(5))) == greedy(model, rows)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_row_stops_where_the_positions_end(name: str) -> None:
    model = causal(name)
    rows = prompts((60, 5))
    found = greedy(model, rows, end_ids=(), max_new_tokens=10)
    assert [len(answer) for answer in found] == [4, 10]
    assert context_length(model) == 64
    with pytest.raises(GenerationError, match="leaves no room in the model's 64 positions"):
        greedy(model, prompts((5, 64)))


def test_rows_that_cannot_be_read_are_refused() -> None:
    model = causal()
    with pytest.raises(GenerationError, match="Prompt 1 has no token"):
        greedy(model, [[3], []])
    with pytest.raises(GenerationError, match="token ids from 4 to 48, and the model knows 0 to 47"):
        greedy(model, [[4, 48]])
    with pytest.raises(GenerationError, match="not zero beyond the end of its prompt"):
        greedy(model, [[3], [4, 5]], delta=torch.ones(2, 2, WIDTH), space=Embeddings())
    with pytest.raises(PerturbationError):
        greedy(model, [[3]], delta=torch.ones(1, 1, WIDTH + 1), space=Embeddings())
    with pytest.raises(ValueError, match="needs the space"):
        greedy(model, [[3]], delta=torch.ones(1, 1, WIDTH), space=Ablation((0,)))
    with pytest.raises(ValueError, match="one generator for each of 1 prompts"):
        greedy(model, [[3]], temperature=1.0)
    with pytest.raises(ValueError, match="max_new_tokens must be at least 1, got 0"):
        greedy(model, [[3]], max_new_tokens=0)
    assert greedy(model, []) == []
    assert model.training


def test_logits_that_are_no_numbers_stop_the_rows_they_belong_to() -> None:
    model = causal()
    rows = prompts()
    delta = torch.zeros(len(rows), 9, WIDTH)
    delta[3, 0] = float("nan")
    with pytest.raises(GenerationError, match="prompts \\[3\\] are not finite"):
        greedy(model, rows, delta=delta, space=Embeddings())


def test_end_ids_are_those_of_model_and_tokenizer() -> None:
    class Named:
        eos_token_id = 9

    class Nameless:
        eos_token_id = None

    model = causal()
    assert end_ids(model, Named(), Speech()) == (END, 9)
    model.generation_config.eos_token_id = [5, 3]
    assert end_ids(model, Named(), Speech()) == (3, 5, 9)
    assert end_ids(model, Nameless(), Speech()) == (3, 5)
    model.generation_config.eos_token_id = None
    assert end_ids(model, Nameless(), Speech()) == ()
    assert end_ids(model, Named(), Speech(closing=(8, 7))) == (7, 9), "and the one that ends the template's turns"
