"""What stands in a saved model's card about how it has to be used to be the model that was measured."""

from __future__ import annotations

from collections.abc import Mapping

from textadv.values.texts import Windows

CARD = """## Longer texts

This model was measured on texts of any length: those of more than {length} tokens are read in windows that share
{overlap} tokens, and the window that is most likely of class {name} decides. Cut to {length} tokens, they can hide
anything behind the last token that is read. `logits_of(text)` reads a text as it was measured:

```python
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = AutoModelForSequenceClassification.from_pretrained(folder).eval()


def logits_of(text):
    windows = tokenizer(
        text, truncation=True, max_length={length}, stride={overlap}, return_overflowing_tokens=True, padding=True,
        return_tensors="pt",
    )
    windows.pop("overflow_to_sample_mapping")
    with torch.no_grad():
        logits = model(**windows).logits
    others = logits.clone()
    others[:, {toward}] = float("-inf")
    return logits[(logits[:, {toward}] - others.amax(dim=1)).argmax()]
```
"""


def windows_card(windows: Windows | None, names: Mapping[int, str] | None) -> str:
    """How longer texts are read with transformers alone, in Markdown; "" where they are cut. names: of the classes."""
    if windows is None:
        return ""
    name = (names or {}).get(windows.toward, str(windows.toward))
    values = {"length": windows.length, "overlap": windows.overlap, "toward": windows.toward, "name": name}
    found = CARD
    for key, value in values.items():
        found = found.replace(f"{{{key}}}", str(value))
    return found
