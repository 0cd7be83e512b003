"""Mutated configurations, data files, templates and tokenizers: whatever is in them, the error is the user's.

A short set runs always, the same examples each time; the long one with `-m slow`.
"""

from __future__ import annotations

import copy
import gzip
import io
import json
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from tests import folders
from tests.config_sample import SMALL_CHAT as SMALL
from tests.data.chats import TEMPLATES, chat_tokenizer, turns
from tests.hostile import mutations
from tests.hostile.bombs import picture
from tests.hostile.test_templates import PROGRAMS
from textadv.config.types import ConfigError
from textadv.config.yaml import read_yaml
from textadv.data import DataError, Examples, encode, load_chats, load_image_splits, load_splits
from textadv.data.benchmarks import QUESTION_READERS, read_gsm8k, read_instructed
from textadv.data.chat_template import encode_answered, encode_prompt
from textadv.data.rendering import Template
from textadv.measuring.judges.refusal import load_or_bench, load_xstest
from textadv.measuring.judges.validation import load_labelled
from textadv.models import ModelError
from textadv.models.causal import _tokenizer
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.checks import check_adversary
from textadv.tasks.file import config_difference, dump_config, parse_config
from textadv.values.batch import Role

ROOT = Path(__file__).parents[2]
CONFIGS = {path.stem: path.read_bytes() for path in sorted((ROOT / "recipes/configs").glob("*.yaml"))}
CONFIGS["chat"] = SMALL.encode()
names = st.sampled_from(sorted(CONFIGS))
LONGEST_LINE = 2000


