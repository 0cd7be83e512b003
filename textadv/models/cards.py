"""What stands in a saved model's card about how it has to be used to be the model that was measured."""

from __future__ import annotations

from collections.abc import Mapping

from textadv.models.adapters import BUILT_IN
from textadv.values.texts import Windows

CARD = """## Longer texts

This model was measured on texts of any length: those of more than {length} tokens are read in windows that share
{overlap} tokens, and the window that is most likely of class {name} decides. Cut to {length} tokens, they can hide
anything behind the last token that is read. `logits_of(text)` reads a text as it was measured:

```python
import torch
{imports}

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loaded}.eval()


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

LOADING = """## Loading

```python
{imports}

folder = "."  # where this file is
tokenizer = AutoTokenizer.from_pretrained(folder)
model = {loaded}.eval()
```
"""
OF_SEQUENCES, OF_TOKENS, OF_CHATS = "SequenceClassification", "TokenClassification", "CausalLM"

WHOLE = (
    "from transformers import AutoModelForSequenceClassification, AutoTokenizer",
    "AutoModelForSequenceClassification.from_pretrained(folder)",
)
ADAPTER = (
    "from peft import AutoPeftModelForSequenceClassification\nfrom transformers import AutoTokenizer",
    "AutoPeftModelForSequenceClassification.from_pretrained(folder, num_labels={classes})",
)
OF_BUILT_IN = (
    "from transformers import AutoTokenizer\n\nfrom textadv.models import load_classifier",
    "load_classifier(folder, {names}).model",
)


def windows_card(windows: Windows | None, names: Mapping[int, str], base: str | None) -> str:
    """How longer texts are read, in Markdown; "" where they are cut.

    names: of the classes. base: the model below where the folder holds an adapter: PEFT loads that, but for one that is
    built in.
    """
    if windows is None:
        return ""
    name = names.get(windows.toward, str(windows.toward))
    imports, loaded = WHOLE if base is None else OF_BUILT_IN if base.startswith(BUILT_IN) else ADAPTER
    loaded = loaded.format(classes=len(names), names=[*names.values()])
    values = {"length": windows.length, "overlap": windows.overlap, "toward": windows.toward, "name": name}
    found = CARD.replace("{imports}", imports).replace("{loaded}", loaded)
    for key, value in values.items():
        found = found.replace(f"{{{key}}}", str(value))
    return found


def loading_card(kind: str, names: Mapping[int, str], base: str | None) -> str:
    """How the model in a folder is loaded, in Markdown; "" where this package alone can.

    kind: the end of transformers' name of its class. names, base: see `windows_card`.
    """
    if base is not None and base.startswith(BUILT_IN) and kind != OF_SEQUENCES:
        return ""
    imports, loaded = WHOLE if base is None else OF_BUILT_IN if base.startswith(BUILT_IN) else ADAPTER
    if kind == OF_CHATS:
        loaded = loaded.replace(", num_labels={classes}", "")
    loaded = loaded.format(classes=len(names), names=[*names.values()])
    told = LOADING.replace("{imports}", imports).replace("{loaded}", loaded)
    return told.replace(OF_SEQUENCES, kind)
