"""A text classifier that returns probabilities is refused; one that returns log-probabilities is mentioned."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.oracles import BagOfEmbeddings, token_rows
from textadv.models import ModelError, logits_warning


class Ending(BagOfEmbeddings):
    """A bag with something behind its logits."""

    def __init__(self, name: str, dtype: torch.dtype = torch.float32) -> None:
        super().__init__(classes=3, dtype=dtype)
        self.name = name

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = super().forward(input_ids, attention_mask)
        return {"softmax": logits.softmax(1), "log_softmax": logits.log_softmax(1), "none": logits}[self.name]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_a_text_classifier_returns_is_looked_at(dtype: torch.dtype) -> None:
    rows = token_rows([5, 8, 6, 7], classes=3)
    with pytest.raises(ModelError, match="returns probabilities, not logits: all of 4 rows"):
        logits_warning(Ending("softmax", dtype), rows)
    assert "log-probabilities" in str(logits_warning(Ending("log_softmax", dtype), rows))
    assert logits_warning(Ending("none", dtype), rows) is None