@pytest.fixture(autouse=True)
def no_warnings() -> Iterator[None]:
    """What libraries warn of in a damaged file is not what is tested here."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def require_told(error: Exception) -> None:
    """Every line of an error is short, and can be printed."""
    for line in str(error).split("\n"):
        assert line.strip() and len(line) < LONGEST_LINE, line
        line.encode()


# ---- configurations


def parsed_or_told(raw: Any) -> None:
    try:
        config = parse_config(raw)
        again = parse_config(read_yaml(dump_config(config), "x"))
        assert again == config and not config_difference(config, again)
        if not isinstance(config, ChatRunConfig):
            check_adversary(config)
    except ConfigError as error:
        require_told(error)


def text_of_configuration(name: str, edits: list[mutations.Edit]) -> None:
    text = mutations.edited(CONFIGS[name], edits).decode("utf-8", "surrogateescape")
    try:
        raw = read_yaml(text, "file.yaml")
    except ConfigError as error:
        require_told(error)
        return
    if isinstance(raw, dict):
        parsed_or_told(raw)


def values_of_configuration(name: str, changes: list[tuple[int, str, Any, Any]], override: str) -> None:
    raw = mutations.changed(yaml.safe_load(CONFIGS[name]), changes)
    if isinstance(raw, dict):
        parsed_or_told(raw)
    try:
        parse_config(yaml.safe_load(CONFIGS[name]), [override])
    except ConfigError as error:
        require_told(error)


overrides = st.builds(
    "{}={}".format,
    st.sampled_from(
        "output model.name data attack attack.steps evaluation.attacks.a.name objective.name a..b . seed".split()
    ),
    st.sampled_from(
        ["", "1", "[", "{a: 1}", "null", "!!int x", "[1, 2]", "\ud83d", "pgd", "- 1", "&a [*a]", "1" * 5000, "nan"]
    ),
)


@given(names, mutations.edits)
@mutations.examples(150)
def test_texts_of_configurations(name: str, edits: list[mutations.Edit]) -> None:
    text_of_configuration(name, edits)


@given(names, mutations.changes, overrides)
@mutations.examples(150)
def test_values_of_configurations(name: str, changes: Any, override: str) -> None:
    values_of_configuration(name, changes, override)


@pytest.mark.slow
@given(names, mutations.edits)
@mutations.examples(10_000)
def test_ten_thousand_texts_of_configurations(name: str, edits: list[mutations.Edit]) -> None:
    text_of_configuration(name, edits)


@pytest.mark.slow
@given(names, mutations.changes, overrides)
@mutations.examples(10_000)
def test_ten_thousand_values_of_configurations(name: str, changes: Any, override: str) -> None:
    values_of_configuration(name, changes, override)


# ---- data files

TEXTS = [{"text": f"row {n}, é\U0001f600", "label": ["good", "bad"][n % 2]} for n in range(6)]
CHATS: list[dict[str, Any]] = [
    {"messages": [{"role": "user", "content": f"ask {n}"}, {"role": "assistant", "content": "yes"}]} for n in range(3)
]
CHATS += [
    {"messages": [{"from": "human", "value": "ask"}, {"from": "gpt", "value": [{"type": "text", "text": "yes"}]}]}
]
PAIRS = [{"prompt": f"ask {n}", "target": ["a", "b"], "safe": "no", "response": "r", "system": "s"} for n in range(4)]
ARC = [
    {
        "id": "1",
        "question": {"stem": "q", "choices": [{"text": "a", "label": "A"}, {"text": "b", "label": "B"}]},
        "answerKey": "A",
    }
]
MMLU = [{"question": "q", "subject": "s", "choices": ["a", "b"], "answer": 1}]
TRUTH = [{"question": "q", "mc1_targets": {"a": 1, "b": 0}, "mc2_targets": {"choices": ["a", "b"], "labels": [1, 0]}}]
LAB = [{"prompt": "p", "choices": ["a", "b"], "answer": "a", "id": 3}]
IFEVAL = [{"key": 1, "prompt": "p", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{"a": None, "b": 3.0}]}]
GSM = [{"question": "q", "answer": "so #### 1,000"}]
JUDGED = [
    {
        "prompt": "p",
        "completion": "c",
        "final_label": "2_full_refusal",
        "type": "t",
        "label": "safe",
        "category": "c",
        "id": 1,
    }
]


def csv_of(rows: list[dict[str, Any]], sign: str = ",") -> bytes:
    lines = [
        sign.join(rows[0]),
        *(sign.join('"' + str(value).replace('"', '""') + '"' for value in row.values()) for row in rows),
    ]
    return "\n".join(lines).encode()


def jsonl_of(rows: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def parquet_of(rows: list[dict[str, Any]]) -> bytes:
    content = io.BytesIO()
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), content)
    return content.getvalue()


def npz_of(_: object) -> bytes:
    content = io.BytesIO()
    pixels, labels = np.arange(4 * 8 * 8, dtype=np.uint8).reshape(4, 8, 8), np.array([0, 1, 0, 1])
    np.savez(content, x_train=pixels, y_train=labels, x_test=pixels, y_test=labels)
    return content.getvalue()


def texts(path: Path) -> object:
    other = path.with_name(f"other-{path.name}")
    other.write_bytes(path.read_bytes())
    return load_splits("files", train=path, test=other, validation_fraction=0.5)


def chats(role: Role) -> Callable[[Path], object]:
    return lambda path: load_chats(role, train=path, validation_fraction=0.0)


def images(path: Path) -> object:
    found = load_image_splits("files", path=str(path), validation_fraction=0.5)
    return [np.asarray(part.images[row]) for part in found.parts.values() for row in range(len(part))]


def folder_of_images(path: Path) -> object:
    for split in ("train", "validation", "test"):
        for name in ("a", "b"):
            folder = path.parent / "images" / split / name
            folder.mkdir(parents=True)
            (folder / "1.png").write_bytes(path.read_bytes() if name == "b" else picture())
    return images(path.parent / "images")


READERS: dict[str, tuple[str, Callable[[Any], bytes], Any, Callable[[Path], object]]] = {
    "csv": ("a.csv", csv_of, TEXTS, texts),
    "tsv": ("a.tsv", lambda rows: csv_of(rows, "\t"), TEXTS, texts),
    "json": ("a.json", lambda rows: json.dumps(rows).encode(), TEXTS, texts),
    "jsonl": ("a.jsonl", jsonl_of, TEXTS, texts),
    "gzip": ("a.jsonl.gz", lambda rows: gzip.compress(jsonl_of(rows), mtime=0), TEXTS, texts),
    "parquet": ("a.parquet", parquet_of, TEXTS, texts),
    "chats": ("a.jsonl", jsonl_of, CHATS, chats(Role.UTILITY)),
    "chats, parquet": ("a.parquet", parquet_of, CHATS[:3], chats(Role.UTILITY)),
    "pairs": ("a.jsonl", jsonl_of, PAIRS, chats(Role.BORDERLINE)),
    "targets": ("a.jsonl", jsonl_of, PAIRS, chats(Role.ADVERSARIAL)),
    "targets, csv": ("a.csv", csv_of, PAIRS, chats(Role.ADVERSARIAL)),
    "npz": ("a.npz", npz_of, None, images),
    "image": ("a.png", lambda _: picture(), None, folder_of_images),
    "arc": ("a.jsonl", jsonl_of, ARC, QUESTION_READERS["arc"]),
    "mmlu": ("a.jsonl", jsonl_of, MMLU, QUESTION_READERS["mmlu"]),
    "mmlu, csv": ("a.csv", lambda _: b"q,a,b,c,d,A\nr,a,b,c,d,B\n", None, QUESTION_READERS["mmlu"]),
    "truthfulqa": ("a.json", lambda rows: json.dumps(rows).encode(), TRUTH, QUESTION_READERS["truthfulqa_mc1"]),
    "truthfulqa, mc2": ("a.jsonl", jsonl_of, TRUTH, QUESTION_READERS["truthfulqa_mc2"]),
    "lab": ("a.jsonl", jsonl_of, LAB, QUESTION_READERS["lab"]),
    "instructions": ("a.jsonl", jsonl_of, IFEVAL, read_instructed),
    "gsm8k": ("a.jsonl", jsonl_of, GSM, read_gsm8k),
    "judged": ("a.jsonl", jsonl_of, JUDGED, load_labelled),
    "xstest": ("a.csv", csv_of, JUDGED, load_xstest),
    "or-bench": ("a.jsonl", jsonl_of, JUDGED, lambda path: load_or_bench(path, safe=True)),
}
readers = st.sampled_from(sorted(READERS))


def read_or_told(what: str, content: bytes) -> None:
    name, _, _, read = READERS[what]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.write_bytes(content)
        try:
            read(path)
        except DataError as error:
            require_told(error)


def bytes_of_file(what: str, edits: list[mutations.Edit]) -> None:
    _, write, rows, _ = READERS[what]
    read_or_told(what, mutations.edited(write(rows), edits))


def values_of_file(what: str, changes: list[tuple[int, str, Any, Any]]) -> None:
    _, write, rows, _ = READERS[what]
    if rows is None:
        return
    changed = mutations.changed(copy.deepcopy(rows), changes)
    try:
        content = write(changed)
    except Exception:  # what cannot be written is no file
        return
    read_or_told(what, content)


@pytest.mark.parametrize("what", READERS)
def test_the_files_themselves_are_read(what: str, tmp_path: Path) -> None:
    name, write, rows, read = READERS[what]
    (tmp_path / name).write_bytes(write(rows))
    assert read(tmp_path / name)


@given(readers, mutations.edits)
@mutations.examples(200)
def test_bytes_of_data_files(what: str, edits: list[mutations.Edit]) -> None:
    bytes_of_file(what, edits)


@given(readers, mutations.changes)
@mutations.examples(200)
def test_values_of_data_files(what: str, changes: Any) -> None:
    values_of_file(what, changes)


@pytest.mark.slow
@given(readers, mutations.edits)
@mutations.examples(2_500)
def test_thousands_of_bytes_of_data_files(what: str, edits: list[mutations.Edit]) -> None:
    bytes_of_file(what, edits)


@pytest.mark.slow
@given(readers, mutations.changes)
@mutations.examples(2_500)
def test_thousands_of_values_of_data_files(what: str, changes: Any) -> None:
    values_of_file(what, changes)


# ---- templates and tokenizers

programs = st.sampled_from([*PROGRAMS, *(kind.jinja for kind in TEMPLATES.values())])


def template_or_told(source: str) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = source
    template = Template(tokenizer, {"mood": "x"}, name="the template of x")
    try:
        encode_prompt(template, turns("ask {x}"))
        encode_answered(template, turns("ask"), "<think>a</think>b")
        template.split("x")
    except DataError as error:
        require_told(error)


grown = st.lists(st.sampled_from(mutations.FRAGMENTS), min_size=1, max_size=12).map("".join)
mutated_programs = st.builds(
    lambda source, edits: mutations.edited(source.encode(), edits).decode("utf-8", "replace"), programs, mutations.edits
)


@given(grown | mutated_programs)
@mutations.examples(60)
def test_templates(source: str) -> None:
    template_or_told(source)


@pytest.mark.slow
@given(grown | mutated_programs)
@mutations.examples(1_000)
def test_a_thousand_templates(source: str) -> None:
    template_or_told(source)


@cache
def tokenizer_files() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as folder:
        made = folders.llama(Path(folder) / "model", speaks=True)
        kept = [path for path in made.iterdir() if path.suffix in (".json", ".jinja")]
        return {path.name: path.read_bytes() for path in kept}


def tokenizer_or_told(number: int, edits: list[mutations.Edit] | None, changes: Any) -> None:
    files = dict(tokenizer_files())
    wanted = sorted(name for name in files if name.startswith(("tokenizer", "special", "chat", "config")))
    name = wanted[number % len(wanted)]
    if edits is not None:
        files[name] = mutations.edited(files[name], edits)
    elif name.endswith(".json"):
        files[name] = json.dumps(mutations.changed(json.loads(files[name]), changes), default=str).encode()
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        try:
            tokenizer = _tokenizer(folder, folder, None, False, None)
            encode_prompt(tokenizer, turns("ask"))
            if tokenizer.pad_token_id is not None:
                encode(Examples(("a b", ""), None, (0, 1), (0, 1)), tokenizer, 16)
        except (DataError, ModelError) as error:
            require_told(error)


@given(st.integers(0, 99), mutations.edits, mutations.changes, st.booleans())
@mutations.examples(60)
def test_tokenizers(number: int, edits: list[mutations.Edit], changes: Any, textual: bool) -> None:
    tokenizer_or_told(number, edits if textual else None, changes)


@pytest.mark.slow
@given(st.integers(0, 99), mutations.edits, mutations.changes, st.booleans())
@mutations.examples(1_000)
def test_a_thousand_tokenizers(number: int, edits: list[mutations.Edit], changes: Any, textual: bool) -> None:
    tokenizer_or_told(number, edits if textual else None, changes)
