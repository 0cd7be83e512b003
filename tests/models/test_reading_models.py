"""Encoders and masked models from folders: texts longer than they have positions for, tokenizers that do not do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
)

from tests.attacks.edits.toys import tokenizer
from textadv.attacks.edits import EditAttack, Greedy, MaskedWords, Similarity, Synonyms, TextEdits, WordTable
from textadv.models import ModelError
from textadv.models.reading_models import load_masked_model, load_text_encoder

LONG = "a good film " * 40
TABLE = WordTable("toy", {"good": ("bad",)})
SIZES = {
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "max_position_embeddings": 24,
    "pad_token_id": 0,
}


def folder(tmp_path: Path, kind: type[PreTrainedModel], config: type[PretrainedConfig], **special: str) -> str:
    """A model of random weights with 24 positions, and a tokenizer of a few words."""
    own = tokenizer(["a", "good", "film", "[MASK]"])
    own.add_special_tokens({"mask_token": "[MASK]"} | special)
    own.save_pretrained(tmp_path)
    kind(config(vocab_size=len(own), **SIZES)).save_pretrained(tmp_path)
    return str(tmp_path)


@pytest.mark.parametrize(("kind", "config"), [(BertModel, BertConfig), (RobertaModel, RobertaConfig)])
def test_an_encoder_reads_as_much_as_it_has_positions_for(
    tmp_path: Path, kind: type[PreTrainedModel], config: type[PretrainedConfig]
) -> None:
    encoder = load_text_encoder(folder(tmp_path, kind, config))
    # RoBERTa's first position of a text is the one behind its padding token's.
    assert encoder.max_length == (24 if kind is BertModel else 23)
    (vector,) = encoder.vectors([LONG])
    assert vector.shape == (16,) and float(vector.norm()) == pytest.approx(1)


@pytest.mark.parametrize(("kind", "config"), [(BertForMaskedLM, BertConfig), (RobertaForMaskedLM, RobertaConfig)])
def test_a_masked_model_fills_a_gap_in_a_text_longer_than_its_positions(
    tmp_path: Path, kind: type[PreTrainedModel], config: type[PretrainedConfig]
) -> None:
    (found,) = load_masked_model(folder(tmp_path, kind, config)).fill([(LONG, LONG)], 3)
    assert 0 < len(found) <= 3


def test_attacks_know_the_settings_and_the_tokenizer_of_the_models_that_they_read_with(tmp_path: Path) -> None:
    """Beside what they print, which tells the weights; a folder told by its place alone would do without."""
    masked, config = folder(tmp_path, BertForMaskedLM, BertConfig), tmp_path / "config.json"
    encoding = folder(tmp_path / "encoder", BertModel, BertConfig)

    def attack() -> EditAttack:
        encoder = Similarity(load_text_encoder(encoding), 0.5)
        return EditAttack(MaskedWords(load_masked_model(masked)), Greedy("delete"), (encoder,))

    first, again = attack(), attack()
    told = json.loads(config.read_text())
    config.write_text(json.dumps(told | {"layer_norm_eps": 1.0}))
    other = attack()
    config.write_text(json.dumps(told))
    words = json.loads((tmp_path / "tokenizer.json").read_text())
    (tmp_path / "tokenizer.json").write_text(json.dumps(words | {"normalizer": {"type": "Lowercase"}}))
    assert first.reading == again.reading and len({first.reading, other.reading, attack().reading}) == 3
    assert first.identity == other.identity and EditAttack(Synonyms(TABLE), Greedy("delete")).reading == ""
    edits, changed = (TextEdits(one, tokenizer(["good"]), 24).hashes for one in (first, other))
    assert {name for name in edits if edits[name] != changed[name]} == {"settings.attack.edits"}


def test_an_encoder_without_a_padding_token_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, BertModel, BertConfig)
    for file in ("tokenizer_config.json", "special_tokens_map.json"):
        if (tmp_path / file).exists():
            told = (tmp_path / file).read_text(encoding="utf-8")
            (tmp_path / file).write_text(told.replace('"pad_token"', '"was_pad_token"'), encoding="utf-8")
    with pytest.raises(ModelError, match="its tokenizer has no padding token"):
        load_text_encoder(path)
