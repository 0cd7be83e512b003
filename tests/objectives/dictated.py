"""A chat model whose next-token probabilities are written down, so that objectives give numbers worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import PretrainedConfig

from textadv.attacks import Attacked, Cost
from textadv.attacks.parts.attacked import Outcome
from textadv.values.batch import Batch, Role, padded
from textadv.values.spaces import Embeddings

TOKENS = 8
Odds = Mapping[int, Mapping[int, float]]
"""token -> next token -> nats that it costs there; tokens that are not named share what is left."""


class Bigram(nn.Module):
    """Logits and hidden states after block 0 are row `token` of a table, whatever stands before."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.config = PretrainedConfig(num_hidden_layers=1, hidden_size=TOKENS)
        self.embeddings = nn.Embedding(TOKENS, TOKENS, _weight=torch.eye(TOKENS, dtype=table.dtype))
        self.blocks = nn.ModuleList([nn.Linear(TOKENS, TOKENS, bias=False, dtype=table.dtype)])
        self.blocks[0].weight.data = table.T.clone()

    def get_input_embeddings(self) -> nn.Module:
        return self.embeddings

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        logits_to_keep: Tensor | None = None,
        use_cache: bool = False,
    ) -> Tensor:
        logits = self.blocks[0](self.embeddings(input_ids))
        return logits if logits_to_keep is None else logits[:, logits_to_keep]


def table(odds: Odds) -> Tensor:
    """The logits (token, next token) that give these losses."""
    rows = torch.zeros(TOKENS, TOKENS, dtype=torch.float64)
    for token, costs in odds.items():
        left = 1 - sum(torch.tensor(-cost, dtype=torch.float64).exp() for cost in costs.values())
        assert left > 0, "more than a probability of 1"
        rows[token] = torch.log(left / (TOKENS - len(costs)))
        for following, cost in costs.items():
            rows[token, following] = -cost
    return rows


def plain(after: Tensor) -> nn.Module:
    """The model of a table, all of it trained."""
    return Bigram(after).train()


def adapted(before: Tensor, after: Tensor) -> PeftModel:
    """The model of table `before` with an adapter that makes it the one of `after`."""
    settings = LoraConfig(r=TOKENS, lora_alpha=TOKENS, target_modules=["blocks.0"], init_lora_weights=False)
    model = get_peft_model(Bigram(before), settings).double()  # type: ignore[arg-type]
    factors = dict(model.named_parameters())
    with torch.no_grad():
        next(value for name, value in factors.items() if "lora_A" in name).copy_(torch.eye(TOKENS))
        next(value for name, value in factors.items() if "lora_B" in name).copy_((after - before).T)
    return model.train()


def chats(
    harmful: Sequence[Sequence[int]],
    safe: Sequence[Sequence[int]],
    *,
    prompt: Sequence[int] = (1, 2),
    role: Role = Role.ADVERSARIAL,
) -> Batch:
    """Rows of one editable prompt with these answers, composed with the safe ones."""
    count, size = len(safe), len(prompt)
    return Batch(
        inputs={
            "input_ids": padded([prompt] * count, 0),
            "attention_mask": torch.ones(count, size, dtype=torch.int64),
        },
        labels=torch.zeros(count, dtype=torch.int64),
        editable=torch.ones(count, size, dtype=torch.bool),
        ids=torch.arange(count) + 40,
        role=torch.full((count,), int(role)),
        answers={"harmful": padded(harmful), "safe": padded(safe)},
        prompt_lengths=torch.full((count,), size),
    ).answering("safe")


@dataclass(frozen=True)
class Replace:
    """An attack that turns the prompt's last token into another one, and notes what it was given."""

    token: int
    calls: list[tuple[list[list[int]], int, float, bool]] = field(default_factory=list)

    def __call__(
        self,
        model: nn.Module,
        batch: Batch,
        *,
        step: int = 0,
        radius_scale: float | Tensor = 1.0,
        measure: bool = True,
    ) -> Attacked:
        self.calls.append((batch.inputs["input_ids"].tolist(), step, float(radius_scale), measure))
        delta = torch.zeros(*batch.inputs["input_ids"].shape, TOKENS, dtype=torch.float64)
        delta[:, 1, self.token] += 1
        delta[:, 1, 2] -= 1
        cost = Cost(*(torch.full_like(batch.labels, count) for count in (5, 4, 2)))
        zero = torch.zeros(len(batch), dtype=torch.float64)
        outcome = Outcome(zero.bool(), zero, zero, zero) if measure else None
        return Attacked(batch.perturbed(Embeddings(), delta), torch.ones(len(batch)), cost, outcome)
