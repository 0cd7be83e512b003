"""Tagged sentences from files: what is read, what is told, what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textadv.data import DataError
from textadv.tasks.tokens.data import load_tagged
from textadv.tasks.tokens.places import LABELS, places
from textadv.values.batch import IGNORED

CONLL = "-DOCSTART- -X- O O\n\nMira NNP B-NP B-PER\nin IN B-PP O\nOrlo NNP B-NP B-LOC\n\n"
CONLL += "Vel NNP B-NP B-PER\nTan NNP I-NP I-PER\n"
OTHER = "Nor\tB-LOC\nand\tO\n"
WORDS = (("Mira", "in", "Orlo"), ("Vel", "Tan"))


def written(folder: Path, **texts: str) -> dict[str, Path]:
    paths = {}
    for name, text in texts.items():
        paths[name] = folder / f"{name}.conll"
        paths[name].write_text(text, encoding="utf-8")
    return paths


def lines(path: Path, *rows: object) -> Path:
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        CONLL,
        CONLL.replace(" ", "\t"),
        CONLL.replace("\n", "\r\n"),
        CONLL.replace("\n", "\r"),
        CONLL + "\n\n",
        CONLL.replace(" NNP", "  NNP"),
    ],
    ids=["blanks", "tabs", "windows", "old Macintosh", "empty lines", "several blanks"],
)
def test_conll_files_are_read(tmp_path: Path, text: str) -> None:
    paths = written(tmp_path, train=text, validation=OTHER, test=OTHER)
    found = load_tagged("files", **paths)  # type: ignore[arg-type]
    assert found.labels == ("B-LOC", "B-PER", "I-PER", "O") and found.scheme == "bio"
    assert found.train.words == WORDS and found.train.tags == ((1, 3, 0), (1, 2)) and found.train.ids == (0, 1)
    assert found.train.texts.texts == ("Mira in Orlo", "Vel Tan") and found.notes == ()


@pytest.mark.parametrize("space", ["\u00a0", "\u3000", "\x85"])
def test_only_blanks_and_tabs_part_columns(tmp_path: Path, space: str) -> None:
    paths = written(tmp_path, train=CONLL.replace("Orlo", f"10{space}000"), validation=OTHER, test=OTHER)
    found = load_tagged("files", **paths)  # type: ignore[arg-type]
    assert found.train.words[0] == ("Mira", "in", f"10{space}000")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("Mira\nin\n", r"has one column in line 1, 'Mira'"),
        ("Mira B-PER\nin IN O\n", r"has 3 columns in line 2 and 2 before it"),
        ("\n\n", "holds no word"),
        ("1 Mira B-PER\n2 in O\n", "numbers the words in its first column, as CoNLL-U does"),
        (f"Mira {'T' * 500}\n", r"every word of 1 train rows has the tag 'T{56}\.\.\.; a"),
        ("Mira O\nin O\n", "every word of 1 train rows has the tag 'O'"),
        ("Mira E-PER\nin U-LOC\n", "the prefixes E, U are of no one scheme"),
    ],
)
def test_other_files_are_refused(tmp_path: Path, text: str, told: str) -> None:
    paths = written(tmp_path, train=text, validation=text, test=text)
    with pytest.raises(DataError, match=told):
        load_tagged("files", **paths)  # type: ignore[arg-type]


ROW = {"tokens": ["Mira", "in", "Orlo"], "tags": ["B-PER", "O", "B-LOC"]}


@pytest.mark.parametrize(
    ("row", "told"),
    [
        ({**ROW, "tags": ["B-PER", "O"]}, r"row 1 \(counted from 0\) of .* has 3 words and 2 tags"),
        ({**ROW, "tokens": "Mira in Orlo"}, "has 'Mira in Orlo' in column 'tokens', which is no list of words"),
        ({**ROW, "tags": "O"}, "has 'O' in column 'tags', which is no list of tags"),
        ({**ROW, "tags": None}, "has None in column 'tags'"),
        ({**ROW, "tags": ["B-PER", "O", 2.5]}, "has the tag 2.5, which is no name"),
        ({**ROW, "tags": ["B-PER", "O", 2]}, "are names in some places and numbers in others"),
        ({**ROW, "tags": [-100, -100, -100]}, "has no word with a label"),
        ({**ROW, "tokens": ["Mira", "\ud83d", "Orlo"]}, "half of a character"),
    ],
)
def test_rows_that_cannot_be_meant_are_refused(tmp_path: Path, row: dict[str, object], told: str) -> None:
    train = lines(tmp_path / "train.jsonl", ROW, row)
    test = lines(tmp_path / "test.jsonl", ROW)
    with pytest.raises(DataError, match=told):
        load_tagged("files", train=train, test=test, validation_fraction=0.5)


@pytest.mark.parametrize(
    ("tags", "told"),
    [
        ([-100, -100, -100], r"row 0 .* has no word with a label, as all rows: each is marked -100"),
        ([0, -1, 1], r"row 0 .* has the tag -1: classes are counted from 0"),
    ],
)
def test_numbers_that_are_no_class_are_refused(tmp_path: Path, tags: list[int], told: str) -> None:
    train, test = (lines(tmp_path / f"{name}.jsonl", {**ROW, "tags": tags}) for name in ("train", "test"))
    with pytest.raises(DataError, match=told):
        load_tagged("files", train=train, validation=lines(tmp_path / "validation.jsonl", ROW), test=test)


def test_a_tag_that_train_lacks_is_refused_or_told(tmp_path: Path) -> None:
    train = lines(tmp_path / "train.jsonl", ROW)
    held = lines(tmp_path / "held.jsonl", ROW)
    test = lines(tmp_path / "test.jsonl", {**ROW, "tags": ["B-ORG", "O", "B-LOC"]})
    with pytest.raises(DataError, match="has the tag 'B-ORG', none of B-LOC, B-PER, O, as 1 word of test rows"):
        load_tagged("files", train=train, validation=held, test=test)
    labels = ["O", "B-LOC", "B-ORG", "B-PER"]
    found = load_tagged("files", train=train, validation=held, test=test, labels=labels)
    assert found.test.tags == ((2, 0, 1),)
    assert any("no word has 1 of the 4 tags (B-ORG), and 0 words of validation and 1 of test" in n for n in found.notes)


def test_blanks_around_a_tag_are_no_part_of_it(tmp_path: Path) -> None:
    """As in CoNLL files: one tag spelled with and without them is one class, and spells the same spans."""
    train = lines(tmp_path / "train.jsonl", ROW, {**ROW, "tags": ["B-PER ", "\tO", " B-LOC\r"]})
    held, test = lines(tmp_path / "held.jsonl", ROW), lines(tmp_path / "test.jsonl", ROW)
    found = load_tagged("files", train=train, validation=held, test=test)
    assert found.labels == ("B-LOC", "B-PER", "O") and found.scheme == "bio"
    assert found.train.tags == ((1, 2, 0), (1, 2, 0))


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    rows = [ROW, {"tokens": [], "tags": []}, {"tokens": ["Nor"], "tags": [-100]}]
    train = lines(tmp_path / "train.jsonl", ROW, rows[1], {**ROW, "tags": ["B-PER", -100, "B-LOC"]}, {**ROW})
    held, test = lines(tmp_path / "held.jsonl", ROW), lines(tmp_path / "test.jsonl", ROW)
    found = load_tagged("files", train=train, validation=held, test=test)
    assert found.train.ids == (0, 2, 3) and found.train.tags[1] == (1, IGNORED, 0)
    assert "data.train: 1 of 4 rows have no word and are left out." in found.notes
    assert "data.tags: 1 word of train rows is marked -100 and without a label." in found.notes


def test_numbers_are_tags_by_place_or_by_name(tmp_path: Path) -> None:
    numbers = {"tokens": ["Mira", "in"], "tags": [1, 0]}
    paths = {role: lines(tmp_path / f"{role}.jsonl", numbers) for role in ("train", "validation", "test")}
    bare, named = load_tagged("files", **paths), load_tagged("files", **paths, labels=["O", "B-PER"])  # type: ignore[arg-type]
    assert bare.labels == ("0", "1") and bare.train.tags == ((1, 0),) and bare.scheme is None
    assert any("spell no spans" in note for note in bare.notes)
    assert named.labels == ("O", "B-PER") and named.train.tags == ((1, 0),) and named.scheme == "bio"


def test_schemes_are_told(tmp_path: Path) -> None:
    paths = {
        role: lines(tmp_path / f"{role}.jsonl", {"tokens": ["Vel", "Tan"], "tags": ["S-PER", "O"]})
        for role in ("train", "validation", "test")
    }
    assert (
        "data.tags: the tags are read as BIOES, and spans of words by its rules." in load_tagged("files", **paths).notes
    )  # type: ignore[arg-type]
    with pytest.raises(DataError, match="data.scheme: bilou is not how the tags O, S-PER are written"):
        load_tagged("files", **paths, scheme="bilou")  # type: ignore[arg-type]
    odd = {"tokens": ["Vel", "Tan", "Nor"], "tags": ["B-PER", "O", "I-PER"]}
    paths = {role: lines(tmp_path / f"{role}.jsonl", odd) for role in paths}
    assert any("spans that begin with I- are none in BIO" in note for note in load_tagged("files", **paths).notes)  # type: ignore[arg-type]


def test_the_built_in_sentences_are_the_same_each_time_and_share_no_name() -> None:
    found, again = places(), places.__wrapped__()
    assert found == again and found.labels == LABELS
    assert [len(part) for part in found.named.values()] == [1600, 300, 300]
    outside = LABELS.index("O")
    names = [
        {
            word
            for words, tags in zip(part.words, part.tags, strict=True)
            for word, tag in zip(words, tags, strict=True)
            if tag != outside
        }
        for part in found.named.values()
    ]
    assert not names[0] & names[1] and not names[0] & names[2] and not names[1] & names[2]
    assert all(len(set(part.words)) == len(part) for part in found.named.values())
    with pytest.raises(DataError, match="data.train cannot be set for data.name: builtin:places"):
        load_tagged("builtin:places", train="x")
