"""Files of JailbreakBench, HarmBench and AdversariaLLM, and paraphrases: read, written, and read back the same."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from textadv.data.artefacts.adversariallm import (
    as_adversariallm,
    harm_of,
    read_adversariallm,
    write_adversariallm,
)
from textadv.data.artefacts.attempts import Artefact, Attempt
from textadv.data.artefacts.harmbench import (
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
