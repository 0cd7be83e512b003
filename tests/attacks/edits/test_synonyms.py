"""Tables of synonyms from files: what is bad is left out and named by line, what is no table is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textadv.attacks.edits import WordTable, read_synonyms, read_wordnet
from textadv.values.errors import DataError

JSON = """{"good": ["fine", "Good", "fine"],
 "bad": "awful",
 "film": ["movie", 3],
 "": ["x"],
 "plot": ["story"],

 "plot": ["tale"],
 "dull": ["\\ud83d"],
 "none": []
}"""


def test_bad_rows_of_a_json_table_are_named_by_line(tmp_path: Path) -> None:
    (tmp_path / "words.json").write_text(JSON, encoding="utf-8")
    table = read_synonyms(tmp_path / "words.json")
    assert dict(table.words) == {"good": ("fine",), "plot": ("story",)}
    assert [one.split(":")[0] for one in table.bad] == ["line 2", "line 3", "line 4", "line 7", "line 8"]
    assert "'bad' has \"awful\", not a list of words" in table.bad[0]
    assert table.note is not None and table.note.startswith("words.json: 5 rows were left out: line 2: 'bad'")
    assert table.of("GOOD") == ("fine",) and table.of("other") == ()


def test_lines_between_tabs(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("# word\tothers\ngood\tfine\tnice\n\nbad\n\tx\nodd\t\n", encoding="utf-8")
    table = read_synonyms(tmp_path / "words.tsv")
    assert dict(table.words) == {"good": ("fine", "nice")}
    assert [one.split(":")[0] for one in table.bad] == ["line 4", "line 5", "line 6"]


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[1]", "line 1: no object begins"),
        ('{"a": ["b"],\n"c" ["d"]}', "line 2: a colon is missing"),
        ('{"a": ["b"]\n"c": ["d"]}', "line 2: a comma is missing"),
        ('{"a": ["b"],\n\n"c": [', "line 3"),
        ('{"a": ["b"]} x', "line 1: something follows"),
        ('{"a": ["b"]', "line 1: a comma is missing"),
        ('{"a": ' + "[" * 100_000, "line 1"),
        ('{"a": 1}', r"no row that can be used \(line 1: 'a' has 1"),
        ("", "no object begins"),
    ],
    ids=range(9),
)
def test_what_is_no_table_is_refused_with_its_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "words.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=told) as error:
        read_synonyms(path)
    assert len(str(error.value)) < 600


def test_no_file_and_no_utf8(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_synonyms(tmp_path / "none.json")
    (tmp_path / "x.tsv").write_bytes(b"good\t\xff\xfe")
    with pytest.raises(DataError, match="cannot be read"):
        read_synonyms(tmp_path / "x.tsv")


def test_lines_are_counted_as_editors_do(tmp_path: Path) -> None:
    (tmp_path / "words.tsv").write_text("good\tfine\n\x0c\nplot\tst\u2028ory\nbad\n", encoding="utf-8")
    table = read_synonyms(tmp_path / "words.tsv")
    assert dict(table.words) == {"good": ("fine",)}
    assert [one.split(":")[0] for one in table.bad] == ["line 3", "line 4"]
    dictionary = tmp_path / "dict"
    dictionary.mkdir()
    (dictionary / "data.noun").write_text("00 03 n 02 film 0 movie 0 000 | a \x0c form\nbroken\n", encoding="utf-8")
    found = read_wordnet(dictionary)
    assert found.words["film"] == ("movie",) and found.bad == ("data.noun line 2: is no synset",)


@pytest.mark.parametrize("letter", ["\x00", "\n", "\x1b", "\u202e"], ids=range(4))
def test_what_acts_on_a_screen_stands_for_no_word(tmp_path: Path, letter: str) -> None:
    words = {"good": ["fine"], "bad": [f"aw{letter}ful"]}
    (tmp_path / "words.json").write_text(json.dumps(words), encoding="utf-8")
    table = read_synonyms(tmp_path / "words.json")
    assert dict(table.words) == {"good": ("fine",)}
    (told,) = table.bad
    assert told.startswith("line 1: 'bad' has ") and letter not in told


def test_a_table_is_known_by_what_it_holds() -> None:
    one, same = (
        WordTable("t", dict(items)) for items in ([("a", ("b",)), ("c", ("d",))], [("c", ("d",)), ("a", ("b",))])
    )
    assert one == same and repr(one) == repr(same) and hash(one) == hash(same)
    assert WordTable("t", {"a": ("b", "c")}).hash != WordTable("t", {"a": ("c", "b")}).hash


def test_the_shared_tables_are_read(shared: Path) -> None:
    table = read_synonyms(shared / "data" / "synonyms" / "counterfitted_neighbors.json")
    assert "film" in table.of("movie")
    # Some of its words end in a control character.
    assert 0 < len(table.bad) < 200 and all("no word" in one for one in table.bad)


WORDNET = """  1 a licence of the database
00001740 03 n 02 movie 0 motion_picture 0 001 @ 00001930 n 0000 | a form
00001930 03 n 03 film 0 movie 1 Picture 2 000 | another
broken line
00002000 00 s 02 galore(ip) 0 abounding 0 000 | in plenty
"""


def test_wordnet_gives_what_shares_a_sense(tmp_path: Path) -> None:
    (tmp_path / "data.noun").write_text(WORDNET, encoding="utf-8")
    table = read_wordnet(tmp_path)
    assert table.of("movie") == ("film", "Picture") and table.of("galore") == ("abounding",)
    assert table.of("motion_picture") == ()
    assert table.bad == ("data.noun line 4: is no synset",)
    with pytest.raises(DataError, match="holds none of WordNet's files"):
        read_wordnet(tmp_path / "none")
