"""Chat models read off a sheet: what is said next follows from the last token, and from how the prompt is moved.

Each is built so that one goal of a search leads to what the adversary wants, and the others spend the ball elsewhere.
A prompt's move has a size along each of a few channels, its sum over the positions; a channel adds its slope times that
size to the logits of the tokens that it speaks for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM
from transformers.modeling_outputs import CausalLMOutputWithPast

from tests.measuring.talking import ASSISTANT, END, NO, PAD, SORRY, START
from tests.oracles import FixedRows
from textadv.measuring.judges.verdicts import RefusalList, Verdict
from textadv.values.batch import Batch, Role, padded

TARGET = tuple(range(10, 16))
OWN = tuple(range(16, 22))
TAIL = tuple(range(22, 62))
CROWD = tuple(range(62, 122))
VOCABULARY = 122
CHANNELS = 8
SURE, NEXT, LOW = 12.0, -10.0, -60.0
REFUSALS = RefusalList("sorry", ("sorry",), anywhere=True, case_sensitive=False)
ROWS = 3


@dataclass(frozen=True)
class Sheet:
    """first: logits of the first token of an answer. steers: channel -> tokens that it speaks for -> slope.

    chains: what follows each token for certain. loose: tokens that follow theirs only by chance: they are as likely as
    each of the crowd.
    """

    first: Mapping[int, float]
    steers: Mapping[int, Mapping[int, float]]
    target: tuple[int, ...] = (*TARGET, END)
    loose: frozenset[int] = frozenset()
    after_crowd: int = END
    chains: tuple[tuple[int, ...], ...] = field(default=((SORRY, NO, END), (*OWN, END)))


class Steered(LlamaForCausalLM):
    """The model of a sheet; its cache holds the moved embeddings, which are zero where nothing moves them."""

    def __init__(self, sheet: Sheet) -> None:
        super().__init__(
            LlamaConfig(
                vocab_size=VOCABULARY,
                hidden_size=CHANNELS,
                intermediate_size=8,
                num_hidden_layers=1,
                num_attention_heads=1,
                pad_token_id=PAD,
                bos_token_id=START,
                eos_token_id=END,
            )
        )
        table = torch.full((VOCABULARY, VOCABULARY), LOW)
        table[:, START] = NEXT
        table[ASSISTANT, [*sheet.first]] = torch.tensor([*sheet.first.values()])
        for chain in (*sheet.chains, sheet.target):
            for one, other in pairwise(chain):
                table[one, other] = 0.0 if other in sheet.loose else SURE
                if other in sheet.loose:
                    table[one, list(CROWD)] = 0.0
        table[list(CROWD), sheet.after_crowd] = SURE
        slopes = torch.zeros(CHANNELS, VOCABULARY)
        for channel, tokens in sheet.steers.items():
            slopes[channel, [*tokens]] = torch.tensor([*tokens.values()])
        self.register_buffer("table", table)
        self.register_buffer("slopes", slopes)
        with torch.no_grad():
            self.get_input_embeddings().weight.zero_()

    def forward(  # type: ignore[override]
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: DynamicCache | None = None,
        use_cache: bool = False,
        logits_to_keep: int | Tensor = 0,
    ) -> CausalLMOutputWithPast:
        moved = self.get_input_embeddings()(input_ids).unsqueeze(1)
        cache = past_key_values if past_key_values is not None else DynamicCache() if use_cache else None
        if cache is not None:
            moved = cache.update(moved, moved, 0)[0]
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        size = moved.squeeze(1).sum(dim=1)
        logits = self.table[input_ids[:, kept]] + (size @ self.slopes).unsqueeze(1)
        return CausalLMOutputWithPast(logits=logits, past_key_values=cache)


def steered(sheet: Sheet) -> Steered:
    """In evaluation mode."""
    return Steered(sheet).eval()


def rows(sheet: Sheet) -> FixedRows:
    """The same request a few times, under ids of their own, two of its tokens editable."""
    ids = torch.tensor([[START, 6, 7, ASSISTANT]] * ROWS)
    return FixedRows(
        Batch(
            inputs={"input_ids": ids, "attention_mask": torch.ones_like(ids)},
            labels=torch.zeros(ROWS, dtype=torch.int64),
            editable=torch.tensor([[False, True, True, False]] * ROWS),
            ids=torch.arange(ROWS) + 40,
            role=torch.full((ROWS,), int(Role.ADVERSARIAL)),
            answers={"harmful": padded([sheet.target] * ROWS)},
            prompt_lengths=torch.tensor([4] * ROWS),
        )
    )


@dataclass
class Begins:
    """A judge to whom an answer is broken that begins with these words."""

    words: str
    name: str = "begins"
    version: str = "1"

    def judge(self, prompts: Sequence[str], responses: Sequence[str]) -> list[Verdict]:
        return [Verdict("ok", response.startswith(self.words), None, "") for response in responses]


_ALL = dict.fromkeys(TARGET[1:], 30.0)
# Goal -> the model on which it alone leads to what the adversary wants.
SHEETS: dict[str, Sheet] = {
    # The tail of the long target, as unlikely as ever whatever is done, draws a search for the whole of it; the rest of
    # the beginning, certain already, one by the margin.
    "early": Sheet(
        first={SORRY: 4.0, TARGET[0]: 0.0, OWN[0]: 1.0, **dict.fromkeys(CROWD, 0.0)},
        steers={0: {TARGET[0]: 6.0}, 1: {OWN[0]: 1.0}, 2: {SORRY: -1.0}, 3: dict.fromkeys(TAIL, 1.0), 4: _ALL},
        target=(*TARGET, *TAIL),
        loose=frozenset(TAIL),
    ),
    # A crowd of unlikely first tokens draws every cross-entropy; none of them is the strongest.
    "early_margin": Sheet(
        first={SORRY: 5.7, TARGET[0]: 0.0, OWN[0]: 1.0, **dict.fromkeys(CROWD, 5.0)},
        steers={0: {TARGET[0]: 6.0}, 1: {OWN[0]: 1.0}, 4: dict.fromkeys(CROWD, -6.0)},
    ),
    # Out of reach is the target, and what the model would say instead is likelier made by its later tokens.
    "away": Sheet(
        first={SORRY: 4.0, TARGET[0]: -18.0, OWN[0]: 1.0},
        steers={0: {TARGET[0]: 20.0}, 2: {SORRY: -4.0}, 5: dict.fromkeys(OWN[1:], 3.0)},
        loose=frozenset(OWN[1:]),
    ),
    # The refusal is driven down a little by what leads nowhere; the target is out of reach.
    "own": Sheet(
        first={SORRY: 4.0, TARGET[0]: -18.0, OWN[0]: 0.5, **dict.fromkeys(CROWD, 0.0)},
        steers={0: {TARGET[0]: 20.0}, 1: {OWN[0]: 6.0}, 2: {SORRY: -2.0}},
        after_crowd=SORRY,
    ),
}
