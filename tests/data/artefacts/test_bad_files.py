"""Files of prompts that cannot be read as they are: a sentence each, and what is left out is told."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from tests.data.artefacts.test_formats import GOAL, put
from textadv.data import DataError
from textadv.data.artefacts.attempts import Artefact, Attempt
from textadv.data.artefacts.harmbench import (
    behaviour_rows,
    read_behaviours,
    write_completions,
    write_test_cases,
)
from textadv.data.artefacts.jailbreakbench import write_jailbreakbench
from textadv.data.artefacts.joining import read_artefact
from textadv.data.artefacts.paraphrases import write_paraphrases

BAD: list[tuple[object, str]] = [
    ({"jailbreaks": 3}, "jailbreaks: expected a list, got 3."),
    ({"jailbreaks": [{"prompt": "p"}]}, "jailbreaks, entry 0: goal is missing"),
    ({"jailbreaks": [{"goal": "g", "prompt": ["a"]}]}, "prompt must be a text or null, got ['a']."),
    (
        {"jailbreaks": [{"goal": "g", "jailbroken": "maybe"}]},
        "must be true, false, 1, 0 or null, got 'maybe'",
    ),
    ({"a": ["x", 3]}, "'a', entry 1: expected an object, got 3."),
    ({"a": [["picture.png", "text"]]}, "every test case has an image, such as 'a', entry 0."),
    ({"a": [{"generation": "g"}]}, "test_case is missing; there are ['generation']."),
    ({"runs": [{"steps": []}]}, "original_prompt: expected a list, got None."),
    ({"runs": [{"original_prompt": "q", "steps": [{"model_input": [{"role": "user"}]}]}]}, "content must be texts"),
    ({"runs": [{"original_prompt": "q", "steps": [{"loss": "low"}]}]}, "loss must be a number or null, got 'low'."),
    ({"version": 1}, "is none of JailbreakBench's artefacts"),
    ([{"original_prompt": "q"}], "needs original_prompt and inpainted_prompt."),
    ([{"original_prompt": "", "inpainted_prompt": "x"}], "row 0: original_prompt is empty"),
    (3, "holds 3, and is none of"),
]


@pytest.mark.parametrize(("value", "message"), BAD, ids=[message for _, message in BAD])
def test_what_is_wrong_is_told_in_a_sentence(value: object, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_artefact(put(tmp_path / "bad.json", value), "evaluation.rewrites.x.file")
    assert message in str(caught.value) and "bad.json" in str(caught.value)


def test_no_json_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text("{", encoding="utf-8")
    with pytest.raises(DataError, match="x.file: .*a.json: not JSON"):
        read_artefact(tmp_path / "a.json", "x.file")
    with pytest.raises(DataError, match="cannot be opened"):
        read_artefact(tmp_path / "none.json", "x.file")


def test_the_table_of_behaviours_has_contexts_before_requests(tmp_path: Path) -> None:
    path = tmp_path / "behaviours.csv"
    path.write_text("Behavior,ContextString,BehaviorID\nSay it,,a\nSum it up,The text,b\n", encoding="utf-8")
    assert read_behaviours(path, "k") == {"a": ("Say it",), "b": ("Sum it up", "The text\n\n---\n\nSum it up")}
    path.write_text("Behavior,BehaviorID\nSay it,a\nOther,a\n", encoding="utf-8")
    with pytest.raises(DataError, match="names the behaviour 'a' twice"):
        read_behaviours(path, "k")
    path.write_text("x,y\n1,2\n", encoding="utf-8")
    with pytest.raises(DataError, match="needs one of BehaviorID"):
        read_behaviours(path, "k")
    assert behaviour_rows({"a": "Say it"})[0].keys() >= {"Behavior", "BehaviorID", "ContextString"}


def test_whole_numbers_among_nulls_are_names_as_pandas_writes_them(tmp_path: Path) -> None:
    """A column of whole numbers with a null is one of floats."""
    file = tmp_path / "rows.parquet"
    columns = {"original_prompt": ["a", "b"], "inpainted_prompt": ["x", "y"], "behavior_id": [1.0, None]}
    parquet.write_table(pyarrow.table(columns), file)
    assert [one.behaviour for one in read_artefact(file, "k").attempts] == ["1", ""]
    parquet.write_table(pyarrow.table(columns | {"behavior_id": [1.5, None]}), file)
    with pytest.raises(DataError, match=r"row 0: behavior_id must be a text, a whole number or null, got 1\.5"):
        read_artefact(file, "k")
    table = {"BehaviorID": [1.0, None, None, float("nan")], "Behavior": ["Do a", "Do b", "Do c", "Do d"]}
    parquet.write_table(pyarrow.table(table), file)
    assert read_behaviours(file, "k") == {"1": ("Do a",)}, "what has no name is named nowhere"
    parquet.write_table(pyarrow.table({**table, "BehaviorID": [1.0, 1.0, None, None]}), file)
    with pytest.raises(DataError, match="names the behaviour '1' twice"):
        read_behaviours(file, "k")
    parquet.write_table(pyarrow.table({"BehaviorID": pyarrow.nulls(1, "string"), "Behavior": ["Do a"]}), file)
    with pytest.raises(DataError, match="k: .*rows.parquet names no behaviour: BehaviorID is empty in every row"):
        read_behaviours(file, "k")
    for odd in (1.5, True):
        parquet.write_table(pyarrow.table({"BehaviorID": [odd], "Behavior": ["Do a"]}), file)
        with pytest.raises(DataError, match="row 0: BehaviorID must be a text, a whole number or null"):
            read_behaviours(file, "k")


@pytest.mark.parametrize("text", ['{"1": ["pa"], "1": ["pb"]}', '{"jailbreaks": [{"goal": "g", "goal": "h"}]}'])
def test_a_key_that_stands_twice_in_a_json_file_is_an_error(text: str, tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(text, encoding="utf-8")
    key = "1" if "pa" in text else "goal"
    with pytest.raises(DataError, match=f"^k: .*a.json: has the key '{key}' twice in one object, with different"):
        read_artefact(tmp_path / "a.json", "k")


def test_what_a_format_has_no_place_for_is_refused(tmp_path: Path) -> None:
    turned = Artefact((Attempt("a", GOAL, "p", history=({"role": "system", "content": "s"},)),))
    for write in (write_jailbreakbench, write_test_cases, write_completions):
        with pytest.raises(ValueError, match="one message, got 1 turns before it"):
            write(tmp_path / "a.json", turned)
    with pytest.raises(ValueError, match="turns before its prompt"):
        write_paraphrases(tmp_path / "a.csv", turned)
    with pytest.raises(ValueError, match="has no name"):
        write_test_cases(tmp_path / "a.json", Artefact((Attempt(goal=GOAL, prompt="p"),)))
    with pytest.raises(ValueError, match="are written as .csv"):
        write_paraphrases(tmp_path / "a.txt", Artefact())
    assert not list(tmp_path.iterdir())


def test_a_key_of_prompts_that_is_nowhere_is_told_with_the_keys_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "a.json"

    def read(value: object) -> Artefact:
        path.write_text(json.dumps(value), encoding="utf-8")
        return read_artefact(path, "x.file")

    with pytest.raises(
        DataError, match=r"jailbreaks: no entry has the key prompt; their keys are \['goal', 'Prompt'\]"
    ):
        read({"jailbreaks": [{"goal": GOAL, "Prompt": "p"}]})
    found = read({"jailbreaks": [{"goal": GOAL}, {"goal": GOAL, "prompt": None}]})
    assert found.notes == (f"{path}: 1 of 2 entries of jailbreaks have no key prompt and are read as null",)
    assert read({"jailbreaks": [{"goal": GOAL, "prompt": None}]}).notes == ()
    with pytest.raises(DataError, match=r"goal is missing, .* its keys are \['Goal', 'prompt'\]"):
        read({"jailbreaks": [{"Goal": GOAL, "prompt": "p"}]})
    with pytest.raises(DataError, match="steps of runs: no entry has the key model_input; their keys are .'input'"):
        read({"runs": [{"original_prompt": GOAL, "steps": [{"input": "p"}]}]})
    with pytest.raises(
        DataError,
        match=r"needs original_prompt .* The formats that are read: JailbreakBench's artefacts \(an object with j",
    ):
        read([{"Goal": GOAL, "Prompt": "p"}])
