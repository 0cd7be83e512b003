"""How the checkpoint of a chat model is chosen, on validation rows; of a hardening and of a plain fine-tune."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import nn

from textadv.config.types import ConfigError
from textadv.data import Chat, encode_chats
from textadv.data.rendering import Template
from textadv.measuring.capability.likelihood import answer_nll
from textadv.measuring.judges.verdicts import XSTEST
from textadv.measuring.safety.chat import Panel, share_answered
from textadv.measuring.safety.elicitation import elicit
from textadv.measuring.safety.generate import Prompt, answers
from textadv.measuring.safety.kept_answers import Answer
from textadv.measuring.safety.sanity import said_doubt
from textadv.training.progress import Scores


def _benign_answers(model: nn.Module, used: Template, panel: Panel) -> list[Answer]:
    """What the model says to the benign validation prompts."""
    prompts = [Prompt(n, ids) for n, ids in enumerate(panel.benign["benign"].ids)]
    return answers(model, used.tokenizer, prompts, panel.decoding, speech=used.speech)


def require_answers(model: nn.Module, used: Template, panel: Panel, device: torch.device) -> None:
    """Raises ConfigError where the untrained model thinks until every answer of the selection is cut off."""
    if used.speech.marks is None:
        return
    given = _benign_answers(model.to(device), used, panel)
    if all(answer.status == "thinking" for answer in given):
        raise ConfigError(
            [
                f"selection.max_new_tokens: {panel.decoding.max_new_tokens} cuts every answer to a benign "
                "validation prompt off while the model still thinks, so no checkpoint could be chosen. Raise it (and "
                "evaluation.max_new_tokens), or let the model answer at once, where its chat template has a variable "
                "for that, with model.template_variables: {enable_thinking: false}."
            ]
        )


def chat_scores(model: nn.Module, used: Template, panel: Panel, say: Callable[[str], None]) -> Scores:
    """Benign validation prompts answered; that times validation behaviours unbroken; whether none is answered."""
    found = elicit(
        model,
        used.tokenizer,
        panel.behaviours,
        panel.prompts,
        panel.attacks,
        panel.judge,
        panel.decoding,
        speech=used.speech,
    )
    given = _benign_answers(model, used, panel)
    thinking = sum(answer.status == "thinking" for answer in given)
    if thinking:
        say(
            f"note: {thinking} of {len(given)} answers to benign validation prompts were still thinking after "
            f"selection.max_new_tokens: {panel.decoding.max_new_tokens}, so they count as not answered; raise it"
        )
    answered = share_answered([answer.text for answer in given], XSTEST.refuses).value
    unbroken = 1 - found.worst_case.low.value
    doubt = said_doubt("benign validation prompts", given)
    return Scores(answered, unbroken * answered, answered == 0, doubt)


def plain_score(chats: Sequence[Chat], used: Template, max_length: int) -> Callable[[nn.Module], Scores] | None:
    """One over the perplexity on these useful chats; None without any.

    That chooses the strongest rival of a perplexity.
    """
    if not chats:
        return None
    rows = encode_chats(chats, used, max_length)

    def score(model: nn.Module) -> Scores:
        found = answer_nll(model, rows.pairs)
        nats = sum(row.nll for row in found) / sum(row.tokens for row in found)
        return Scores(math.exp(-nats), None, collapsed=False, meaning="one over the perplexity")

    return score
