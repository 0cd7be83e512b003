"""Files of a stranger's tokenizer: what does not fit is one sentence with a remedy, for chats as for texts."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests import folders
from tests.data.chats import turns
from textadv.data import DataError, Examples, encode, encode_prompt
from textadv.data.rendering import Template
from textadv.models import ModelError, load_causal, load_classifier

LABELS = ("negative", "positive")
TEMPLATE = "{% for m in messages %}{{ m.role }}:{{ m.content }}\n{% endfor %}"
TEMPLATE += "{% if add_generation_prompt %}assistant:{% endif %}"
CONFIG, WORDS = "tokenizer_config.json", "tokenizer.json"
LOADED = "The tokenizer of model.name .* could not be loaded: .*Correct or download again its tokenizer files"
# The file, what of it is changed (None: all of it), to what, and what is told; None: nothing, it is used.
CASES: dict[str, tuple[str, str | None, Any, str | None]] = {
    "no object": (CONFIG, None, [], LOADED),
    "a class that is a number": (CONFIG, "tokenizer_class", 3, LOADED),
    "an end that is a number": (CONFIG, "eos_token", 3, LOADED),
    "an end that is a list": (CONFIG, "eos_token", ["a"], LOADED),
    "a pad of another form": (CONFIG, "pad_token", {"content": 5}, LOADED),
    "no end at all": (CONFIG, "eos_token", None, "neither a pad nor an end token"),
    "a length that is a word": (
        CONFIG,
        "model_max_length",
        "x",
        "model_max_length: 'x', .* count of tokens. Correct",
    ),
    "a length below one": (CONFIG, "model_max_length", -1, "model_max_length: -1, .* count of tokens. Correct or"),
    "a side that is none": (CONFIG, "padding_side", "up", LOADED),
    "a template that is a number": (CONFIG, "chat_template", 3, "a template is text, got int. Change the turns, or"),
    "templates that are numbers": (CONFIG, "chat_template", [{"name": "default", "template": 5}], "is text, got int"),
    "a template without its text": (CONFIG, "chat_template", [{"name": "default"}], LOADED),
    "templates without a default": (CONFIG, "chat_template", [{"name": "x", "template": TEMPLATE}], "no default"),
    "added tokens that are none": (CONFIG, "added_tokens_decoder", {"x": {"content": "a"}}, LOADED),
    "special tokens that are a number": (CONFIG, "extra_special_tokens", 3, LOADED),
    "input names that are a number": (CONFIG, "model_input_names", 3, LOADED),
    "an empty file": (WORDS, None, b"", LOADED),
    "words that are a list": (WORDS, "model", {"type": "BPE", "vocab": [], "merges": []}, LOADED),
    "padding to a thousand million": (
        WORDS,
        "padding",
        {
            "strategy": {"Fixed": 10**9},
            "direction": "Right",
            "pad_to_multiple_of": None,
            "pad_id": 0,
            "pad_type_id": 0,
            "pad_token": "[PAD]",
        },
        None,
    ),
    "special tokens of another form": ("special_tokens_map.json", None, {"eos_token": 7}, LOADED),
    "a template that is not UTF-8": ("chat_template.jinja", None, b"\xff\xfe", LOADED),
}


@pytest.fixture(scope="module")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = folders.llama(tmp_path_factory.mktemp("models") / "model", speaks=True)
    written = json.loads((made / CONFIG).read_text())
    (made / CONFIG).write_text(json.dumps(written | {"chat_template": TEMPLATE}))
    return made


def changed(folder: Path, file: str, key: str | None, value: object) -> None:
    if key is not None:
        value = json.loads((folder / file).read_text()) | {key: value}
    (folder / file).write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())


def used(folder: Path) -> None:
    tokenizer = load_causal(str(folder)).tokenizer
    encode_prompt(Template(tokenizer), turns("ask"))
    assert encode(Examples(("a b", ""), None, (0, 1), (0, 1)), tokenizer, 16).lengths[0] < 16


@pytest.mark.parametrize(("file", "key", "value", "told"), CASES.values(), ids=CASES)
def test_of_a_chat_model(
    file: str, key: str | None, value: object, told: str | None, speaking: Path, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(speaking, tmp_path / "model"))
    changed(folder, file, key, value)
    if told is None:
        used(folder)
        return
    with pytest.raises((DataError, ModelError), match=told) as caught:
        used(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 1000


def test_of_a_classifier(tmp_path: Path) -> None:
    folder = folders.bert_classifier(tmp_path / "model", LABELS)
    changed(folder, CONFIG, "model_max_length", [1])
    with pytest.raises(ModelError, match=r"model_max_length: \[1\], which is no count of tokens"):
        load_classifier(str(folder), LABELS)
