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
from textadv.models.cards import OF_CHATS, OF_TOKENS, loading_card
from textadv.models.export import save_adapter, save_merged
from textadv.models.loading import LoadedModel
from textadv.models.strangers import Texts
from textadv.values.texts import Windows

LABELS = ("benign", "injection")
WINDOWS = Windows(8, 3, 1)
TEXTS = ("a good film", "a good film and a bad one " * 6, "bad")


def changed(base: str, tmp_path: Path) -> LoadedModel:
    """A classifier whose trained weights are others than those of its base."""
    name = str(folders.bert(tmp_path / "base")) if base == "a folder" else base
    loaded = load_classifier(name, LABELS, seed=1, lora=Lora(r=2, alpha=4))
    with torch.no_grad():
        for parameter in loaded.model.parameters():
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(3)))
    return loaded


def code_of(card: str, folder: Path) -> dict[str, Any]:
    """The names that a card's lines leave, run on its folder."""
    (code,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    names: dict[str, Any] = {}
    exec(code.replace('folder = "."', f"folder = {str(folder)!r}"), names)
    return names


@pytest.mark.parametrize("kind", ["adapter", "merged"])
@pytest.mark.parametrize("base", ["a folder", "builtin:tiny-encoder"])
def test_the_lines_of_a_model_without_windows_load_it(base: str, kind: str, tmp_path: Path) -> None:
    loaded = changed(base, tmp_path)
    save = save_adapter if kind == "adapter" else save_merged
    save(loaded.model, loaded.tokenizer, tmp_path / kind)
    rows = Examples(TEXTS, None, (0,) * len(TEXTS), tuple(range(len(TEXTS))))
    names = code_of(Texts(loaded, rows, 8, 4).card(tmp_path / kind), tmp_path / kind)
    encoded = encode(rows, loaded.tokenizer, 8).batch(range(len(TEXTS)))
    with torch.no_grad():
        assert torch.allclose(forward(names["model"], encoded), forward(loaded.model.eval(), encoded), atol=1e-5)


@pytest.mark.parametrize(
    ("kind", "base", "line"),
    [
        (OF_CHATS, None, "AutoModelForCausalLM.from_pretrained(folder)"),
        (OF_CHATS, "lab/base", "AutoPeftModelForCausalLM.from_pretrained(folder)"),
        (OF_TOKENS, "lab/base", "AutoPeftModelForTokenClassification.from_pretrained(folder, num_labels=2)"),
        (OF_TOKENS, "builtin:tiny-encoder", ""),
    ],
)
def test_the_lines_of_other_kinds(kind: str, base: str | None, line: str) -> None:
    card = loading_card(kind, {} if kind == OF_CHATS else dict(enumerate(LABELS)), base)
    assert f"model = {line}.eval()" in card if line else card == ""


@pytest.mark.parametrize("kind", ["adapter", "merged"])
@pytest.mark.parametrize("base", ["a folder", "builtin:tiny-encoder"])
def test_the_lines_give_the_logits_that_were_measured(base: str, kind: str, tmp_path: Path) -> None:
    loaded = changed(base, tmp_path)
    save = save_adapter if kind == "adapter" else save_merged
    save(loaded.model, loaded.tokenizer, tmp_path / kind)
    rows = Examples(TEXTS, None, (0,) * len(TEXTS), tuple(range(len(TEXTS))))
    card = Texts(loaded, rows, WINDOWS.length, 4, windows=WINDOWS).card(tmp_path / kind)

    names = code_of(card, tmp_path / kind)
    found = torch.stack([names["logits_of"](text) for text in TEXTS])

    encoded = encode(rows, loaded.tokenizer, WINDOWS.length, windows=WINDOWS)
    with torch.no_grad():
        expected = forward(loaded.model.eval(), encoded.batch(range(len(TEXTS))))
    assert torch.allclose(found, expected, atol=1e-5) and not torch.allclose(found[0], found[1], atol=1e-4)
