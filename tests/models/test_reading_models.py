"""Encoders and masked models from folders: texts longer than they have positions for, tokenizers that do not do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
    RobertaModel,
    T5Config,
    T5Model,
)

from tests.attacks.edits.toys import tokenizer
from textadv.attacks.edits import EditAttack, Greedy, MaskedWords, Similarity, Synonyms, TextEdits, WordTable
from textadv.models import ModelError
from textadv.models.reading_models import MaskedModel, TextEncoder, load_masked_model, load_text_encoder

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


def test_an_encoder_reads_a_longer_text_to_its_end(tmp_path: Path) -> None:
    encoder = load_text_encoder(folder(tmp_path, BertModel, BertConfig))
    start = "a good film " * 20
    one, other, again = encoder.vectors([f"{start}good good good", f"{start}a a a", f"{start}good good good"])
    assert not torch.allclose(one, other, atol=1e-4) and torch.equal(one, again)


class Axes(nn.Module):
    """The state of each token is an axis of its own, that of special ones none."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.table = nn.Embedding(size, size, _weight=torch.eye(size).masked_fill(torch.arange(size) < 4, 0))
        self.widths: list[int] = []

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> object:
        self.widths.append(input_ids.shape[1])
        return type("Output", (), {"last_hidden_state": self.table(input_ids)})


def test_the_vector_of_a_longer_text_is_the_mean_over_its_windows_by_hand() -> None:
    """Windows of three words between two special tokens: 2 good of 6 words in two windows, then 1 film alone."""
    own = tokenizer(["a", "good", "film"])
    model = Axes(len(own))
    (vector,) = TextEncoder("axes", "0", model, own, 5).vectors(["a good good a a a film"])
    told = {word: float(vector[own.convert_tokens_to_ids(word)]) for word in ("a", "good", "film")}
    assert told["good"] == pytest.approx(2 * told["film"]) and told["a"] == pytest.approx(4 * told["film"])
    assert float(vector.norm()) == pytest.approx(1) and max(model.widths) == 5


def test_half_of_an_encoder_decoder_is_refused_when_it_is_loaded(tmp_path: Path) -> None:
    own = tokenizer(["a", "good", "film"])
    own.save_pretrained(tmp_path)
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5Model(T5Config(vocab_size=len(own), decoder_start_token_id=0, **sizes)).save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="gives no vector of a text: ValueError: You must.*Name the folder of an enc"):
        load_text_encoder(str(tmp_path))


@pytest.mark.parametrize("kind", [BertForMaskedLM, BertModel])
def test_a_tokenizer_with_more_tokens_than_the_model_is_refused(tmp_path: Path, kind: type[PreTrainedModel]) -> None:
    path = folder(tmp_path, kind, BertConfig)
    kind(BertConfig(vocab_size=5, **SIZES)).save_pretrained(tmp_path)
    load = load_masked_model if kind is BertForMaskedLM else load_text_encoder
    with pytest.raises(ModelError, match="no embedding for: their ids go up to 7, and its table has 5 rows"):
        load(path)


def test_a_masked_model_without_whole_words_is_refused(tmp_path: Path) -> None:
    path = folder(tmp_path, BertForMaskedLM, BertConfig)
    own = tokenizer(["1", "2", "3", "[MASK]"])
    own.add_special_tokens({"mask_token": "[MASK]"})
    own.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="is a whole word, so that none could fill a gap"):
        load_masked_model(path)


def byte_level() -> PreTrainedTokenizerFast:
    """Lovely and good are words behind a space; vely goes on with lo, and neither has a mark."""
    pieces = ["<mask>", "<pad>", *pre_tokenizers.ByteLevel.alphabet(), "lo", "ve", "ly", "vely", "go", "od", "good"]
    pieces += ["Ġlo", "Ġlovely", "Ġgood"]
    merges = [("l", "o"), ("v", "e"), ("l", "y"), ("ve", "ly"), ("g", "o"), ("o", "d"), ("go", "od")]
    merges += [("Ġ", "lo"), ("Ġlo", "vely"), ("Ġ", "good")]
    inner = Tokenizer(models.BPE({piece: n for n, piece in enumerate(sorted(set(pieces)))}, merges))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=inner, mask_token="<mask>", pad_token="<pad>")


class Same(nn.Module):
    """The same logits (V,) everywhere."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = nn.Parameter(logits)

    def forward(self, input_ids: Tensor, **_: Tensor) -> object:
        return type("Output", (), {"logits": self.logits.expand(*input_ids.shape, -1)})


def test_pieces_of_words_without_a_mark_of_their_own_fill_no_gap() -> None:
    own = byte_level()
    likely = own.convert_tokens_to_ids(["vely", "good", "Ġlovely", "ly", "Ġgood", "lo"])
    logits = torch.full((len(own),), -9.0)
    logits[likely] = torch.tensor([6.0, 5.0, 4.0, 3.0, 2.0, 1.0])
    model = MaskedModel("same", "0", Same(logits), own)
    behind_space, at_start = model.fill([("a ", " film"), ("", " film")], 2)
    assert [word for word, _ in behind_space] == ["lovely", "good"]
    # At the beginning of a text a word stands without the space; good in either form is one candidate.
    assert [word for word, _ in at_start] == ["good", "lovely"]
    assert at_start[0][1] > behind_space[1][1]
