"""Models whose worst case is known in closed form, tiny Hugging Face models built from config, and rows for both."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from transformers import (
    AutoModelForSequenceClassification,
    BartConfig,
    BertConfig,
    DebertaV2Config,
    DistilBertConfig,
    ElectraConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    PretrainedConfig,
    RobertaConfig,
    T5Config,
    ViTConfig,
    ViTForImageClassification,
)

from textadv.attacks import Ball
from textadv.values.batch import Batch, Role
from textadv.values.randomness import seeded_scope

PAD, FIRST, LAST, WORDS, VOCABULARY = 0, 1, 2, 3, 64


class BagOfEmbeddings(nn.Module):
    """logits = sum over attended positions of importance(token) * W e(token) + b: linear in every embedding.

    importance differs between tokens, so that a ball per example and one per token have different optima. The parts
    are deterministic functions of `seed`; nothing depends on the order of the positions or on padding.
    """

    def __init__(self, classes: int = 2, width: int = 8, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype))

        self.embeddings = nn.Embedding(VOCABULARY, width, _weight=drawn(VOCABULARY, width).data)
        self.head = drawn(classes, width)
        self.bias = drawn(classes)
        importance = 0.5 + torch.rand(VOCABULARY, generator=generator, dtype=torch.float64)
        self.register_buffer("importance", importance.to(dtype))

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weight = self.importance[input_ids] * attention_mask
        return (self.embeddings(input_ids) * weight.unsqueeze(-1)).sum(dim=1) @ self.head.T + self.bias


class CurvedBag(BagOfEmbeddings):
    """A bag whose embeddings pass through a bend and dropout first: nonlinear, still blind to order and padding.

    Its products are written out: a matrix product rounds by the number of its rows, differently from machine to
    machine, and a search that turns on such a last bit would depend on its batch.
    """

    def __init__(self, classes: int = 3, width: int = 8, seed: int = 0, dtype: torch.dtype = torch.float64) -> None:
        super().__init__(classes, width, seed, dtype)
        generator = torch.Generator().manual_seed(seed + 1)
        self.inner = nn.Parameter(torch.randn((width, width), generator=generator, dtype=torch.float64).to(dtype))
        self.dropout = nn.Dropout(0.5)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        bent = self.dropout(torch.sin((self.embeddings(input_ids).unsqueeze(-2) * self.inner).sum(dim=-1)))
        weight = self.importance[input_ids] * attention_mask
        pooled = (bent * weight.unsqueeze(-1)).sum(dim=1)
        return (pooled.unsqueeze(1) * self.head).sum(dim=-1) + self.bias


def bag_margin_gain(model: BagOfEmbeddings, batch: Batch, ball: Ball) -> Tensor:
    """The largest rise of (other logit - label's logit) in the ball, (B,), for a two-class `BagOfEmbeddings`.

    The margin's gradient at position i is importance_i * (W_other - W_label); a ball per token adds the dual norms of
    the editable positions up, one ball per example takes the dual norm of all of them together.
    """
    direction = model.head[1 - batch.labels] - model.head[batch.labels]  # (B, D)
    weight = model.importance[batch.inputs["input_ids"]] * batch.editable  # (B, S)
    grad = (weight.unsqueeze(-1) * direction.unsqueeze(1)).detach()  # (B, S, D)
    order = {"L2": 2.0, "Linf": 1.0, "L1": float("inf")}[ball.geometry.name]
    if ball.per == "token":
        return ball.radius * torch.linalg.vector_norm(grad, order, dim=-1).sum(dim=1)
    return ball.radius * torch.linalg.vector_norm(grad.flatten(1), order, dim=1)


def bag_loss_gain(model: BagOfEmbeddings, batch: Batch, ball: Ball) -> Tensor:
    """The same for the cross-entropy, which for two classes is softplus(margin)."""
    logits = model(**batch.inputs).detach()
    before = (logits.gather(1, 1 - batch.labels[:, None]) - logits.gather(1, batch.labels[:, None])).squeeze(1)
    softplus = nn.functional.softplus
    return softplus(before + bag_margin_gain(model, batch, ball)) - softplus(before)


def token_rows(
    lengths: Sequence[int], *, classes: int = 2, side: str = "right", seed: int = 0, ids: Sequence[int] | None = None
) -> Batch:
    """Random rows of these lengths, padded on `side`: a first and a last token that are not editable, words between."""
    generator = torch.Generator().manual_seed(seed)
    width = max(lengths)
    tokens = torch.full((len(lengths), width), PAD)
    attention, editable = torch.zeros_like(tokens), torch.zeros(tokens.shape, dtype=torch.bool)
    for row, length in enumerate(lengths):
        words = torch.randint(WORDS, VOCABULARY, (length - 2,), generator=generator)
        start = width - length if side == "left" else 0
        place = slice(start, start + length)
        tokens[row, place] = torch.tensor([FIRST, *words.tolist(), LAST])
        attention[row, place] = 1
        editable[row, start + 1 : start + length - 1] = True
    labels = torch.randint(0, classes, (len(lengths),), generator=generator)
    return Batch(
        inputs={"input_ids": tokens, "attention_mask": attention},
        labels=labels,
        editable=editable,
        ids=torch.tensor(ids if ids is not None else range(100, 100 + len(lengths))),
        role=torch.full_like(labels, int(Role.CLEAN)),
    )


def rightly_labelled(model: nn.Module, batch: Batch) -> Batch:
    """The same rows, each labelled with what the model predicts in evaluation mode."""
    training = model.training
    with torch.no_grad():
        predictions = model.eval()(**batch.inputs).argmax(dim=1)
    model.train(training)
    return replace(batch, labels=predictions)


def padded(batch: Batch, left: int, right: int) -> Batch:
    """The same token rows with more padding on either side."""
    tokens, attention = batch.inputs["input_ids"], batch.inputs["attention_mask"]
    return replace(
        batch,
        inputs={
            "input_ids": nn.functional.pad(tokens, (left, right), value=PAD),
            "attention_mask": nn.functional.pad(attention, (left, right)),
        },
        editable=nn.functional.pad(batch.editable, (left, right)),
    )


def unpadded(batch: Batch, row: int) -> Batch:
    """One row alone, without any padding."""
    alone = batch.rows(torch.tensor([row]))
    kept = alone.inputs["attention_mask"][0].bool()
    return replace(
        alone,
        inputs={name: value[:, kept] for name, value in alone.inputs.items()},
        editable=alone.editable[:, kept],
    )


def image_rows(count: int, *, classes: int = 3, size: int = 16, seed: int = 0) -> Batch:
    """Random images in [0, 1] whose outermost frame of pixels is not editable."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, classes, (count,), generator=generator)
    editable = torch.zeros((count, 1, size, size), dtype=torch.bool)
    editable[:, :, 1:-1, 1:-1] = True
    return Batch(
        inputs={"pixel_values": torch.rand((count, 3, size, size), generator=generator)},
        labels=labels,
        editable=editable,
        ids=torch.arange(100, 100 + count),
        role=torch.full_like(labels, int(Role.CLEAN)),
    )


@dataclass(frozen=True)
class FixedRows:
    """A data set that is one batch: `textadv.data.Rows` for tests."""

    whole: Batch

    def __len__(self) -> int:
        return len(self.whole)

    @property
    def labels(self) -> tuple[int, ...]:
        return tuple(self.whole.labels.tolist())

    @property
    def ids(self) -> tuple[int, ...]:
        return tuple(self.whole.ids.tolist())

    @property
    def lengths(self) -> tuple[int, ...]:
        return tuple(self.whole.editable.flatten(1).sum(dim=1).tolist())

    def batch(self, index: Sequence[int]) -> Batch:
        return self.whole.rows(torch.tensor(index))


SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "num_labels": 3,
    "initializer_range": 0.2,
}
BERT_LIKE = {"pad_token_id": PAD, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
ENDS = {"pad_token_id": PAD, "bos_token_id": FIRST, "eos_token_id": LAST}

TEXT_CONFIGS: dict[str, Callable[[], PretrainedConfig]] = {
    "bert": lambda: BertConfig(**SIZES, **BERT_LIKE),
    "roberta": lambda: RobertaConfig(**SIZES, **BERT_LIKE, max_position_embeddings=64),
    "distilbert": lambda: DistilBertConfig(
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=48,
        num_labels=3,
        initializer_range=0.2,
        pad_token_id=PAD,
        dropout=0.0,
        attention_dropout=0.0,
        seq_classif_dropout=0.0,
    ),
    "electra": lambda: ElectraConfig(**SIZES, **BERT_LIKE, embedding_size=16),
    "deberta-v2": lambda: DebertaV2Config(
        **SIZES, **BERT_LIKE, pooler_dropout=0.0, relative_attention=True, pos_att_type=["p2c", "c2p"]
    ),
    "modernbert": lambda: ModernBertConfig(
        **SIZES, **ENDS, cls_token_id=FIRST, sep_token_id=LAST, global_attn_every_n_layers=2, local_attention=8
    ),
    "gpt2": lambda: GPT2Config(
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=2,
        num_labels=3,
        initializer_range=0.2,
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        **ENDS,
    ),
    "llama": lambda: LlamaConfig(**SIZES, **ENDS, num_key_value_heads=2),
    "bart": lambda: BartConfig(
        vocab_size=VOCABULARY,
        d_model=32,
        encoder_layers=2,
        decoder_layers=3,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=48,
        max_position_embeddings=64,
        num_labels=3,
        init_std=0.2,
        scale_embedding=True,
        dropout=0.0,
        **ENDS,
        decoder_start_token_id=LAST,
        forced_eos_token_id=LAST,
    ),
    "t5": lambda: T5Config(
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=16,
        d_ff=48,
        num_layers=2,
        num_decoder_layers=3,
        num_heads=2,
        num_labels=3,
        dropout_rate=0.0,
        pad_token_id=PAD,
        eos_token_id=LAST,
        decoder_start_token_id=PAD,
    ),
}


def _text_model(config: Callable[[], PretrainedConfig]) -> nn.Module:
    with seeded_scope(0):
        return AutoModelForSequenceClassification.from_config(config())


def _image_model() -> nn.Module:
    config = ViTConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        image_size=16,
        patch_size=4,
        num_labels=3,
        initializer_range=0.2,
    )
    with seeded_scope(0):
        return ViTForImageClassification(config)


def tiny_models() -> dict[str, Callable[[], nn.Module]]:
    """Constructors of two-layer classifiers over three classes, in training mode, without dropout, by architecture.

    All are sequence classifiers over `token_rows` but the last, `vit`, which takes `image_rows`.
    """
    texts = {name: lambda config=config: _text_model(config).train() for name, config in TEXT_CONFIGS.items()}
    return texts | {"vit": lambda: _image_model().train()}


def tiny_rows(name: str, count: int = 4) -> Batch:
    """Rows that the tiny model of this name takes."""
    if name == "vit":
        return image_rows(count)
    return token_rows([5 + 2 * (row % 3) for row in range(count)], classes=3)


def labelled(labels: list[int]) -> Batch:
    """Rows of four tokens with these labels."""
    batch = token_rows([4] * len(labels))
    return Batch(batch.inputs, torch.tensor(labels), batch.editable, batch.ids, batch.role)
