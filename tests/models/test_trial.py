"""Rows of every kind before a run: what a model cannot read ends in one message that says what to change."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    AutoTokenizer,
    BartConfig,
    BertConfig,
    GPT2Config,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    RobertaConfig,
    T5Config,
)

from tests import folders
from tests.oracles import BagOfEmbeddings
from textadv.data import EncodedRows, Examples, encode
from textadv.models import (
    LoadedModel,
    ModelError,
    PerturbationError,
    TokenRows,
    require_embedded,
    require_longest,
    require_readable,
)
from textadv.values.digests import weights_hash
from textadv.values.randomness import rng_state, seeded_scope

TEXTS = ("a fine film", "", "dull", "not at all what I had hoped for, and yet I would see it again", "a dull plot")
POSITIONS = 24
SIZES = {"num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24, "hidden_size": 16}
HALVES = {"d_model": 16, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
HALVES |= {"encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 24, "decoder_ffn_dim": 24}


def sized(tokens: PreTrainedTokenizerFast, **more: object) -> dict[str, object]:
    ends = {"pad_token_id": tokens.pad_token_id, "eos_token_id": tokens.eos_token_id}
    return {"vocab_size": len(tokens), "num_labels": 2, **ends, **more}


MAKE: dict[str, Callable[[dict[str, object]], PretrainedConfig]] = {
    "bert": lambda own: BertConfig(**SIZES, **own, max_position_embeddings=POSITIONS, initializer_range=0.2),
    "roberta": lambda own: RobertaConfig(**SIZES, **own, max_position_embeddings=POSITIONS, initializer_range=0.2),
    "gpt2": lambda own: GPT2Config(n_embd=16, n_layer=1, n_head=2, n_positions=POSITIONS, initializer_range=0.5, **own),
    "llama": lambda own: LlamaConfig(**SIZES, **own, num_key_value_heads=2, initializer_range=0.2),
    "bart": lambda own: BartConfig(**HALVES, **own, max_position_embeddings=POSITIONS, init_std=0.2),
    "t5": lambda own: T5Config(d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2, **own),
}


def loaded(name: str, tokens: PreTrainedTokenizerFast | None = None, **more: object) -> LoadedModel:
    """A tiny classifier with random weights, whose tokenizer knows one end token."""
    tokens = tokens or folders.tokenizer(eos_token="[SEP]")
    start = {"decoder_start_token_id": tokens.eos_token_id} if name in ("bart", "t5") else {}
    with seeded_scope(0):
        model = AutoModelForSequenceClassification.from_config(MAKE[name](sized(tokens, **start, **more)))
    return LoadedModel(model.train(), tokens, ())


def rows(tokens: PreTrainedTokenizerFast, *texts: str, pairs: tuple[str, ...] | None = None) -> EncodedRows:
    count = len(texts)
    examples = Examples(texts, pairs, (0,) * count, tuple(range(100, 100 + count)))
    return encode(examples, tokens, max_length=POSITIONS - 4)


def read(one: LoadedModel, *texts: str, **options: object) -> str | None:
    """What is said of these texts, as those of the test split; the others' are in order."""
    parts = {"train": rows(one.tokenizer, *TEXTS), "test": rows(one.tokenizer, *(texts or TEXTS), **options)}
    return require_readable("mine", one, parts, POSITIONS - 4)


def refused(one: LoadedModel, *texts: str, **options: object) -> str:
    with pytest.raises(ModelError) as error:
        read(one, *texts, **options)
    assert "\n" not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("name", MAKE)
def test_a_model_that_reads_everything_is_left_as_it_was(name: str) -> None:
    one = loaded(name)
    before, modes = weights_hash(one.model), [module.training for module in one.model.modules()]
    state = rng_state()
    assert read(one) is None
    assert weights_hash(one.model) == before and [module.training for module in one.model.modules()] == modes
    assert all(torch.equal(value, state[key]) for key, value in rng_state().items())
    assert all(value.grad is None for value in one.model.parameters())


# ---- tokens


