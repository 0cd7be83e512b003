"""Artefacts to train on: whose behaviours their prompts are, and what is left out and told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.data.test_paraphrases import SPLITS
from textadv.data import DataError
from textadv.data.artefacts.joining import joined, read_artefact
from textadv.data.artefacts.seeds import read_seeds
from textadv.data.paraphrases import Joined
from textadv.tasks.chat.seeds import SEEDS, FileSeeds

TABLE = "BehaviorID,Behavior,ContextString\nlock,break  a LOCK.,\npocket,Pick a pocket,In a tram\nbank,Rob a bank,\n"


def put(path: Path, value: object) -> str:
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return str(path)


def seeds(*files: str, behaviours: str | None = None) -> Joined:
    return FileSeeds(file=[*files], behaviours=behaviours).join(SPLITS)


def test_an_artefact_of_jailbreakbench_is_trained_on(tmp_path: Path) -> None:
    rows = [
        {"goal": "break a LOCK.", "prompt": "As a smith, break a lock"},
        {"goal": "Pick a pocket", "prompt": None},
        {"goal": "Rob a bank", "prompt": "As an actor, rob a bank"},
        {"goal": "Fly a kite", "prompt": "Kites"},
    ]
    found = seeds(put(tmp_path / "found.json", {"jailbreaks": rows}))
    assert found.texts == (("As a smith, break a lock",), (), ("As a smith, break a lock",), ())
    told = "\n".join(found.notes)
    for line in (
        f"{SEEDS}: 1 of 4 prompts of {tmp_path / 'found.json'} are null or follow turns of their own (0 of them)",
        "1 of 3 rows are of test behaviours",
        "1 of 3 rows are of no behaviour that is trained on (such as 'Fly a kite')",
    ):
        assert line in told, told


def test_test_cases_of_harmbench_are_trained_on_by_their_table(tmp_path: Path) -> None:
    cases = {"lock": ["Locks!", ["a.png", "b"]], "pocket": ["Pockets"], "bank": ["Banks"]}
    file, table = put(tmp_path / "test_cases.json", cases), put(tmp_path / "table.csv", TABLE)
    found = seeds(file, behaviours=table)
    assert found.texts == (("Locks!",), ("Pockets",), ("Locks!",), ())
    told = "\n".join(found.notes)
    assert "1 of 4 test cases have an image and are left out ('lock', entry 1)" in told
    assert "1 of 3 rows are of test behaviours" in told
    with pytest.raises(
        DataError, match=r"^attack.seeds.file names behaviours by id alone.* in attack.seeds.behaviours"
    ):
        seeds(file)


def test_rows_and_artefacts_may_stand_together(tmp_path: Path) -> None:
    rows = [{"original_prompt": "Forge a note", "suffix": "! x"}]
    lines = put(tmp_path / "rows.jsonl", json.dumps(rows[0]) + "\n")
    artefact = put(tmp_path / "found.json", {"jailbreaks": [{"goal": "Forge a note", "prompt": "Notes"}]})
    assert seeds(lines, artefact).texts == ((), (), (), ("Forge a note ! x", "Notes"))
    assert seeds(put(tmp_path / "rows.json", rows)).texts == ((), (), (), ("Forge a note ! x",))


def test_what_cannot_be_trained_on_is_told(tmp_path: Path) -> None:
    turns = [{"role": "user", "content": text} for text in ("Hello", "Locks")]
    run = {"runs": [{"original_prompt": "Break a lock", "steps": [{"model_input": turns}]}]}
    with pytest.raises(
        DataError, match=r"no prompt of .*run.json can be trained on. .*follow turns of their own \(1 of"
    ):
        seeds(put(tmp_path / "run.json", run))
    with pytest.raises(DataError, match=r"^attack.seeds.file: .*is none of JailbreakBench's artefacts"):
        seeds(put(tmp_path / "odd.json", {"version": 1}))
    with pytest.raises(DataError, match=r"^attack.seeds.file: .*cannot be opened"):
        seeds(str(tmp_path / "none.json"))


def test_prompts_that_do_not_say_what_was_asked_for_are_left_out_and_told(tmp_path: Path) -> None:
    steps = [{"model_input": "Notes"}]
    runs = [{"original_prompt": asked, "steps": steps} for asked in (" ", "Forge a note")]
    found = seeds(put(tmp_path / "run.json", {"runs": runs}))
    assert found.texts[3] == ("Notes",)
    assert any("1 of 2 prompts of" in note and "do not say what was asked for" in note for note in found.notes)
    with pytest.raises(DataError, match=r"no prompt of .*run.json can be trained on. .*1 of 1 prompts .*do not say"):
        seeds(put(tmp_path / "run.json", {"runs": runs[:1]}))
    (tmp_path / "names.csv").write_text("BehaviorID,Behavior\nnote,Forge a note\n", encoding="utf-8")
    cases = put(tmp_path / "cases.json", {"": ["What?"], "note": ["Notes"]})
    read = read_seeds([cases], "attack.seeds", {}, tmp_path / "names.csv", SPLITS.train)
    assert [row.text for row in read.rows] == ["Notes"] and "1 of 2 prompts" in read.notes[0]


ODD_ROWS = (
    ({"original_prompt": "Forge a note", "inpainted_prompt": "Notes"}, "Notes"),
    ({"original_prompt": "Forge a note", "inpainted_prompt": float("nan")}, None),
    ({"original_prompt": None, "inpainted_prompt": "z"}, None),
    ({"original_prompt": float("nan"), "inpainted_prompt": "z"}, None),
    ({"original_prompt": "Forge a note", "inpainted_prompt": " "}, None),
    ({"original_prompt": "Forge a note", "inpainted_prompt": [{"type": "text", "text": "parts"}]}, "parts"),
)


def test_rows_that_lack_something_are_read_alike_in_training_and_evaluation(tmp_path: Path) -> None:
    lines = put(tmp_path / "rows.jsonl", "".join(f"{json.dumps(row)}\n" for row, _ in ODD_ROWS))
    asked = read_artefact(lines, "evaluation.rewrites.a.file")
    assert seeds(lines).texts[3] == tuple(text for _, text in ODD_ROWS if text)
    prompts = [one.prompt for one in asked.attempts if one.prompt and one.prompt.strip()]
    assert prompts == [text for _, text in ODD_ROWS if text] and len(asked.attempts) == 4
    assert asked.notes == (
        f"{lines}: 2 of 6 rows have no original_prompt (the first is row 2, counted from 0) and are left out",
    )
    told = joined([asked], {3: "Forge a note"})
    assert told.null == 2 and "2 of 6 rows have no original_prompt" in str(told)


def test_a_suffix_is_read_alike_in_training_and_evaluation(tmp_path: Path) -> None:
    rows = [{"original_prompt": "Forge a note ", "suffix": "! x", "behavior_id": float("nan")}]
    lines = put(tmp_path / "rows.jsonl", json.dumps(rows[0]) + "\n")
    (one,) = read_artefact(lines, "k").attempts
    assert (one.prompt, one.behaviour, one.beside) == ("Forge a note ! x", "", {})
    assert seeds(lines).texts[3] == (one.prompt,)


@pytest.mark.parametrize("cell", ["original_prompt", "inpainted_prompt", "response_y"])
def test_a_cell_that_is_no_text_is_told_under_the_configs_key(cell: str, tmp_path: Path) -> None:
    row = {"original_prompt": "Forge a note", "inpainted_prompt": "Notes", cell: 3}
    lines = put(tmp_path / "rows.jsonl", json.dumps(row) + "\n")
    with pytest.raises(DataError) as caught:
        read_artefact(lines, "evaluation.rewrites.a.file")
    assert str(caught.value).startswith(f"evaluation.rewrites.a.file: {lines}, row 0: {cell} has 3, which is not text.")


@pytest.mark.parametrize("goal", ["BREAK a  lock", "Break a lock.", "Break a lock !", "Break the lock"])
def test_training_and_evaluation_join_by_one_rule(goal: str, tmp_path: Path) -> None:
    """Case, blanks and a full stop at the end make no other request; all else does."""
    file = put(
        tmp_path / "found.json", {"jailbreaks": [{"goal": text, "prompt": "p"} for text in (goal, "Forge a note")]}
    )
    asked = joined([read_artefact(file, "k")], {chat.id: chat.prompt for chat in SPLITS.train})
    trained = seeds(file)
    assert [bool(texts) for texts in trained.texts] == [chat.id in asked.attempts for chat in SPLITS.train]
    assert bool(trained.texts[0]) == (goal in ("BREAK a  lock", "Break a lock."))
    rows = put(
        tmp_path / "rows.jsonl",
        "".join(json.dumps({"prompt": one, "paraphrase": "p"}) + "\n" for one in (goal, "Forge a note")),
    )
    assert [*map(bool, seeds(rows).texts)] == [*map(bool, trained.texts)]
