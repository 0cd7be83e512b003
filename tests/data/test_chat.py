"""Chat data of every kind of file: which columns give prompts, targets, safe responses and whole conversations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.data.files import write, write_parquet
from textadv.data.chat import Chat, ChatSplits, load_chats
from textadv.values.batch import Role
from textadv.values.errors import DataError

ADVERSARIAL = ["prompt", "target", "safe"]
HARMFUL = [(f"Tell me forbidden recipe {i}", f"Sure, recipe {i} is", f"Sorry, not recipe {i}.") for i in range(10)]
PAIRS = [(f"question {i}", f"answer {i}") for i in range(10)]
ALL = {"validation_fraction": 0.0}
ROLES = [Role.ADVERSARIAL, Role.UTILITY, Role.BORDERLINE]


def adversarial(folder: Path, rows: list[Any] = HARMFUL, header: list[str] = ADVERSARIAL, **options: Any) -> ChatSplits:
    file = write(folder / "harmful.jsonl", rows, header)
    return load_chats(Role.ADVERSARIAL, train=file, **{**ALL, **options})


def utility(folder: Path, rows: list[Any] = PAIRS, header: list[str] | None = None, **options: Any) -> ChatSplits:
    file = write(folder / "utility.jsonl", rows, header or ["prompt", "response"])
    return load_chats(Role.UTILITY, train=file, **{**ALL, **options})


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


@pytest.mark.parametrize("kind", ["csv", "tsv", "json", "jsonl", "parquet"])
def test_adversarial_rows_of_every_kind_of_file(tmp_path: Path, kind: str) -> None:
    path = write(tmp_path / f"harmful.{kind}", HARMFUL, ADVERSARIAL)
    found = load_chats(Role.ADVERSARIAL, train=path, **ALL)
    assert (found.validation, found.test) == ((), ())
    assert [chat.id for chat in found.train] == list(range(10))
    assert found.train[3] == Chat(
        messages=(user("Tell me forbidden recipe 3"),),
        answers={"harmful": "Sure, recipe 3 is", "safe": "Sorry, not recipe 3."},
        role=Role.ADVERSARIAL,
        id=3,
        place=f"data.adversarial: row 3 (counted from 0) of {path}",
    )
    assert found.train[3].prompt == "Tell me forbidden recipe 3"


@pytest.mark.parametrize("role", [Role.UTILITY, Role.BORDERLINE])
def test_prompts_with_responses(tmp_path: Path, role: Role) -> None:
    found = load_chats(role, train=write(tmp_path / "a.csv", PAIRS, ["prompt", "response"]), **ALL).train
    assert [chat.messages for chat in found] == [(user(f"question {i}"),) for i in range(10)]
    assert [chat.answers for chat in found] == [{"response": f"answer {i}"} for i in range(10)]
    assert {chat.role for chat in found} == {role}


def test_columns_of_other_names_and_a_system_text(tmp_path: Path) -> None:
    rows = [("a?", "yes a", "no a", "Be kind."), ("b?", "yes b", "no b", None)]
    columns = {"prompt": "goal", "target": "begin", "safe": "refusal", "system": "setting"}
    found = adversarial(tmp_path, rows, list(columns.values()), columns=columns).train
    assert found[0].messages == ({"role": "system", "content": "Be kind."}, user("a?"))
    assert found[0].answers == {"harmful": "yes a", "safe": "no a"}
    assert found[1].messages == (user("b?"),)


def test_targets_and_safe_responses_are_paired_in_turn(tmp_path: Path) -> None:
    rows = [("a?", ["t0", "t1", "t2"], ["s0", "s1"]), ("b?", "t", ["s0", "s1"]), ("c?", "t", "s")]
    found = adversarial(tmp_path, rows).train
    told = [(chat.prompt, chat.answers["harmful"], chat.answers["safe"]) for chat in found]
    assert told == [
        ("a?", "t0", "s0"),
        ("a?", "t1", "s1"),
        ("a?", "t2", "s0"),
        ("b?", "t", "s0"),
        ("b?", "t", "s1"),
        ("c?", "t", "s"),
    ]
    assert [chat.id for chat in found] == [0, 1, 2, 3, 4, 5]
    assert "row 1 (counted from 0)" in found[4].place


def test_safe_responses_of_the_configuration_take_turns(tmp_path: Path) -> None:
    rows = [("a?", ["t0", "t1"]), ("b?", "t"), ("c?", "t")]
    found = adversarial(tmp_path, rows, ["prompt", "target"], safe_responses=["no", "never", "sorry"]).train
    assert [chat.answers["safe"] for chat in found] == ["no", "never", "sorry", "no"]
    found = adversarial(tmp_path, safe_responses=["no"]).train
    assert {chat.answers["safe"] for chat in found} == {"no"}


MESSAGES = [{"role": "system", "content": "s"}, user("a"), {"role": "assistant", "content": "b"}, user("c")]
FINAL = {"role": "assistant", "content": "d"}


@pytest.mark.parametrize("columns", [["messages"], ["prompt", "response", "messages"]])
@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_messages_whose_last_is_the_answer(tmp_path: Path, columns: list[str], kind: str) -> None:
    path = write(tmp_path / f"chats.{kind}", [("p", "r", [*MESSAGES, FINAL])[-len(columns) :]], columns)
    (chat,) = load_chats(Role.UTILITY, train=path, **ALL).train
    assert chat.messages == tuple(MESSAGES)
    assert chat.answers == {"response": "d"}
    assert chat.prompt == "c"


def test_a_thought_beside_the_answers_content_stands_before_it(tmp_path: Path) -> None:
    """Of an earlier turn it is left out, as chat templates leave it."""
    earlier, last = ({"role": "assistant", "content": text, "reasoning_content": "hm"} for text in ("no", "yes"))
    (chat,) = utility(
        tmp_path, [([user("a?"), earlier, user("b?"), last],)], ["messages"], validation_fraction=0.0
    ).train
    assert chat.messages == (user("a?"), {"role": "assistant", "content": "no"}, user("b?"))
    assert chat.answers == {"response": "<think>\nhm\n</think>\n\nyes"}


def test_prompt_and_response_are_taken_instead_of_messages_where_they_are_named(tmp_path: Path) -> None:
    rows = [("p", "r", [*MESSAGES, FINAL])]
    found = utility(tmp_path, rows, ["prompt", "response", "messages"], columns={"prompt": "prompt"})
    assert (found.train[0].prompt, found.train[0].answers) == ("p", {"response": "r"})


def test_several_files_follow_each_other_and_may_differ_in_columns(tmp_path: Path) -> None:
    first = write(tmp_path / "a.jsonl", PAIRS[:2], ["prompt", "response"])
    second = write(tmp_path / "b.csv", [("x", *PAIRS[2]), ("x", *PAIRS[3])], ["note", "prompt", "response"])
    found = load_chats(Role.BORDERLINE, train=[first, second], **ALL).train
    assert [(chat.id, chat.prompt) for chat in found] == [(i, f"question {i}") for i in range(4)]
    assert found[3].place == f"data.borderline: row 1 (counted from 0) of {second}"


def test_parts_of_files_of_their_own(tmp_path: Path) -> None:
    names = {part: write(tmp_path / f"{part}.jsonl", [(part, "r")], ["prompt", "response"]) for part in PARTS}
    found = load_chats(Role.UTILITY, **names, validation_fraction=0.5)
    assert [chat.prompt for part in (found.train, found.validation, found.test) for chat in part] == list(PARTS)


PARTS = ("train", "validation", "test")


def test_held_out_parts_share_no_prompt_and_lose_none(tmp_path: Path) -> None:
    rows = [(f"p{i % 20}", f"t{i}", "s") for i in range(60)]
    found = adversarial(tmp_path, rows, validation_fraction=0.2, test_fraction=0.3)
    prompts = [{chat.prompt for chat in part} for part in (found.train, found.validation, found.test)]
    assert list(map(len, prompts)) == [10, 4, 6]
    assert len(set.union(*prompts)) == 20
    assert [len(found.train), len(found.validation), len(found.test)] == [30, 12, 18]
    ids = [chat.id for part in (found.train, found.validation, found.test) for chat in part]
    assert sorted(ids) == list(range(60))
    again = adversarial(tmp_path, rows, validation_fraction=0.2, test_fraction=0.3)
    other = adversarial(tmp_path, rows, validation_fraction=0.2, test_fraction=0.3, seed=1)
    assert again == found
    assert {chat.prompt for chat in other.test} != prompts[2]


def test_validation_is_held_out_of_train_where_test_has_a_file(tmp_path: Path) -> None:
    test = write(tmp_path / "test.jsonl", HARMFUL[:4], ADVERSARIAL)
    found = adversarial(tmp_path, test=test, validation_fraction=0.2)
    assert [len(found.train), len(found.validation), len(found.test)] == [8, 2, 4]
    assert [chat.prompt for chat in found.test] == [prompt for prompt, *_ in HARMFUL[:4]]


def test_row_limits_draw_a_seeded_subset_in_order(tmp_path: Path) -> None:
    rows = [(f"q{i}", "a") for i in range(100)]
    found = utility(tmp_path, rows, train_rows=10).train
    ids = [chat.id for chat in found]
    assert len(ids) == 10
    assert ids == sorted(ids)
    assert ids != list(range(10))
    assert [chat.prompt for chat in found] == [f"q{i}" for i in ids]
    assert utility(tmp_path, rows, train_rows=10).train == found
    assert utility(tmp_path, rows, train_rows=10, seed=1).train != found
    assert len(utility(tmp_path, rows, train_rows=1000).train) == 100
    held = utility(tmp_path, rows, validation_fraction=0.3, test_fraction=0.3, validation_rows=5, test_rows=6)
    assert [len(held.train), len(held.validation), len(held.test)] == [40, 5, 6]


# ---- errors


@pytest.mark.parametrize(
    ("row", "match"),
    [
        (("", "t", "s"), "data.adversarial.columns.prompt: row 1 .counted from 0. of .*harmful.jsonl is empty"),
        (("p", " ", "s"), "data.adversarial.columns.target: row 1 .* is empty"),
        (("p", "t", "\n"), "data.adversarial.columns.safe: row 1 .* is empty"),
        ((None, "t", "s"), "data.adversarial.columns.prompt: row 1 .* has None, which is not text"),
        (("p", 7, "s"), "data.adversarial.columns.target: row 1 .* has 7, which is not text"),
        (("p", "t", []), "data.adversarial.columns.safe: row 1 .* has an empty list"),
        (("p", "t", ["s", ""]), "data.adversarial.columns.safe: row 1 .*entry 1, is empty"),
        (("p", ["t", 3], "s"), "data.adversarial.columns.target: row 1 .*entry 1, has 3, which is not text"),
    ],
)
def test_rows_that_cannot_be_used_are_named(tmp_path: Path, row: tuple[object, ...], match: str) -> None:
    with pytest.raises(DataError, match=match):
        adversarial(tmp_path, [HARMFUL[0], row])


@pytest.mark.parametrize(("row", "match"), [(("p", ""), "response: row 1 .*is empty"), (("p", {}), "has {}, which is")])
@pytest.mark.parametrize("role", [Role.UTILITY, Role.BORDERLINE])
def test_responses_are_checked(tmp_path: Path, role: Role, row: tuple[object, ...], match: str) -> None:
    path = write(tmp_path / "a.jsonl", [PAIRS[0], row], ["prompt", "response"])
    with pytest.raises(DataError, match=f"data.{role.name.lower()}.columns.*{match}"):
        load_chats(role, train=path, **ALL)


@pytest.mark.parametrize(
    ("messages", "match"),
    [
        ([user("a")], "has the turns user; the last must be the assistant's answer"),
        ([FINAL], "has the turns assistant; the last must be"),
        ([user("a"), FINAL, FINAL], "has the turns user, assistant, assistant; the last must be"),
        ([], "has the turns .none.; the last must be"),
        ("hello", "has 'hello', which is no list of messages"),
        (["hello"], "which is no list of messages"),
        (
            [{"role": "tool", "content": "a"}, FINAL],
            "message 0, has the role 'tool'; roles are system, user, assistant",
        ),
        ([{"speaker": "human", "value": "a"}, FINAL], "message 0, has neither role nor from; there are speaker, value"),
        ([user(""), FINAL], "message 0, is empty"),
        ([user("a"), {"role": "assistant"}], "message 1, has neither content nor value; there are role"),
    ],
)
def test_messages_are_checked(tmp_path: Path, messages: object, match: str) -> None:
    with pytest.raises(DataError, match=f"data.utility.columns.messages: row 1 .counted from 0. of .*{match}"):
        utility(tmp_path, [([user("a"), FINAL],), (messages,)], ["messages"])


def test_missing_columns_name_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(
        DataError, match="data.adversarial.columns.target: no column 'target' in .*; there are goal, safe"
    ):
        adversarial(tmp_path, [("p", "s")], ["goal", "safe"], columns={"prompt": "goal"})
    with pytest.raises(DataError, match="columns.safe: no column 'safe'.*or data.adversarial.safe_responses to a list"):
        adversarial(tmp_path, [("p", "t")], ["prompt", "target"])
    with pytest.raises(DataError, match="columns.system: no column 'setting'"):
        adversarial(tmp_path, columns={"system": "setting"})
    with pytest.raises(DataError, match="data.utility.columns.prompt: .*or data.utility.columns.messages"):
        utility(tmp_path, [("p", "r")], ["question", "response"])


@pytest.mark.parametrize("role", ROLES)
def test_files_without_rows_are_refused(tmp_path: Path, role: Role) -> None:
    path = tmp_path / "empty.csv"
    path.write_text("prompt,target,safe,response\n", encoding="utf-8")
    with pytest.raises(DataError, match=f"data.{role.name.lower()}: .*empty.csv has no rows"):
        load_chats(role, train=path, **ALL)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"columns": {"answer": "x"}}, "data.adversarial.columns.answer is not known; there are prompt, target, safe"),
        ({"safe_responses": "no"}, "data.adversarial.safe_responses must be a list of texts, got 'no'"),
        ({"safe_responses": ["no", " "]}, "data.adversarial.safe_responses: entry 1 .counted from 0. is empty"),
        ({"safe_responses": ["no"], "columns": {"safe": "safe"}}, "safe_responses and .*columns.safe are both set"),
        ({"train_rows": 0}, "data.adversarial.train_rows must be at least 1, got 0"),
        ({"validation_fraction": 1.0}, "data.adversarial.validation_fraction must be at least 0 and below 1, got 1.0"),
        ({"validation_fraction": 0.5, "test_fraction": 0.5}, "must leave rows to train on"),
        ({"validation_fraction": 0.01}, "data.adversarial.validation_fraction: 0.01 of 10 prompts leaves it or train"),
        ({"validation": []}, "data.adversarial.validation: no file named"),
        ({"train": []}, "data.adversarial.train: no file named"),
        ({"train": None}, "data.adversarial.train: no file named"),
        ({"train": "nowhere.csv"}, "data.adversarial.train: there is no file nowhere.csv"),
    ],
)
def test_options_are_checked(tmp_path: Path, options: dict[str, Any], match: str) -> None:
    train = write(tmp_path / "harmful.jsonl", HARMFUL, ADVERSARIAL)
    with pytest.raises(DataError, match=match):
        load_chats(Role.ADVERSARIAL, **{"train": train, **ALL, **options})


def test_messages_and_prompt_cannot_both_be_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="data.utility.columns names messages and prompt"):
        utility(tmp_path, columns={"messages": "m", "prompt": "p"})


def test_parts_need_files_of_their_own(tmp_path: Path) -> None:
    path = write(tmp_path / "harmful.jsonl", HARMFUL, ADVERSARIAL)
    with pytest.raises(DataError, match="data.adversarial.train and data.adversarial.test both name .*harmful.jsonl"):
        adversarial(tmp_path, test=tmp_path / ".." / tmp_path.name / path.name)
    other = write(tmp_path / "other.jsonl", HARMFUL, ADVERSARIAL)
    with pytest.raises(DataError, match=r"data.adversarial.test and data.adversarial.test_fraction \(0.2\) are both"):
        adversarial(tmp_path, test=other, test_fraction=0.2)


# ---- the Hub


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., ChatSplits]:
    """Loads what stands in a folder of this test as if it were a Hub data set."""
    folder = tmp_path / "hub"
    folder.mkdir()
    for split, rows in (("train", HARMFUL), ("test", HARMFUL[:3])):
        write_parquet(folder / f"{split}.parquet", rows, ADVERSARIAL)
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    return lambda **options: load_chats(Role.ADVERSARIAL, str(folder), **options)


def test_hub_splits(hub: Callable[..., ChatSplits]) -> None:
    found = hub(validation_fraction=0.2)
    assert [len(found.train), len(found.validation), len(found.test)] == [8, 2, 3]
    found = hub(train="train[:5]", test="test", validation="train[5:]")
    assert [len(found.train), len(found.validation), len(found.test)] == [5, 5, 3]
    assert found.validation[0].prompt == HARMFUL[5][0]


def test_hub_errors_name_the_streams_keys(hub: Callable[..., ChatSplits]) -> None:
    with pytest.raises(DataError, match="data.adversarial.test: .* has no split 'tset'"):
        hub(test="tset")
    with pytest.raises(DataError, match="data.adversarial.train must be the name of one Hub split"):
        hub(train=["a", "b"])
    with pytest.raises(DataError, match="train and data.adversarial.test both name train"):
        hub(train="train", test="train")
    with pytest.raises(DataError, match=r"^data.adversarial.train: .* has no split of that name"):
        hub(test="train")
    with pytest.raises(DataError, match=r"data.adversarial.name: .*data.adversarial.config: None"):
        load_chats(Role.ADVERSARIAL, "./no/such/folder")
