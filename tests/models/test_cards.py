"""The lines of a card read longer texts as they were measured: from a whole model and from adapters of any base."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from tests import folders
from textadv.data import Examples, encode
from textadv.models import forward, load_classifier
from textadv.models.adapting import Lora
from textadv.models.export import save_adapter, save_merged
from textadv.models.strangers import Texts
from textadv.values.texts import Windows

LABELS = ("benign", "injection")
WINDOWS = Windows(8, 3, 1)
TEXTS = ("a good film", "a good film and a bad one " * 6, "bad")


@pytest.mark.parametrize("kind", ["adapter", "merged"])
@pytest.mark.parametrize("base", ["a folder", "builtin:tiny-encoder"])
def test_the_lines_give_the_logits_that_were_measured(base: str, kind: str, tmp_path: Path) -> None:
    name = str(folders.bert(tmp_path / "base")) if base == "a folder" else base
    loaded = load_classifier(name, LABELS, seed=1, lora=Lora(r=2, alpha=4))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    save = save_adapter if kind == "adapter" else save_merged
    save(loaded.model, loaded.tokenizer, tmp_path / kind)
    rows = Examples(TEXTS, None, (0,) * len(TEXTS), tuple(range(len(TEXTS))))
    card = Texts(loaded, rows, WINDOWS.length, 4, windows=WINDOWS).card(tmp_path / kind)

    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('folder = "."', f"folder = {str(tmp_path / kind)!r}"), names)
    found = torch.stack([names["logits_of"](text) for text in TEXTS])

    encoded = encode(rows, loaded.tokenizer, WINDOWS.length, windows=WINDOWS)
    with torch.no_grad():
        expected = forward(loaded.model.eval(), encoded.batch(range(len(TEXTS))))
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found[0], found[1], atol=1e-4)
