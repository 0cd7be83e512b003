"""Paraphrases: which rows are read, whose behaviours they are, and that nothing held out is trained on."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from textadv.data.artefacts.joining import read_artefact
from textadv.data.chat import Chat, ChatSplits
from textadv.data.paraphrases import Paraphrases, join_paraphrases, limited, read_paraphrases, rephrased
from textadv.values.batch import Role
from textadv.values.errors import DataError

KEY = "data.adversarial.paraphrases"


def chats(*prompts: str) -> tuple[Chat, ...]:
    made = []
    for number, prompt in enumerate(prompts):
        answers = {"harmful": f"Sure, {number}", "safe": "No."}
        made.append(Chat(({"role": "user", "content": prompt},), answers, Role.ADVERSARIAL, number, f"row {number}"))
    return tuple(made)


SPLITS = ChatSplits(
    chats("Break a lock", "Pick a pocket", "Break a lock", "Forge a note"), chats("Bribe a judge"), chats("Rob a bank")
)


def written(folder: Path, *rows: object, name: str = "p.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return path


def row(original: object, other: object) -> dict[str, object]:
    return {"original_prompt": original, "inpainted_prompt": other}


def read(folder: Path, *rows: object) -> Paraphrases:
    return read_paraphrases([written(folder, *rows)], KEY)


@pytest.mark.parametrize("columns", [("original_prompt", "prompt"), ("prompt", "paraphrase"), ("original", "prompt")])
def test_a_file_to_train_on_and_to_attack_with_has_the_same_columns(tmp_path: Path, columns: tuple[str, str]) -> None:
    own, other = columns
    path = written(tmp_path, {own: "Break a lock", other: "How is a lock broken?"})
    (trained,), (asked,) = read_paraphrases([path], KEY).rows, read_artefact(path, KEY).attempts
    assert (trained.original, trained.text) == (asked.goal, asked.prompt) == ("Break a lock", "How is a lock broken?")


def test_rows_are_joined_by_their_original_and_what_is_not_used_is_told(tmp_path: Path) -> None:
    found = join_paraphrases(
        read(
            tmp_path,
            row("break  a LOCK.", "How is a lock broken?"),
            row("Break a lock", "How is a lock broken"),
            row("Break a lock", "Open the lock"),
            row("Break a lock", "BREAK a lock"),
            row("Break a lock", "Rob a bank."),
            row("Pick a pocket", None),
            row("", "x"),
            row("Rob a bank", "How are banks robbed?"),
            row("Bribe a judge", "Pay a judge"),
            row("Fly a kite", "Kites"),
        ),
        SPLITS,
        KEY,
    )
    lock = ("How is a lock broken?", "Open the lock")
    assert found.texts == (lock, (), lock, ())
    told = "\n".join(found.notes)
    for line in (
        "2 of 10 rows of",
        "lack a prompt (the first is row 5, counted from 0) and are left out.",
        "1 of 8 rows are of test behaviours: the file is keyed on what the evaluation reports on.",
        "1 of 8 rows are of validation behaviours and not trained on.",
        "1 of 8 rows read as the prompt of a held-out behaviour and are left out.",
        "1 of 8 rows are of no behaviour that is trained on (such as 'Fly a kite') and are not used.",
        "2 of 8 rows read as their original or as another row of it and are left out.",
        "2 of 3 training prompts have no paraphrase and are trained on alone.",
    ):
        assert line in told, told


def test_a_training_prompt_that_is_held_out_too_has_no_paraphrase(tmp_path: Path) -> None:
    """Whatever else is wrong with such streams, its paraphrases would be of a test behaviour."""
    both = ChatSplits(chats("Break a lock", "Rob a bank"), (), chats("rob a bank"))
    rows = read(tmp_path, row("Rob a bank", "Banks"), row("Break a lock", "Locks"))
    assert join_paraphrases(rows, both, KEY).texts == (("Locks",), ())


def test_columns_may_have_other_names_and_a_suffix_follows_its_original(tmp_path: Path) -> None:
    named = written(tmp_path, {"a": "Break a lock", "b": "Locks", "c": 1})
    (found,) = read_paraphrases([named], KEY, {"original": "a", "paraphrase": "b"}).rows
    assert (found.original, found.text) == ("Break a lock", "Locks")
    (found,) = read_paraphrases([written(tmp_path, {"prompt": "Break a lock", "suffix": "! ! x"})], KEY).rows
    assert found.text == "Break a lock ! ! x"
    csv = tmp_path / "p.csv"
    csv.write_text('original_prompt,inpainted_prompt\n"Break a lock","Locks, and how"\n')
    assert read_paraphrases([csv], KEY).rows[0].text == "Locks, and how"


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"behaviour": "x", "text": "y"}], f"{KEY}.columns.original: no column 'original_prompt' in"),
        ([{"prompt": "x", "text": "y"}], f"{KEY}.columns.paraphrase: no column 'inpainted_prompt' in"),
        ([row(None, "y"), row("x", " ")], "has an original prompt and another. Name others."),
    ],
)
def test_files_without_prompts(tmp_path: Path, rows: list[object], told: str) -> None:
    with pytest.raises(DataError) as caught:
        read(tmp_path, *rows)
    assert told in str(caught.value)


def test_the_column_that_is_named_is_read_where_there_is_another_one(tmp_path: Path) -> None:
    both = written(tmp_path, {"prompt": "Break a lock", "paraphrase": "Locks", "end": "! x", "suffix": "? y"})
    assert read_paraphrases([both], KEY, {"suffix": "end"}).rows[0].text == "Break a lock ! x"
    assert read_paraphrases([both], KEY, {"paraphrase": "end"}).rows[0].text == "! x"
    assert read_paraphrases([both], KEY).rows[0].text == "Locks"
    with pytest.raises(DataError, match=r"columns names paraphrase and suffix, and a row has one of them"):
        read_paraphrases([both], KEY, {"paraphrase": "paraphrase", "suffix": "end"})


@pytest.mark.parametrize("other", [["a", "b"], {"prompt": "a"}, 3, True])
def test_a_cell_that_is_no_text_is_refused_and_told(tmp_path: Path, other: object) -> None:
    """Written out as Python has it, a list of prompts would be trained on as one."""
    with pytest.raises(DataError, match=r"row 1 \(counted from 0\) of .*p\.jsonl.* not text"):
        read(tmp_path, row("Break a lock", "Locks"), row("Break a lock", other))


def test_prompts_of_attacks_may_differ_from_their_original_in_case_and_signs_alone(tmp_path: Path) -> None:
    spelled, signs = "bReAk A lOcK", "Break a lock ! !"
    rows = [row("Break a lock", text) for text in (spelled, signs, "Break a lock", signs, "ROB a bank")]
    found = join_paraphrases(read(tmp_path, *rows), SPLITS, KEY, exact=True)
    assert found.texts[0] == found.texts[2] == (spelled, signs)
    told = "\n".join(found.notes)
    assert "2 of 5 rows read as their original" in told and "1 of 5 rows read as the prompt of a held-out" in told


def test_a_file_of_other_behaviours_is_refused(tmp_path: Path) -> None:
    rows = read(tmp_path, row("Rob a bank", "Banks"), row("x" * 100, "y"))
    with pytest.raises(DataError, match=r"none of 2 rows is of a training prompt .* \(1 are of held-out ones\)"):
        join_paraphrases(rows, SPLITS, KEY)


def test_a_limit_takes_the_first_or_a_draw_of_each_row(tmp_path: Path) -> None:
    rows = [row("Break a lock", f"Lock {n}") for n in range(6)] + [row("Forge a note", "Notes")]
    found = join_paraphrases(read(tmp_path, *rows), SPLITS, KEY)
    assert limited(found.texts, 2, None) == (("Lock 0", "Lock 1"), (), ("Lock 0", "Lock 1"), ("Notes",))
    drawn = limited(found.texts, 2, 0)
    assert drawn == limited(found.texts, 2, 0) and drawn[3] == ("Notes",)
    assert len({limited(found.texts, 2, seed) for seed in range(4)}) > 1
    assert all(list(texts) == sorted(texts) and len(texts) <= 2 for texts in drawn)


def test_a_rephrased_chat_keeps_its_earlier_turns_and_answers() -> None:
    turns = ({"role": "system", "content": "s"}, {"role": "user", "content": "Break a lock"})
    chat = Chat(turns, {"harmful": "Sure", "safe": "No."}, Role.ADVERSARIAL, 0, "row 0")
    found = rephrased(chat, "Locks", 9)
    assert (found.messages, found.id) == ((turns[0], {"role": "user", "content": "Locks"}), 9)
    assert (found.answers, found.place) == (chat.answers, "row 0, a paraphrase")
