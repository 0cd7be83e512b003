"""stories260K, a real pretrained language model, through its conversion script; skipped without its weights."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from scripts import convert_stories260k as script
from textadv.data.chat_template import Segment, encode_prompt
from textadv.data.thoughts import Speech
from textadv.measuring.capability.likelihood import answer_nll
from textadv.models import LoadedModel, load_causal
from textadv.models.decoding import end_ids, generate_tokens

# What llama2.c itself prints at temperature 0.
BEGINNING = (
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the park. One day, she saw a "
    "big, red ball. She wanted to play with it, but it was too high."
)


def sources(shared: Path) -> tuple[Path, Path]:
    folder = shared / "weights" / "stories260K"
    if not folder.is_dir():
        pytest.skip("no stories260K: ../shared/weights/stories260K with stories260K.bin and tok512.bin")
    return folder / "stories260K.bin", folder / "tok512.bin"


@pytest.fixture(scope="module")
def folder(shared: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("stories")
    script.convert(*sources(shared), output)
    return output


@pytest.fixture(scope="module")
def loaded(folder: Path) -> LoadedModel:
    return load_causal(str(folder))


@pytest.fixture(scope="module")
def stories(shared: Path) -> list[str]:
    texts: list[str] = json.loads((shared / "data" / "tinystories" / "tinystories_1000.json").read_text("utf-8"))
    return texts


def test_every_weight_is_used(loaded: LoadedModel) -> None:
    assert sum(weight.numel() for weight in loaded.model.parameters()) == 260_032


def test_it_tells_the_story_that_llama2_c_tells(loaded: LoadedModel) -> None:
    tokenizer = loaded.tokenizer
    prompt = tokenizer("Once upon a time").input_ids
    ends = end_ids(loaded.model, tokenizer, Speech())
    told = generate_tokens(loaded.model, [prompt], max_new_tokens=90, end_ids=ends, pad_id=0)[0]
    assert tokenizer.decode([*prompt, *told], skip_special_tokens=True).startswith(BEGINNING)


def mean_nll(loaded: LoadedModel, texts: list[str]) -> float:
    coded = [loaded.tokenizer(text, truncation=True).input_ids for text in texts]
    found = answer_nll(loaded.model, [(ids[:1], ids[1:]) for ids in coded], 8)
    return sum(row.nll for row in found) / sum(row.tokens for row in found)


def test_stories_are_likely_and_the_rotary_order_matters(
    loaded: LoadedModel, stories: list[str], shared: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "rotary_halves", lambda weight, heads: weight)
    script.convert(*sources(shared), tmp_path)
    wrong = load_causal(str(tmp_path))
    right, unturned = mean_nll(loaded, stories[:24]), mean_nll(wrong, stories[:24])
    # Trained to 1.30 nats per token on its own validation texts.
    assert right < 1.6
    assert unturned > right + 0.5


def test_rotary_halves_by_hand() -> None:
    """Two heads of four rows: the pairs (0, 1), (2, 3) become (0, 2), (1, 3) by place."""
    rows = torch.arange(8.0).unsqueeze(1)
    assert script.rotary_halves(rows, 2).squeeze(1).tolist() == [0, 2, 1, 3, 4, 6, 5, 7]


def test_the_tokenizer_takes_texts_apart_and_puts_them_together(loaded: LoadedModel, stories: list[str]) -> None:
    tokenizer = loaded.tokenizer
    ascii_texts = [story for story in stories[:100] if story.isascii()]
    assert len(ascii_texts) > 50
    everything = "".join(map(chr, range(32, 127)))
    for text in [*ascii_texts, everything, "a\n\n b\t c ", " led by a blank", "caf\u00e9 \U0001f642"]:
        ids = tokenizer(text, verbose=False).input_ids
        assert ids[0] == tokenizer.bos_token_id
        assert tokenizer.decode(ids, skip_special_tokens=True) == text
    assert tokenizer.convert_ids_to_tokens(tokenizer("Once upon a time").input_ids) == [
        "<s>",
        *("\u2581" + word for word in ("Once", "upon", "a", "time")),
    ]


def test_the_tokenizer_is_fast_and_has_offsets(loaded: LoadedModel) -> None:
    assert loaded.tokenizer.is_fast
    coded = loaded.tokenizer("Once upon\n", return_offsets_mapping=True)
    assert coded["offset_mapping"] == [(0, 0), (0, 4), (4, 9), (9, 10)]
    assert loaded.tokenizer.convert_ids_to_tokens(coded["input_ids"])[-1] == "<0x0A>"


def test_the_template_lets_it_run_through_a_chat_recipe(loaded: LoadedModel) -> None:
    encoded = encode_prompt(loaded.tokenizer, [{"role": "user", "content": "Once upon a time"}])
    assert encoded.segments == (Segment.TEMPLATE, *[Segment.USER] * 4, *[Segment.TEMPLATE] * 2)
    assert loaded.tokenizer.convert_ids_to_tokens(list(encoded.ids[-2:])) == ["</s>", "<s>"]


def test_files_that_do_not_fit(shared: Path, tmp_path: Path) -> None:
    weights, tokenizer = sources(shared)
    (tmp_path / "short.bin").write_bytes(weights.read_bytes()[:-400])
    with pytest.raises(SystemExit, match=r"holds 264028 numbers and its header asks for 264128"):
        script.convert(tmp_path / "short.bin", tokenizer, tmp_path / "out")
    (tmp_path / "few.bin").write_bytes(tokenizer.read_bytes()[:-11])
    with pytest.raises(SystemExit, match=r"has 511 pieces, .* was made for 512"):
        script.convert(weights, tmp_path / "few.bin", tmp_path / "out")
    assert not (tmp_path / "out").exists()
