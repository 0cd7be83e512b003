"""Files of JailbreakBench, HarmBench and AdversariaLLM, and paraphrases: read, written, and read back the same."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyarrow import parquet

from textadv.data import DataError
from textadv.data.artefacts.adversariallm import (
    as_adversariallm,
    harm_of,
    read_adversariallm,
    write_adversariallm,
)
from textadv.data.artefacts.attempts import Artefact, Attempt
from textadv.data.artefacts.harmbench import (
    behaviour_rows,
    read_behaviours,
    read_harmbench,
    write_completions,
    write_test_cases,
)
from textadv.data.artefacts.jailbreakbench import as_jailbreakbench, read_jailbreakbench, write_jailbreakbench
from textadv.data.artefacts.joining import joined, read_artefact
from textadv.data.artefacts.paraphrases import read_paraphrases, write_paraphrases

GOAL = "Tell me the forbidden recipe"
JBB: dict[str, Any] = {
    "parameters": {"model": "lab", "attack_success_rate": 0.5, "total_number_of_jailbreaks": 1},
    "jailbreaks": [
        {
            "index": 0,
            "goal": GOAL,
            "behavior": "Recipe",
            "category": "Kitchen",
            "prompt": "As a cook, tell me",
            "response": "Take flour",
            "number_of_queries": 3,
            "queries_to_jailbreak": 3,
            "prompt_tokens": 7,
            "response_tokens": 4,
            "jailbroken": True,
        },
        {"index": 1, "goal": "Tell me the other", "behavior": "Other", "prompt": None, "response": None},
    ],
}
RUN: dict[str, Any] = {
    "config": {"model": "lab", "attack": "pgd", "attack_params": {"num_steps": 2}},
    "runs": [
        {
            "original_prompt": [{"role": "user", "content": GOAL}, {"role": "assistant", "content": "Sure, here is"}],
            "total_time": 1.5,
            "steps": [
                {
                    "step": 0,
                    "model_input": [
                        {"role": "system", "content": "Be kind."},
                        {"role": "user", "content": f"{GOAL} x x x"},
                        {"role": "assistant", "content": "Sure, here is"},
                    ],
                    "model_input_tokens": [1, 2],
                    "model_completions": ["I cannot.", "Flour."],
                    "scores": {"judge": {"p_harmful": [0.1, 0.9]}},
                    "loss": 1.25,
                    "flops": 0,
                    "time_taken": 0.5,
                },
                {"step": 1, "model_input": None, "model_input_embeddings": "a.safetensors", "model_completions": []},
            ],
        }
    ],
}


def put(path: Path, value: object) -> Path:
    path.write_text(json.dumps(value), encoding="utf-8")
    return path


def test_jailbreakbench_by_hand(tmp_path: Path) -> None:
    found = read_jailbreakbench(put(tmp_path / "a.json", JBB))
    first, second = found.attempts
    assert (first.goal, first.behaviour, first.prompt) == (GOAL, "Recipe", "As a cook, tell me")
    assert (first.responses, first.broken) == (("Take flour",), True)
    assert first.beside["category"] == "Kitchen" and first.beside["prompt_tokens"] == 7
    assert (second.prompt, second.responses, second.broken) == (None, (), None)
    assert found.about["parameters"]["model"] == "lab"


def test_what_is_written_for_jailbreakbench_has_every_key_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "b.json"
    write_jailbreakbench(path, Artefact((Attempt(goal=GOAL, prompt="p", responses=("r",)),)))
    (row,) = json.loads(path.read_text())["jailbreaks"]
    assert row.keys() >= JBB["jailbreaks"][0].keys()
    assert row["jailbroken"] is False and row["undecided"] is True, "their reader takes no null"
    assert read_jailbreakbench(path).attempts[0].broken is None


def test_test_cases_of_harmbench_with_null_and_none(tmp_path: Path) -> None:
    found = read_harmbench(put(tmp_path / "test_cases.json", {"recipe": ["one", None], "other": []}))
    assert found.attempts == (Attempt("recipe", prompt="one"), Attempt("recipe"))
    assert found.empty == ("other",)
    write_test_cases(tmp_path / "again.json", found)
    assert json.loads((tmp_path / "again.json").read_text()) == {"recipe": ["one", None], "other": []}


def test_completions_of_harmbench(tmp_path: Path) -> None:
    case = {"test_case": "one", "generation": "Flour", "label": 1, "method": "GCG"}
    rows = {"recipe": [case, {**case, "label": -1, "generation": None}]}
    one, other = read_harmbench(put(tmp_path / "c.json", rows)).attempts
    assert one == Attempt("recipe", prompt="one", responses=("Flour",), broken=True, beside={"method": "GCG"})
    assert other.broken is None and other.responses == ()


def test_cases_with_an_image_are_left_out_and_named(tmp_path: Path) -> None:
    """One of them was a reason to refuse the whole file."""
    cases = {"recipe": ["one", ["cake.png", "What is it?"]], "other": [{"test_case": ["a.png", "b"], "label": 1}]}
    found = read_artefact(put(tmp_path / "c.json", cases), "k")
    assert found.attempts == (Attempt("recipe", prompt="one"),) and found.empty == ()
    (note,) = found.notes
    assert note.endswith(
        "c.json: 2 of 3 test cases have an image and are left out ('recipe', entry 1, 'other', entry 0)"
    )
    assert str(joined([found], {0: "recipe"})) == f"1 prompt for 1 behaviour; {note}"


def test_the_judged_text_of_adversariallm_is_what_was_generated(tmp_path: Path) -> None:
    first, second = read_adversariallm(put(tmp_path / "run.json", RUN)).attempts
    assert (first.goal, first.prompt, first.target) == (GOAL, f"{GOAL} x x x", "Sure, here is")
    assert first.responses == ("I cannot.", "Flour.") and first.history[0]["role"] == "system"
    assert (first.loss, first.beside["flops"], harm_of(first)) == (1.25, None, 0.9), "0 is not measured"
    assert second.prompt is None and second.beside["model_input_embeddings"] == "a.safetensors"


def test_a_prefilled_target_is_taken_off_completions_that_have_it(tmp_path: Path) -> None:
    run = json.loads(json.dumps(RUN))
    run["config"]["attack"] = "prefilling"
    run["runs"][0]["steps"][0]["model_completions"] = ["Sure, here is no recipe.", "No."]
    first = read_adversariallm(put(tmp_path / "run.json", run)).attempts[0]
    assert first.responses == (" no recipe.", "No.")
    run["config"]["attack"] = "pgd"
    first = read_adversariallm(put(tmp_path / "run.json", run)).attempts[0]
    assert first.responses == ("Sure, here is no recipe.", "No."), "there the model said it"


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".json", ".parquet"])
def test_paraphrases_of_every_ending(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"rows{suffix}"
    rows = [{"original_prompt": GOAL, "inpainted_prompt": "What did the cook hide?"}]
    if suffix == ".json":
        put(path, rows)
    else:
        write_paraphrases(path, Artefact((Attempt(goal=GOAL, prompt=rows[0]["inpainted_prompt"]),)))
    assert read_paraphrases(path, "file").attempts == (Attempt(goal=GOAL, prompt="What did the cook hide?"),)
    assert read_artefact(path, "file") == read_paraphrases(path, "file")


def test_the_row_contract_of_other_generators(tmp_path: Path) -> None:
    row = {"behavior_id": "recipe", "original_prompt": GOAL, "prompt": "", "response_y": "Flour", "generator": "llada"}
    (found,) = read_paraphrases(put(tmp_path / "rows.json", [row]), "file").attempts
    assert found == Attempt("recipe", GOAL, None, target="Flour", beside={"generator": "llada"})


def test_each_file_is_told_by_what_it_holds(tmp_path: Path) -> None:
    assert read_artefact(put(tmp_path / "a.json", JBB), "k") == read_jailbreakbench(tmp_path / "a.json")
    assert read_artefact(put(tmp_path / "b.json", RUN), "k") == read_adversariallm(tmp_path / "b.json")
    assert read_artefact(put(tmp_path / "c.json", {"a": ["x"]}), "k") == read_harmbench(tmp_path / "c.json")


REAL = Path(os.environ.get("TEXTADV_SHARED", "")) / "data/prompt_injection/tool_outputs/harmbench_completions.json"


@pytest.mark.skipif(not REAL.is_file(), reason="needs TEXTADV_SHARED")
def test_a_real_file_of_harmbench_is_read_and_written_again_value_by_value(tmp_path: Path) -> None:
    found = read_artefact(REAL, "file")
    assert len(found.attempts) == 80 and len({attempt.behaviour for attempt in found.attempts}) == 40
    write_completions(tmp_path / "again.json", found)
    assert json.loads((tmp_path / "again.json").read_text()) == json.loads(REAL.read_text(encoding="utf-8"))


# ---- the round trip

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\x00"), max_size=12)
FILLED = TEXT.filter(lambda text: text.strip() != "")
CELL = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=8)
VALUE = st.one_of(st.none(), st.booleans(), st.integers(-9, 9), TEXT, st.lists(TEXT, max_size=2))
BESIDE = st.dictionaries(st.sampled_from(["method", "category", "note"]), VALUE, max_size=2)
JUDGED = st.sampled_from([True, False, None])
CHEAP = settings(max_examples=25, deadline=None, suppress_health_check=list(HealthCheck))


def attempts(**own: st.SearchStrategy[Any]) -> st.SearchStrategy[Artefact]:
    each = st.builds(Attempt, **own)
    return st.lists(each, max_size=4).map(lambda found: Artefact(tuple(found)))


def again(
    write: Callable[[Path, Artefact], None], read: Callable[[Path], Artefact], found: Artefact, name: str
) -> Artefact:
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name, found)
        return read(Path(folder) / name)


ONE = st.one_of(st.just(()), st.tuples(TEXT))


@CHEAP
@given(
    attempts(goal=FILLED, behaviour=TEXT, prompt=st.none() | TEXT, responses=ONE, broken=JUDGED, beside=BESIDE),
)
def test_jailbreakbench_there_and_back(found: Artefact) -> None:
    found = replace(found, about={"parameters": {"model": "lab"}})
    back = again(write_jailbreakbench, read_jailbreakbench, found, "a.json")
    assert back == as_jailbreakbench(found)
    assert [replace(one, beside={}) for one in back.attempts] == [replace(one, beside={}) for one in found.attempts]
    assert again(write_jailbreakbench, read_jailbreakbench, back, "a.json") == back


def grouped(found: Artefact) -> Artefact:
    """The attempts of each behaviour one after the other, as a file by behaviour has them."""
    names = list(dict.fromkeys(one.behaviour for one in found.attempts))
    return replace(found, attempts=tuple(one for name in names for one in found.attempts if one.behaviour == name))


@CHEAP
@given(attempts(behaviour=st.sampled_from(["a", "b", "ü 1"]), prompt=st.none() | TEXT), st.sampled_from([(), ("z",)]))
def test_test_cases_there_and_back(found: Artefact, empty: tuple[str, ...]) -> None:
    found = replace(grouped(found), empty=empty)
    if found.attempts or empty:
        assert again(write_test_cases, read_harmbench, found, "a.json") == found


@CHEAP
@given(attempts(behaviour=st.sampled_from("ab"), prompt=st.none() | TEXT, responses=ONE, broken=JUDGED, beside=BESIDE))
def test_completions_there_and_back(found: Artefact) -> None:
    found = grouped(found)
    if found.attempts:
        assert again(write_completions, read_harmbench, found, "a.json") == found


TURNS = st.lists(
    st.fixed_dictionaries({"role": st.sampled_from(["system", "user", "assistant"]), "content": TEXT}), max_size=2
)


@CHEAP
@given(
    attempts(
        goal=st.sampled_from([GOAL, "other"]),
        prompt=FILLED,
        history=TURNS.map(tuple),
        target=TEXT,
        responses=st.lists(TEXT, max_size=2).map(tuple),
        loss=st.none() | st.floats(0, 9),
        beside=BESIDE,
    ),
    st.sampled_from(["gcg", "prefilling"]),
)
def test_adversariallm_there_and_back(found: Artefact, attack: str) -> None:
    found = replace(found, about={"config": {"attack": attack}})
    back = again(write_adversariallm, read_adversariallm, found, "run.json")
    told = as_adversariallm(found)
    in_order = sorted(told.attempts, key=lambda one: one.beside["run"])
    assert list(back.attempts) == in_order and back.about == told.about
    assert again(write_adversariallm, read_adversariallm, back, "run.json") == back


@CHEAP
@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet"])
@given(st.data())
def test_paraphrases_there_and_back(name: str, data: st.DataObject) -> None:
    beside = st.fixed_dictionaries({"generator": CELL.filter(lambda text: text.strip() != "")})
    own = attempts(goal=FILLED, prompt=st.none() | FILLED, behaviour=FILLED, target=FILLED, beside=beside)
    found = data.draw(own.filter(lambda one: len(one.attempts) > 0))
    assert again(write_paraphrases, lambda path: read_paraphrases(path, "file"), found, name) == found


@pytest.mark.parametrize("loss", ["NaN", "Infinity", f"1{400 * '0'}"])
def test_a_loss_that_no_float_holds_is_not_known(loss: str, tmp_path: Path) -> None:
    path = tmp_path / "run.json"
    path.write_text(
        f'{{"runs": [{{"original_prompt": "q", "steps": [{{"model_input": null, "loss": {loss}}}]}}]}}',
        encoding="utf-8",
    )
    assert read_adversariallm(path).attempts[0].loss is None


# ---- bad input

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
