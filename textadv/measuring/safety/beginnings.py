"""How a chat model itself answers a plain request: with which refusal, and how where it may not refuse.

A search needs no target then: it leads away from the one, or towards the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from textadv.attacks.parts.chat_goals import DECAY, EARLY_TOKENS, early_weights
from textadv.data.rendering import Template
from textadv.data.thoughts import Speech
from textadv.measuring.judges.verdicts import RefusalList
from textadv.measuring.safety.generate import PLAIN, Tokenizer
from textadv.models import evaluating, forward
from textadv.models.decoding import end_ids, generate_tokens
from textadv.values.batch import IGNORED, Batch, padded
from textadv.values.losses import token_losses

USUAL_REFUSALS = ("I'm sorry, but I can't help with that.", "I cannot assist with that request.", "I can't do that.")
# So many tokens of an answer show whether it begins with a refusal.
LOOKED_AT = 5
MOST_ALTERNATIVES = 2
# The most passes of a row that each takes: a pass for each token, for each usual refusal, and for the first tokens.
REFUSAL_PASSES = LOOKED_AT + len(USUAL_REFUSALS)
OWN_PASSES = 1 + MOST_ALTERNATIVES * (LOOKED_AT - 1)
# No search for one of them looks at more tokens.
MOST_BEGUN = max(LOOKED_AT, EARLY_TOKENS)


class Found(NamedTuple):
    """What stands after the prompts. tokens: (B, T), IGNORED after a row's end.

    forwards: (B,), each row's passes. sent: (B,), the tokens that went through the model in them.
    """

    tokens: Tensor
    forwards: Tensor
    sent: Tensor


@dataclass(frozen=True)
class Beginnings:
    """How the model begins by itself; `repr` names all that a result follows from besides the model and its tokenizer.

    tokenizer: the model's. refusals: the list that says what refuses. usual: openings of refusals as tokens, one of
    which stands for the refusal of a model that does not refuse the plain request. speech: what ends the model's turns.
    """

    tokenizer: Tokenizer
    refusals: RefusalList
    usual: tuple[tuple[int, ...], ...]
    speech: Speech = PLAIN

    def __post_init__(self) -> None:
        if not self.usual or not all(self.usual):
            raise ValueError("The usual refusals must be one or more, each of one token or more.")

    def __repr__(self) -> str:
        own = sorted(self.speech.ends - {self.tokenizer.eos_token_id})
        ends = f", ends {own}" if own else ""
        return f"Beginnings({self.refusals.name} {self.refusals.version}, {self.usual}{ends})"

    @classmethod
    def of(cls, template: Template, refusals: RefusalList) -> Beginnings:
        """With the usual openings as the template's tokenizer writes them."""
        tokenizer = template.tokenizer
        usual = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in USUAL_REFUSALS]
        return cls(tokenizer, refusals, tuple(tuple(ids) for ids in usual), template.speech)

    def most_sent(self, prompt: int) -> int:
        """Tokens that finding one of them sends at most for a prompt of so many, what the template adds included."""
        refusal = prompt + LOOKED_AT - 1 + sum(prompt + len(tokens) for tokens in self.usual)
        own = prompt + 1 + MOST_ALTERNATIVES * (prompt + LOOKED_AT - 1)
        return max(refusal, own)

    def refusal(self, model: nn.Module, batch: Batch, opening: Tensor) -> Found:
        """The model's greedy answer to each plain prompt where it is a refusal, else the likeliest of the usual ones.

        batch: chats, each prompt to be answered. opening: (B, G), what the template writes before an answer.
        """
        prompts = _given(batch, opening)
        said = _continued(self, model, prompts, LOOKED_AT)
        rows = [row if self._refuses(row) else () for row in said]
        forwards = torch.tensor([len(row) for row in said])
        sent = torch.tensor([_sent(asked, row) for asked, row in zip(prompts, said, strict=True)])
        bare = [place for place, row in enumerate(rows) if not row]
        if bare:
            index = torch.tensor(bare, device=batch.device)
            chosen = self._likeliest(model, batch.rows(index), opening[index])
            for place, row in zip(bare, chosen, strict=True):
                rows[place] = self.usual[row]
            forwards[bare] += len(self.usual)
            sent[bare] += torch.tensor([sum(len(prompts[n]) + len(usual) for usual in self.usual) for n in bare])
        return Found(padded(rows).to(batch.device), forwards, sent)

    def own(self, model: nn.Module, batch: Batch, opening: Tensor, otherwise: Tensor) -> Found:
        """The likeliest first token from which the model goes on to something else than a refusal, and how it goes on.

        The two likeliest first tokens at the plain prompt are tried in turn, each continued greedily; a row
        that none leads away keeps its row of `otherwise`, (B, T).
        """
        prompts = _given(batch, opening)
        first = _next_logits(model, batch, opening).topk(MOST_ALTERNATIVES, dim=1).indices.tolist()
        rows: list[tuple[int, ...]] = [()] * len(prompts)
        forwards = torch.ones(len(prompts), dtype=torch.int64)
        # The first pass reads one token more than the prompt, in whose place the next one is predicted.
        sent = torch.tensor([len(asked) + 1 for asked in prompts])
        for rank in range(MOST_ALTERNATIVES):
            still = [place for place, row in enumerate(rows) if not row]
            tried = {place: first[place][rank] for place in still if self._speaks(first[place][rank])}
            begun = [[*prompts[place], token] for place, token in tried.items()]
            said = _continued(self, model, begun, LOOKED_AT - 1)
            for (place, token), asked, more in zip(tried.items(), begun, said, strict=True):
                forwards[place] += len(more)
                sent[place] += _sent(asked, more)
                whole = (token, *more)
                if all(map(self._speaks, whole[:EARLY_TOKENS])) and not self._refuses(whole):
                    rows[place] = whole
        ends = (otherwise != IGNORED).sum(dim=1).tolist()
        filled = [row or tuple(otherwise[place, : ends[place]].tolist()) for place, row in enumerate(rows)]
        return Found(padded(filled).to(batch.device), forwards, sent)

    def _speaks(self, token: int) -> bool:
        """Whether a token is neither a special one nor, for all its kind, the end of an answer."""
        spoken = self.tokenizer.decode([token], skip_special_tokens=True) != ""
        return spoken and token not in self.speech.ends

    def _refuses(self, tokens: Sequence[int]) -> bool:
        """Whether they are a refusal, or begin as one does after its "I", around which it was led."""
        text = self.tokenizer.decode(list(tokens), skip_special_tokens=True)
        said = text if isinstance(text, str) else "".join(text)
        words = [phrase.lower().partition(" ") for phrase in self.refusals.phrases]
        rests = tuple(rest for first, _, rest in words if rest and first in ("i", "i'm"))
        return self.refusals.refuses(said) or said.strip().replace("\u2019", "'").lower().startswith(rests)

    def _likeliest(self, model: nn.Module, batch: Batch, opening: Tensor) -> list[int]:
        """For each row the number of the usual refusal that the model is nearest to saying."""
        values = []
        for tokens in self.usual:
            answered = batch.answering(padded([tokens] * len(batch)).to(batch.device), given=opening)
            with torch.no_grad(), evaluating(model):
                losses = token_losses(forward(model, answered), answered, "cross_entropy")
            weights = early_weights(answered.kept_targets != IGNORED, EARLY_TOKENS, DECAY)
            values.append((weights.to(losses) * losses).sum(dim=1))
        return torch.stack(values).argmin(dim=0).tolist()


