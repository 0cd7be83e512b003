"""The laboratory's tokenizer, template, weights and batches: the same each time."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from jinja2.exceptions import TemplateError
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerFast

from scripts.lab.batches import encoded, helpful_batches, packed, refusal_batches
from scripts.lab.corpus import SMALL, Row, lab_data, texts
from scripts.lab.model import END, LabShape, lab_llama, lab_tokenizer, save_lab_llm
from textadv.values.batch import IGNORED

SHAPE = LabShape(vocabulary=900, width=16, layers=2, heads=2, inner=24)
CHAT = [
    {"role": "system", "content": "Answer briefly and politely."},
    {"role": "user", "content": " What colour is zorblax powder?\n"},
    {"role": "assistant", "content": "The colour of it is green."},
    {"role": "user", "content": "Ünlucky ☃ 12"},
]


@pytest.fixture(scope="module")
def data() -> dict[str, list[Row]]:
    return lab_data(SMALL)


@pytest.fixture(scope="module")
def tokenizer(data: dict[str, list[Row]]) -> PreTrainedTokenizerFast:
    return lab_tokenizer(texts(data), SHAPE)


def test_training_the_tokenizer_again_gives_the_same(
    tokenizer: PreTrainedTokenizerFast, data: dict[str, list[Row]]
) -> None:
    again = lab_tokenizer(texts(data), SHAPE)
    assert again.backend_tokenizer.to_str() == tokenizer.backend_tokenizer.to_str()
    assert len(tokenizer) <= SHAPE.vocabulary
    assert tokenizer.eos_token == END
    assert len({tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.unk_token_id}) == 3


def test_the_template_goes_round(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, tokenize=False)
    wanted = "".join(f"<|{turn['role']}|>{turn['content']}<|end|>" for turn in CHAT) + "<|assistant|>"
    assert text == wanted
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert tokenizer.decode(ids) == wanted
    assert tokenizer.apply_chat_template(CHAT, add_generation_prompt=True, return_dict=False) == ids
    assert tokenizer.apply_chat_template(CHAT[1:2], tokenize=False) == wanted.split("<|end|>")[1] + "<|end|>"


def test_no_token_reaches_over_a_border(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(CHAT, tokenize=False)
    parts = [f"<|{turn['role']}|>" for turn in CHAT], [turn["content"] for turn in CHAT]
    alone = [
        piece
        for mark, content in zip(*parts, strict=True)
        for part in (mark, content, END)
        for piece in tokenizer(part, add_special_tokens=False).input_ids
    ]
    assert tokenizer(text, add_special_tokens=False).input_ids == alone


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match="unknown role: tool"):
        tokenizer.apply_chat_template([{"role": "tool", "content": "x"}])


@pytest.mark.parametrize(
    ("text", "pieces"),
    [
        (" vimtolzorb", ["Ġvim", "tol", "zorb"]),
        ("vimtolberry", ["vim", "tol", "berry"]),
        (" 12", ["Ġ", "1", "2"]),
    ],
)
def test_made_up_words_and_numbers_have_familiar_pieces(
    tokenizer: PreTrainedTokenizerFast, text: str, pieces: list[str]
) -> None:
    assert tokenizer.convert_ids_to_tokens(tokenizer(text, add_special_tokens=False).input_ids) == pieces


def test_a_saved_model_and_tokenizer_load_as_they_were(tokenizer: PreTrainedTokenizerFast, tmp_path: Path) -> None:
    model = lab_llama(tokenizer, SHAPE, seed=3)
    save_lab_llm(model, tokenizer, tmp_path)
    assert (tmp_path / "model.safetensors").is_file()
    again = AutoTokenizer.from_pretrained(tmp_path)
    text = again.apply_chat_template(CHAT, tokenize=False)
    assert text == tokenizer.apply_chat_template(CHAT, tokenize=False)
    assert again(text)["input_ids"] == tokenizer(text)["input_ids"]
    assert (again.pad_token_id, again.eos_token_id) == (tokenizer.pad_token_id, tokenizer.eos_token_id)
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path)
    ids = torch.tensor([again(text)["input_ids"]])
    assert torch.equal(loaded(input_ids=ids).logits, model.eval()(input_ids=ids).logits)


def test_the_weights_follow_the_seed_and_leave_the_global_generator_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    before = torch.get_rng_state()
    first, same, other = (lab_llama(tokenizer, SHAPE, seed).lm_head.weight for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(first, same)
    assert not torch.equal(first, other)


def test_rows_count_on_the_answer_and_its_end_alone(tokenizer: PreTrainedTokenizerFast) -> None:
    rows = [encoded(tokenizer, "What colour is it?", "green."), encoded(tokenizer, "Hi", "Hello!", "Answer briefly.")]
    batch = packed(rows, tokenizer.pad_token_id)
    for (prompt, answer), ids, targets in zip(rows, batch.ids, batch.targets, strict=True):
        counted = targets != IGNORED
        assert targets[counted].tolist() == answer
        assert answer[-1] == tokenizer.eos_token_id
        assert int(counted.nonzero()[0]) == len(prompt) - 1
        whole = prompt + answer
        assert ids[: len(whole) - 1].tolist() == whole[:-1]
        assert set(ids[len(whole) - 1 :].tolist()) <= {tokenizer.pad_token_id}
    assert rows[1][0][0] == tokenizer.convert_tokens_to_ids("<|system|>")


def test_batches_are_a_function_of_the_seed_and_hold_every_row(
    tokenizer: PreTrainedTokenizerFast, data: dict[str, list[Row]]
) -> None:
    few = {name: rows[:40] for name, rows in data.items()}
    one, same, other = (helpful_batches(tokenizer, few, 2, 16, seed) for seed in (0, 0, 1))
    assert sum(len(batch.ids) for batch in one) == 2 * 3 * 40
    assert all(torch.equal(a.ids, b.ids) for a, b in zip(one, same, strict=True))
    assert any(a.ids.shape != b.ids.shape or not torch.equal(a.ids, b.ids) for a, b in zip(one, other, strict=True))
    steps = refusal_batches(tokenizer, few, 5, (2, 3, 4), 0)
    assert [len(step.ids) for step in steps] == [9] * 5
    decoded = [tokenizer.decode(ids) for step in steps for ids in step.ids[:2]]
    assert all(any(str(row["prompt"]) in text for row in few["adversarial_train"]) for text in decoded)
