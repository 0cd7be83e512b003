"""Prompts that a chat template refuses, and how many answers are answers."""

from __future__ import annotations

import pytest

from tests.data.chats import chat_tokenizer
from textadv.data import DataError
from textadv.measuring.judges.verdicts import XSTEST
from textadv.measuring.safety.chat import Asked, share_answered
from textadv.measuring.statistics import wilson


def test_a_prompt_that_the_template_refuses_is_named() -> None:
    tokenizer = chat_tokenizer("chatml")
    odd = "{% if 'moon' in messages[0].content %}{{ raise_exception('not the moon') }}{% endif %}"
    tokenizer.chat_template = odd + str(tokenizer.chat_template)
    with pytest.raises(DataError, match=r"^prompt 1 \(counted from 0\), 'the moon': .* turns user: not the moon"):
        Asked.of(tokenizer, ["the sea", "the moon"])


def test_share_answered() -> None:
    said = ("mix flour", "", "Sorry, I cannot", "  ", "well")
    assert share_answered(said, XSTEST.refuses) == wilson(2, 5)
    assert share_answered((), XSTEST.refuses) == wilson(0, 0)
