"""Files that are made to fill memory, or a parser's stack, are one message: before they have done so."""

from __future__ import annotations

import json
import os
import resource
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from tests.hostile import bombs
from textadv.config.types import ConfigError
from textadv.config.yaml import read_yaml
from textadv.data import DataError, load_image_splits, load_splits
from textadv.data.records import records
from textadv.data.text_files import content_of
from textadv.report import from_json
from textadv.tasks.file import load_config, parse_config
from textadv.values.host.reading import DEEPEST, json_of, literal_of, too_deep

DEEP = "[" * 200_000 + "]" * 200_000
MEBIBYTE = 2**20
ALLOWED = 600


@pytest.fixture(autouse=True)
def bounded_memory() -> Iterator[None]:
    """The process must not grow by more than 600 MiB: the bombs become 400 MiB to 10^14 bytes."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024 < ALLOWED


def refused(path: Path) -> str:
    """What is said of a file of texts, by each of the two readers."""
    with pytest.raises(DataError) as error:
        load_splits("files", train=path, test=path.with_name(f"test-{path.name}"))
    with pytest.raises(DataError) as other:
        list(records(path))
    said = {str(error.value), str(other.value)}
    assert all(str(path) in text and len(text) < 600 and "\n" not in text for text in said)
    return str(error.value)


# ---- JSON


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.ndjson"])
@pytest.mark.parametrize("content", [DEEP, '[{"text": ' + DEEP + "}]", '{"a": ' * 5000 + "1" + "}" * 5000])
def test_brackets_inside_each_other(tmp_path: Path, name: str, content: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    assert "nested more than 64 deep" in refused(path)


@pytest.mark.parametrize("depth", [1, DEEPEST])
def test_what_is_as_deep_as_data_are_is_read(depth: int) -> None:
    text = "[" * depth + "]" * depth
    assert json_of(text) == json.loads(text) == literal_of(text)
    assert not too_deep(json.loads(text)) and too_deep([json.loads("[" * DEEPEST + "]" * DEEPEST)])


def test_a_number_of_many_digits_is_no_traceback(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": ' + "1" * 10_000 + "}\n")
    assert "integer string conversion" in refused(path)


def test_results_that_are_brackets() -> None:
    with pytest.raises(ValueError, match="nested more than 64 deep"):
        from_json(DEEP)


@pytest.mark.parametrize("text", ["(" * 5000, "-" * 100_000 + "1", "[" * 150 + "]" * 150, "{" * 90, "b'" + "a" * 2**21])
def test_literals_of_python(text: str) -> None:
    with pytest.raises(ValueError):
        literal_of(text)


# ---- packed files


@pytest.mark.parametrize("make", [bombs.gzip_bomb, bombs.bz2_bomb, bombs.xz_bomb])
@pytest.mark.parametrize("ending", ["jsonl", "csv"])
def test_packed_files_that_become_a_thousand_times_as_much(
    tmp_path: Path, make: Callable[[], bytes], ending: str
) -> None:
    path = tmp_path / f"rows.{ending}.gz"
    path.write_bytes(make())
    with pytest.raises(DataError, match="cannot be unpacked: .* of it become .* made to fill memory"):
        load_splits("files", train=path, test=tmp_path / "test.csv")


def test_a_file_of_a_terabyte(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with path.open("wb") as file:
        file.truncate(2**40)
    assert "1.0 TiB" in refused(path)


def test_a_parquet_file_that_repeats_one_value(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    bombs.parquet_bomb(path)
    assert path.stat().st_size < MEBIBYTE
    assert "made to fill memory" in refused(path)


NOTHING: dict[str, Callable[[], pyarrow.Array]] = {
    "rows": lambda: pyarrow.nulls(20_000_000),
    "lists": lambda: pyarrow.ListArray.from_arrays(list(range(0, 20_000_001, 10_000)), pyarrow.nulls(20_000_000)),
    "structures": lambda: pyarrow.StructArray.from_arrays([pyarrow.nulls(10_000_000)] * 2, ["a", "b"]),
}


@pytest.mark.parametrize("kind", NOTHING)
def test_a_parquet_file_of_very_many_values_that_are_missing(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.table({"text": NOTHING[kind]()}), path)
    assert path.stat().st_size < MEBIBYTE
    assert "made to fill memory" in refused(path)


@pytest.mark.parametrize("ending", ["jsonl", "json"])
def test_rows_of_json_of_ever_other_keys(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    rows = [json.dumps({f"{row}-{key}": 0 for key in range(20)}) for row in range(4000)]
    path.write_text("\n".join(rows) if ending == "jsonl" else f"[{', '.join(rows)}]")
    with pytest.raises(DataError, match=f"{path} cannot be read as .{ending}: .* made to fill memory"):
        load_splits("files", train=path, test=tmp_path / "test.csv")


def test_a_table_of_commas(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("," * 200_000 + "\n")
    assert "has 200,001 columns, and at most 100,000 are read" in refused(path)


def test_a_parquet_file_whose_text_is_not_utf8(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    wrong = pyarrow.array([b"\xff\xfe", b"b"], pyarrow.binary()).view(pyarrow.binary())
    broken = pyarrow.Array.from_buffers(pyarrow.string(), 2, wrong.buffers())
    pyarrow.parquet.write_table(pyarrow.table({"text": broken, "label": [0, 1]}), path)
    assert "cannot be read as .parquet" in refused(path)


@pytest.mark.parametrize("reader", ["rows.csv", "rows.jsonl", "rows.parquet"])
def test_a_pipe_is_no_file(tmp_path: Path, reader: str) -> None:
    os.mkfifo(tmp_path / reader)
    refused(tmp_path / reader)


# ---- arrays and images


def refused_array(path: Path) -> str:
    with pytest.raises(DataError) as error:
        load_image_splits("files", path=path)
    assert str(error.value).startswith("data.path: ") and str(path) in str(error.value)
    return str(error.value)


@pytest.mark.parametrize("shape", [(10**6, 10**4, 10**4), (10**14,), (2**63, 2), (3, 1), (-1, 16), (10**30,), ()])
def test_an_array_that_claims_another_size(tmp_path: Path, shape: tuple[int, ...]) -> None:
    bombs.claiming_npz(tmp_path / "a.npz", shape)
    assert "says that it holds" in refused_array(tmp_path / "a.npz")


def test_an_array_of_objects_is_refused(tmp_path: Path) -> None:
    bombs.claiming_npz(tmp_path / "a.npz", (2,), "|O")
    assert "objects, which can run code when they are read" in refused_array(tmp_path / "a.npz")


def test_arrays_that_become_a_thousand_times_as_much(tmp_path: Path) -> None:
    bombs.growing_npz(tmp_path / "a.npz")
    assert (tmp_path / "a.npz").stat().st_size < MEBIBYTE
    assert "made to fill memory" in refused_array(tmp_path / "a.npz")


def test_entries_that_share_what_they_are_unpacked_from(tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("x_train.npy", bombs.header((2**25,)) + b"\0" * 2**25)
        first = file.infolist()[0]
        for name in ("x_test", "a", "b", "c"):
            entry = zipfile.ZipInfo(f"{name}.npy")
            for field in ("compress_type", "CRC", "compress_size", "file_size", "header_offset", "external_attr"):
                setattr(entry, field, getattr(first, field))
            file.filelist.append(entry)
            file.NameToInfo[entry.filename] = entry
    assert "made to fill memory" in refused_array(path)


@pytest.mark.parametrize("content", [b"", b"PK", b"PK\x03\x04" + b"\0" * 100, bytes(range(256)) * 10])
def test_what_is_no_npz(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.npz").write_bytes(content)
    assert "npz file" in refused_array(tmp_path / "a.npz")


def folders(root: Path, content: bytes) -> Path:
    """Two classes in each split, one image of train being `content`."""
    for split in ("train", "test"):
        for name in ("a", "b"):
            (root / split / name).mkdir(parents=True)
            for number in range(12):
                (root / split / name / f"{number}.png").write_bytes(bombs.picture())
    (root / "train" / "b" / "5.png").write_bytes(content)
    return root


def read_all(root: Path) -> None:
    splits = load_image_splits("files", path=root)
    for part in splits.parts.values():
        for row in range(len(part)):
            np.asarray(part.images[row])


@pytest.mark.parametrize("side", [60_000, 16_000, 9_000])
def test_an_image_of_very_many_pixels(tmp_path: Path, side: int) -> None:
    with pytest.raises(DataError, match="b/5.png"):
        read_all(folders(tmp_path, bombs.giant_png(side)))


def test_an_image_of_very_many_pixels_in_parquet(tmp_path: Path) -> None:
    images = [{"bytes": bombs.picture()}] * 11 + [{"bytes": bombs.giant_png(16_000)}]
    table = pyarrow.table({"image": images, "label": [0, 1] * 6})
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match="row 11"):
        splits = load_image_splits(
            "files", train=str(tmp_path / "train.parquet"), test=str(tmp_path / "test.parquet"), validation_fraction=0.2
        )
        for row in range(len(splits.test)):
            np.asarray(splits.test.images[row])


@pytest.mark.parametrize("cut", [0, 8, 30, 50])
def test_an_image_that_is_cut(tmp_path: Path, cut: int) -> None:
    with pytest.raises(DataError, match="b/5.png"):
        read_all(folders(tmp_path, bombs.picture()[:cut]))


# ---- configurations

BOMB = "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{after}: &{after} [{','.join([f'*{before}'] * 10)}]\n"
    for before, after in zip("abcdefgh", "bcdefghi", strict=True)
)
MERGES = "a: &a {x: 1}\n" + "".join(
    f"{after}: &{after} {{<<: [*{before}, *{before}, *{before}], k: 1}}\n"
    for before, after in zip("abcdefghijklmnop", "bcdefghijklmnopq", strict=True)
)
CONFIGURATIONS = {
    "a date of no form": ("a: !!timestamp x", "a (line 1) has the tag !!timestamp"),
    "a date": ("a: !!timestamp 2020-01-01", "a (line 1) has the tag !!timestamp"),
    "a truth of no form": ("a: !!bool abc", "has the tag !!bool, and 'abc' is none"),
    "a number of no digit": ("a: !!int ''", "has the tag !!int, and '' is none. Write it without the tag."),
    "a number with a colon": ("a: !!int 1:30", "has the tag !!int, and '1:30' is none"),
    "a list as number": ("a: !!float [1]", "has the tag !!float, and a list is none"),
    "a text as mapping": ("a: !!map x", "has the tag !!map, and text is none"),
    "bytes": ("a: !!binary '***'", "has the tag !!binary"),
    "a set": ("a: !!set {b}", "has the tag !!set"),
    "pairs": ("a: !!omap [b: 1]", "has the tag !!omap"),
    "an object of Python": (
        "a: !!python/object/apply:os.system [ls]",
        "run.yaml is not valid YAML at line 1, column 4: could not determine a constructor",
    ),
    "open brackets": ("a: " + "[" * 1000, "nested more than 64 deep"),
    "brackets": ("a: " + "[" * 1000 + "]" * 1000, "nested more than 64 deep"),
    "braces": ("a: " + "{b: " * 1000 + "}" * 1000, "nested more than 64 deep"),
    "steps to the right": ("".join(" " * n + "a:\n" for n in range(500)), "nested more than 64 deep"),
    "dashes": ("- " * 1000 + "x", "nested more than 64 deep"),
    "aliases": (BOMB, "its aliases (*) make more than 20,000 values"),
    "merged aliases": (MERGES, "its aliases (*) make more than 20,000 values"),
    "an alias of itself": ("a: &a [*a]", "a[0] refers to itself"),
    "a number of many digits": ("a: " + "1" * 5000, "a number of 5000 digits"),
    "half of a character": ('a: "\\ud83d"', "half of a character (a lone surrogate), \\ud83d"),
    "a zero byte": ('a: "b\\0"', "the zero byte, \\x00"),
    "a key twice": ("a: 1\nb: 2\na: 3", "a is given twice, in lines 1 and 3"),
    "a key twice in brackets": ("x: {a: 1, 'a': 3}", "x.a is given twice"),
    "very much text": ("a: " + "b" * 300_000, "has 300,003 characters"),
}


@pytest.mark.parametrize("what", CONFIGURATIONS)
def test_no_configuration(what: str, tmp_path: Path) -> None:
    text, told = CONFIGURATIONS[what]
    (tmp_path / "run.yaml").write_text(text)
    with pytest.raises(ConfigError) as error:
        load_config(tmp_path / "run.yaml")
    assert told in str(error.value) and all(len(line) < 600 for line in error.value.lines)
    with pytest.raises(ConfigError):
        parse_config({}, [f"data={{{text}}}"])


def test_aliases_that_a_configuration_needs_are_read() -> None:
    text = "a: &a {x: 1, y: [2, 3]}\nb: {<<: *a, x: 4}\nc: [*a, *a]\nd: !!str 3\ne: !!float 3\nf: 3.0e-4"
    one = {"x": 1, "y": [2, 3]}
    wanted = {"a": one, "b": {"x": 4, "y": [2, 3]}, "c": [one, one], "d": "3", "e": 3.0, "f": 3.0e-4}
    assert read_yaml(text, "f") == wanted


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="no device without end")
def test_a_device_without_end_is_no_file() -> None:
    with pytest.raises(ConfigError, match=r"has more than 1.0 MiB. Name a configuration"):
        load_config("/dev/zero")
    with pytest.raises(DataError, match="has more than 64.0 MiB"):
        content_of(Path("/dev/zero"))


def test_a_configuration_from_a_pipe_is_read() -> None:
    reader, writer = os.pipe()
    os.write(writer, b"output: x\nmodel: {name: builtin:tiny-encoder}\ndata: {name: builtin:reviews}\n")
    os.write(writer, b"threat: {radius: 1.0}\ntraining: {steps: 1}\n")
    os.close(writer)
    assert load_config(f"/dev/fd/{reader}").output == "x"
    os.close(reader)