def with_more(tokens: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokens.add_tokens([AddedToken(word, normalized=False) for word in ("<user>", "<url>")])
    return tokens


@pytest.mark.parametrize("name", ["bert", "gpt2", "bart"])
def test_tokens_without_an_embedding_are_named_with_their_rows(name: str) -> None:
    one = loaded(name)
    size = len(one.tokenizer)
    with_more(one.tokenizer)
    assert read(one) is None, "no row has one of them"
    told = refused(one, "dull", "<user> a film", "see <url>", *TEXTS, "<user> <url>")
    assert told.startswith("model.name mine: its tokenizer has tokens that the model has no embedding for: ")
    assert f"'<user>' (id {size}), '<url>' (id {size + 1}). They stand in test rows 101, 102, 108, and" in told
    assert f"the model's table has {size} rows, for ids 0 to {size - 1}. Call model.resize_token_embeddings" in told


def test_many_rows_are_counted_and_prompts_are_looked_at_too() -> None:
    one = loaded("bert")
    size = len(one.tokenizer)
    parts = {"train": TokenRows(range(9), [[size]] * 9), "prompt": TokenRows([4, 5], [[0], [0, size]])}
    with pytest.raises(ModelError, match="train rows 0, 1, 2, 3, 4 and 4 more; prompt row 5, and the model's table"):
        require_embedded("mine", one.model, one.tokenizer, parts)


def test_after_a_resize_the_same_rows_are_read() -> None:
    one = loaded("bert")
    with_more(one.tokenizer)
    one.model.resize_token_embeddings(len(one.tokenizer), mean_resizing=False)
    assert read(one, "<user> a film", "see <url>") is None


# ---- lengths


def longest_known(name: str) -> int:
    """The most tokens by the architecture's own rules: RoBERTa counts positions from its padding id on."""
    return POSITIONS - 1 - folders.tokenizer().pad_token_id if name == "roberta" else POSITIONS


@pytest.mark.parametrize("name", ["bert", "roberta", "gpt2", "bart"])
def test_the_largest_length_that_works_is_told(name: str) -> None:
    one = loaded(name)
    text = " ".join(["dull"] * 60)
    parts = {"train": encode(Examples((text,), None, (0,), (7,)), one.tokenizer, 50)}
    most = longest_known(name)
    with pytest.raises(ModelError) as error:
        require_longest("mine", one.model, parts, 50)
    assert str(error.value).startswith(
        f"data.max_length: 50 lets rows of 50 tokens through, and model.name mine takes at most {most}: "
    )
    assert str(error.value).endswith(f"Lower data.max_length to {most}.")
    fitting = encode(Examples((text,), None, (0,), (7,)), one.tokenizer, most)
    require_longest("mine", one.model, {"train": fitting}, most)


# ---- kinds of rows


def test_token_types_that_the_model_does_not_know() -> None:
    one = loaded("bert", type_vocab_size=1)
    assert read(one) is None
    told = refused(one, "dull", "a film", pairs=("a plot", "fine"))
    assert "It takes them without token_type_ids, of which the tokenizer makes 0 to 1." in told
    assert 'Set "model_input_names": ["input_ids", "attention_mask"] in tokenizer_config.json.' in told


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_an_end_token_that_a_text_spells(name: str) -> None:
    told = refused(loaded(name), "a film", "dull [SEP] plot", "fine", "[SEP]")
    assert told.startswith("model.name mine is an encoder-decoder, whose classifier takes a batch only where all rows")
    assert "end tokens, [SEP]: 1 here, but not in test rows 101, 103, whose texts spell it. Take it out of" in told
    assert told.endswith('or to have it read as text set "split_special_tokens": true in its tokenizer_config.json.')
    assert read(loaded(name), "a [SEP] film", "dull [SEP] plot") is None, "as many in every row"


def test_the_remedy_for_it_works(tmp_path: Path) -> None:
    folders.tokenizer(eos_token="[SEP]").save_pretrained(tmp_path)
    place = tmp_path / "tokenizer_config.json"
    place.write_text(json.dumps(json.loads(place.read_text()) | {"split_special_tokens": True}))
    one = loaded("bart", AutoTokenizer.from_pretrained(tmp_path))
    assert read(one, "a film", "dull [SEP] plot") is None
    assert not any(rows(one.tokenizer, "dull [SEP] plot").spelled)


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_a_tokenizer_that_ends_no_text(name: str) -> None:
    one = loaded(name, folders.tokenizer(eos_token="[MASK]"))
    told = refused(one)
    assert "reads a row's last end token (id 4), and the tokenizer puts none there. Use the tokenizer that it" in told


def test_padding_that_moves_positions_is_refused_where_another_side_would_do() -> None:
    left = loaded("gpt2")
    left.tokenizer.padding_side = "left"
    told = refused(left)
    assert "gives train row 100 other logits beside longer rows than alone" in told
    assert told.endswith('Set "padding_side": "right" in its tokenizer_config.json.')
    relative = loaded("llama")
    relative.tokenizer.padding_side = "left"
    assert read(relative) is None


@pytest.mark.parametrize("name", ["bart", "t5"])
def test_padding_that_a_decoder_would_read_is_refused(name: str) -> None:
    left = loaded(name)
    left.tokenizer.padding_side = "left"
    assert refused(left).endswith('Set "padding_side": "right" in its tokenizer_config.json.')


class Reading(nn.Module):
    """Logits from a bag of words, changed by `after`; it looks at padding where it is told so."""

    def __init__(self, size: int, after: Callable[[Tensor], Tensor], padding: bool = False) -> None:
        super().__init__()
        self.bag, self.padding, self.after = BagOfEmbeddings(), padding, after
        self.bag.embeddings = nn.Embedding(size, 8, dtype=torch.float64)
        self.bag.importance = torch.ones(size, dtype=torch.float64)

    def get_input_embeddings(self) -> nn.Module:
        return self.bag.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor) -> Tensor:
        return self.after(self.bag(input_ids, torch.ones_like(attention_mask) if self.padding else attention_mask))


