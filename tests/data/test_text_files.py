"""Files as programs write them: separators, quotes, encodings, compression, headers, and the forms of JSON."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from textadv.data import DataError, Examples, load_splits
from textadv.data.records import records

TEXTS = ("good, soup", "bad; soup", "a | film", 'a "poem"')
LABELS = ("1", "0", "0", "1")
OBJECTS = [{"text": text, "label": label} for text, label in zip(TEXTS, LABELS, strict=True)]


def read(folder: Path, name: str, content: str | bytes, **options: Any) -> Examples:
    """The train rows, the same content being that of every split."""
    paths = {}
    for split in ("train", "validation", "test"):
        paths[split] = folder / f"{split}{name}"
        paths[split].write_bytes(content if isinstance(content, bytes) else content.encode())
    return load_splits("files", **paths, **options).train


def refused(folder: Path, name: str, content: str | bytes, **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read(folder, name, content, **options)
    assert str(caught.value).startswith(("data.train: ", "data.text: ", "data.label: "))
    return str(caught.value)


def fields(separator: str, header: bool = True, end: str = "\n") -> str:
    """The rows with quotes only where they are needed."""

    def quoted(field: str) -> str:
        return '"' + field.replace('"', '""') + '"' if set(field) & {separator, '"'} else field

    rows = [("text", "label")] if header else []
    return "".join(separator.join(map(quoted, row)) + end for row in [*rows, *zip(TEXTS, LABELS, strict=True)])


# ---- what is read


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("name", [".csv", ".tsv"])
def test_separators_are_found_whatever_the_ending_says(tmp_path: Path, name: str, separator: str, end: str) -> None:
    assert read(tmp_path, name, fields(separator, end=end)).texts == TEXTS
    found = read(tmp_path, name, fields(separator, header=False, end=end), columns=["text", "label"])
    assert found.texts == TEXTS and found.labels == (1, 0, 0, 1)


@pytest.mark.parametrize(
    "encode",
    [
        lambda text: text.encode("utf-8-sig"),
        lambda text: text.encode("utf-16"),
        lambda text: b"\xfe\xff" + text.encode("utf-16-be"),
        lambda text: text.encode("utf-32"),
        lambda text: gzip.compress(text.encode(), mtime=0),
        lambda text: bz2.compress(text.encode("utf-16")),
        lambda text: lzma.compress(text.encode()),
    ],
)
def test_encodings_with_a_mark_and_compressed_files(tmp_path: Path, encode: Callable[[str], bytes]) -> None:
    lines = "\n".join(json.dumps(row) for row in OBJECTS)
    for name, content in (
        (".csv", fields(",")),
        (".CSV.gz", fields(";")),
        (".jsonl", lines),
        (".ndjson.xz", lines),
        (".json", json.dumps(OBJECTS)),
    ):
        assert read(tmp_path, name, encode(content)).texts == TEXTS


@pytest.mark.parametrize(
    ("name", "content", "texts"),
    [
        (".csv", 'text,label\n"a\nb",1\n"c\r\nd",0\n', ("a\nb", "c\r\nd")),
        (".csv", 'text;label\n"a\nb; x";1\n"c ""q"", d";0\n', ("a\nb; x", 'c "q", d')),
        (".csv", "sep=;\r\ntext;label\r\na,b;1\r\nc;0\r\n", ("a,b", "c")),
        (".csv", 'text, label\na, 1\n"b, c", 0\n', ("a", "b, c")),
        (".csv", ",text,label\n0,a,1\n1,b,0\n", ("a", "b")),
        (".csv", "text;label;;\na;1;;\nb;0;;\n\n   \n", ("a", "b")),
        (".tsv", 'text\tlabel\n"a\nb"\t1\nc\t0\n', ("a\nb", "c")),
        (".tsv", 'text\tlabel\n"a ""q"" b"\t1\nc\t0\n', ('a "q" b', "c")),
        (".tsv", '"text"\t"label"\n"a"\t"1"\n"c"\t"0"\n', ("a", "c")),
        (".tsv", 'text\tlabel\n"a"\t1\n" open\t0\n', ('"a"', '" open')),
        (".csv", 'text\tlabel\n" open\t1\na ""\t0\n', ('" open', 'a ""')),
        (".tsv", "text\tlabel\na;x\t1 \nb,y\t 0\n", ("a;x", "b,y")),
    ],
)
def test_quotes_line_breaks_and_what_spreadsheets_add(
    tmp_path: Path, name: str, content: str, texts: tuple[str, ...]
) -> None:
    found = read(tmp_path, name, content)
    assert (found.texts, found.labels) == (texts, (1, 0))


@pytest.mark.parametrize(
    "content",
    [
        OBJECTS,
        {"version": 1, "data": OBJECTS},
        {"rows": OBJECTS},
        {"text": TEXTS, "label": LABELS},
        {"text": {str(n): text for n, text in enumerate(TEXTS)}, "label": {str(n): k for n, k in enumerate(LABELS)}},
        {str(n): row for n, row in enumerate(OBJECTS)},
        {"columns": ["text", "label"], "index": [0, 1, 2, 3], "data": [list(row.values()) for row in OBJECTS]},
    ],
)
def test_forms_of_json(tmp_path: Path, content: Any) -> None:
    assert read(tmp_path, ".json", json.dumps(content)) == read(tmp_path, ".csv", fields(","))
    if isinstance(content, list):
        assert read(tmp_path, ".jsonl", json.dumps(content, indent=1)).texts == TEXTS


def test_one_object_of_a_file_of_lines_is_a_row(tmp_path: Path) -> None:
    for name, label in (("a", 0), ("b", 1)):
        (tmp_path / f"{name}.jsonl").write_text(json.dumps({"text": name, "label": label}))
    (tmp_path / "test.csv").write_text(fields(","))
    (tmp_path / "validation.csv").write_text(fields(";"))
    others = {split: tmp_path / f"{split}.csv" for split in ("validation", "test")}
    assert load_splits("files", train=[tmp_path / "a.jsonl", tmp_path / "b.jsonl"], **others).train.texts == ("a", "b")


# ---- what is refused


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (".csv", fields(",").encode("utf-16-le"), "holds zero bytes, as UTF-16 without a byte order mark does."),
        (".csv", "text,label\ncrème,1\n".encode("cp1252"), "is not UTF-8 (invalid continuation byte at byte 13)."),
        (".json", "text".encode("utf-16")[:-1], "is not UTF-16"),
        (".csv.gz", gzip.compress(fields(",").encode(), mtime=0)[:30], "cannot be unpacked"),
        (".csv", b"PK\x03\x04 and more", "is a zip archive, as workbooks of Excel are"),
        (".xlsx", b"PK\x03\x04", "use one of .csv, .json, .jsonl, .ndjson, .parquet, .tsv. Save the sheet as CSV"),
        (".txt", fields("\t"), "Name it after what it holds: .csv for fields between separators, .jsonl"),
        (".csv", "text;a|label\na;b|1\nc;d|0\n", "may be separated by a semicolon or by a bar"),
        (".csv", "text,label\na, b,1\n", "row 0 (counted from 0) has 3 fields, text, label are 2. Repair the file;"),
        (".csv", "text;label\na; b;1\nc;0\n", "has 3 fields, text, label are 2"),
        (".csv", "text,label\na,x\ntext,label\nb,y\n", "row 1 (counted from 0) repeats the names of the columns, text"),
        (".csv", "text,text\na,x\n", "has the columns text, text, but each name may occur once"),
        (".csv", 'text,label\n"a,1\n', "cannot be read as .csv, separated by a comma: "),
        (".jsonl", '{"text": "a", "label": 1}\n{"text"\n', "cannot be read as .jsonl: line 2 is no JSON"),
        (".json", '{"text": "a"}', "does not hold one object per row"),
        (".csv", fields(",", header=False), "data.label: no column 'label' in"),
        (".csv", fields(",", header=False), "Its first row looks like data: name the columns in data.columns."),
        (".csv", "text,neg,pos\na,1,0\nb,0,1\n", "neg, pos hold a single 1 in each row (one-hot)."),
        (".csv", "text,rude,fake\na,1,1\nb,0,1\n", "rude, fake hold 0 or 1 in each row (several labels per row)."),
    ],
)  # fmt: skip
def test_what_cannot_be_read_is_named(tmp_path: Path, name: str, content: str | bytes, told: str) -> None:
    message = refused(tmp_path, name, content)
    assert told in message and f"train{name}" in message


@pytest.mark.parametrize("name", [".jsonl", ".json"])
def test_a_key_that_stands_twice_is_no_silent_loss(tmp_path: Path, name: str) -> None:
    lines = [*map(json.dumps, OBJECTS), '{"text": "a", "text": "b", "label": "1"}']
    content = "\n".join(lines) if name == ".jsonl" else f"[{', '.join(lines)}]"
    told = refused(tmp_path, name, content)
    assert "has the key 'text' twice in one object, with different values. Keep one of them." in told
    assert ("line 5" in told) == (name == ".jsonl")
    assert "line 1 " in refused(tmp_path, ".jsonl", "\n".join(reversed(lines))), "of one line too"
    same = [*map(json.dumps, OBJECTS[:-1]), '{"text": "a \\"poem\\"", "label": "1", "label": "1"}']
    assert read(tmp_path, ".jsonl", "\n".join(same)).texts == TEXTS, "nothing is lost"
    (tmp_path / f"rows{name}").write_text(content)
    with pytest.raises(DataError, match=f"{name}{':5' if name == '.jsonl' else ''}: has the key 'text' twice"):
        list(records(tmp_path / f"rows{name}"))


def test_a_column_that_stands_twice_is_no_silent_loss(tmp_path: Path) -> None:
    told = "has the columns text, text, label, but each name may occur once. Rename them."
    split = {"columns": ["text", "text", "label"], "index": [0], "data": [["a", "b", "1"]]}
    assert told in refused(tmp_path, ".json", json.dumps(split))
    table = pyarrow.table([TEXTS, TEXTS, LABELS], names=["text", "text", "label"])
    pyarrow.parquet.write_table(table, tmp_path / "a.parquet")
    assert told in refused(tmp_path, ".parquet", (tmp_path / "a.parquet").read_bytes())


@pytest.mark.parametrize("header", ["text,label", "sentence,class", "id,label"])
def test_columns_of_a_file_that_has_a_header_are_refused(tmp_path: Path, header: str) -> None:
    content = fields(",").replace("text,label", header)
    names = ["text", "label"] if header != "sentence,class" else ["text", "class"]
    assert "Leave data.columns out" in refused(tmp_path, ".csv", content, columns=names)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.train: .* is a folder. Name the files in it, or set data.name to"):
        load_splits("files", train=tmp_path, test=tmp_path / "a.csv")


# ---- more of what people have


def packed(content: bytes) -> bytes:
    sink = pyarrow.BufferOutputStream()
    with pyarrow.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return bytes(sink.getvalue())


TABLES: dict[str, Any] = {
    "rows under another key": {"examples": OBJECTS},
    "rows beside other keys": {"version": "1", "instances": OBJECTS},
    "rows of the Hub's viewer": {"features": [], "rows": [{"row_idx": n, "row": row} for n, row in enumerate(OBJECTS)]},
    "rows below data": {"data": {"rows": OBJECTS}},
    "rows by their names": {f"id{n}": row for n, row in enumerate(OBJECTS)},
    "columns by their names": {key: {f"id{n}": row[key] for n, row in enumerate(OBJECTS)} for key in ("text", "label")},
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_tables_in_objects(tmp_path: Path, content: Any) -> None:
    found = read(tmp_path, ".json", json.dumps(content))
    assert found.texts == TEXTS and found.labels == (1, 0, 0, 1)


def test_zstd(tmp_path: Path) -> None:
    content = "".join(json.dumps(row) + "\n" for row in OBJECTS).encode()
    assert read(tmp_path, ".jsonl.zst", packed(content)).texts == TEXTS
    assert "cannot be unpacked" in refused(tmp_path, ".jsonl.zst", packed(content)[:12])


def test_several_marks_at_the_beginning(tmp_path: Path) -> None:
    assert read(tmp_path, ".csv", b"\xef\xbb\xbf\xef\xbb\xbf" + fields(",").encode()).texts == TEXTS


@pytest.mark.parametrize("sign", ["^", "~", ":", "\x01", " "])
def test_a_separator_that_is_not_known_is_no_name_of_a_column(tmp_path: Path, sign: str) -> None:
    told = refused(tmp_path, ".csv", f"text{sign}label\na{sign}0\nb{sign}1\n")
    assert told.endswith(f"They look separated by {sign!r}. Write commas.") and "Set data.label:" not in told


REMEDIES = {
    ".zip": (b"PK\x03\x04", "Unpack it"),
    ".pkl": (b"\x80\x04", "Write it as parquet: opening a pickle runs what it holds."),
    ".psv": (b"a|b", "Name it .csv: separators are found."),
    ".csv": (b"PAR1\x15\x04", "is a parquet file. Name it .parquet."),
    ".jsonl": (b"\x89HDF\r\n", "is a file of HDF5. Write it as parquet."),
    ".json": (
        json.dumps({"train": OBJECTS, "test": OBJECTS}).encode(),
        "several tables (train, test). Write each into a",
    ),
}


@pytest.mark.parametrize(("name", "content", "told"), [(name, *rest) for name, rest in REMEDIES.items()], ids=REMEDIES)
def test_what_is_no_table_is_named_with_a_remedy(tmp_path: Path, name: str, content: bytes, told: str) -> None:
    assert told in refused(tmp_path, name, content)