def _given(batch: Batch, opening: Tensor) -> list[list[int]]:
    """What the model reads before it answers: each prompt with what the template writes after it."""
    assert batch.prompt_lengths is not None
    ids, lengths = batch.inputs["input_ids"].tolist(), batch.prompt_lengths.tolist()
    return [[*ids[row][:length], *opening[row][opening[row] != IGNORED].tolist()] for row, length in enumerate(lengths)]


def _sent(prompt: Sequence[int], said: Sequence[int]) -> int:
    """Tokens that went through the model: the prompt, and what it said but for the last of it."""
    return len(prompt) + len(said) - 1


def _continued(
    self: Beginnings, model: nn.Module, prompts: Sequence[Sequence[int]], tokens: int
) -> list[tuple[int, ...]]:
    """The greedy continuation of each prompt, at most so many tokens."""
    ends, pad = end_ids(model, self.tokenizer, self.speech), self.tokenizer.pad_token_id or 0
    found = generate_tokens(model, prompts, max_new_tokens=tokens, end_ids=ends, pad_id=pad)
    return [tuple(row) for row in found]


def _next_logits(model: nn.Module, batch: Batch, opening: Tensor) -> Tensor:
    """The logits of the token after each plain prompt, (B, V)."""
    asked = batch.clean().answering(torch.zeros_like(batch.ids).unsqueeze(1), given=opening)
    with torch.no_grad(), evaluating(model):
        logits = forward(model, asked)
    return logits[asked.kept_targets != IGNORED]