def reading(after: Callable[[Tensor], Tensor] = lambda logits: logits, padding: bool = False) -> LoadedModel:
    tokens = folders.tokenizer()
    with seeded_scope(0):
        return LoadedModel(Reading(len(tokens), after, padding), tokens, ())


def test_a_model_that_reads_padding_is_told_of() -> None:
    assert read(reading()) is None
    told = read(reading(padding=True))
    assert told is not None and told.startswith("model: mine gives train row")
    assert told.endswith("it reads padding, so that its numbers depend on batch sizes.")


def test_a_model_that_draws_numbers_differs_from_itself() -> None:
    assert read(reading(lambda logits: logits + torch.rand_like(logits))) is None


def raising(error: Exception, logits: Tensor) -> Tensor:
    raise error


@pytest.mark.parametrize(
    "error",
    [
        AttributeError("no such part"),
        IndexError("out of\n range"),
        KeyError("part"),
        NotImplementedError("not yet"),
        RuntimeError("shapes differ"),
        TypeError("unexpected keyword argument"),
        ValueError("not so"),
        ZeroDivisionError("by zero"),
        AssertionError("never"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_whatever_the_models_own_code_raises_becomes_one_message(error: Exception) -> None:
    told = refused(reading(partial(raising, error)))
    assert f"model.name mine does not take train row 103: {type(error).__name__}: " in told
    assert told.endswith("Name a model that takes such rows, or correct its config.json, tokenizer or code.")


@pytest.mark.parametrize("error", [ModelError("mine"), PerturbationError("mine")], ids=["model", "perturbation"])
def test_our_own_errors_stay_what_they_are(error: Exception) -> None:
    with pytest.raises(type(error), match="^mine$"):
        read(reading(partial(raising, error)))


MEMORY = [torch.OutOfMemoryError("CUDA out of memory."), RuntimeError("DefaultCPUAllocator: not enough memory")]


@pytest.mark.parametrize("error", MEMORY, ids=["accelerator", "cpu"])
def test_too_little_memory(error: Exception) -> None:
    assert refused(reading(partial(raising, error))).endswith("Lower data.max_length, or use a smaller model.")


def test_half_precision_that_the_cpu_does_not_compute() -> None:
    one = reading(partial(raising, RuntimeError("\"addmm\" not implemented for 'Half'")))
    one.model.half()
    assert refused(one).endswith("The CPU does not compute all of it in float16. Set model.dtype: float32.")


def test_numbers_that_are_not_finite() -> None:
    one = loaded("bert")
    with torch.no_grad():
        one.model.classifier.weight[0] = torch.nan
    told = refused(one)
    assert told.startswith("model.name mine returns numbers that are not finite for train row 103.")
    assert "classifier.weight" in told
    with torch.no_grad():
        one.model.classifier.weight.fill_(6e4)
    one.model.half()
    assert refused(one).endswith("float16 may overflow: set model.dtype: float32.")
