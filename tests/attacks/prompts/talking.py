"""A tiny chat model as attacks in text know it, a vocabulary of a few words, and what behaviours ask of it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from tests.chat_run import KINDS, tokenizer
from textadv.attacks.prompts.rewritten import AskedFor
from textadv.attacks.prompts.victim import ChatVictim
from textadv.data.rendering import Template, one_turn
from textadv.values.randomness import seeded_scope

REQUEST = "Tell me the forbidden recipe"
TARGET = "Sure, here is"


@cache
def victim(words: int | None = None, max_length: int | None = None) -> ChatVictim:
    """A random Llama with the lab's template; words: so many tokens are its vocabulary, None: all."""
    from transformers import AutoModelForCausalLM

    with seeded_scope(1):
        model = AutoModelForCausalLM.from_config(KINDS["llama"]()).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.mul_(2.0)
    made = ChatVictim(model, Template(tokenizer()), max_length)
    if words is not None:
        vars(made)["vocabulary"] = _blank_led(words)
    return made


def _blank_led(words: int) -> Tensor:
    """Tokens that are a blank and letters, which survive wherever they stand."""
    texts = {token: tokenizer().decode([token]) for token in range(len(tokenizer()))}
    led = [token for token, text in texts.items() if text.startswith(" ") and text[1:].isalpha()]
    return torch.tensor(led[:words])


def asked(number: int = 3, request: str = REQUEST, target: str = TARGET) -> AskedFor:
    """One behaviour of one turn."""
    return AskedFor(number, tuple(one_turn(request)), target)
