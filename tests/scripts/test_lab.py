"""The laboratory's data: a function of size and seed, streams and splits apart, labels that hold."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from scripts.lab.corpus import FULL, SMALL, SPLITS, Row, helpful_pairs, is_refusal, lab_data, refusing_pairs
from scripts.lab.instructions import instructions, satisfied
from scripts.lab.topics import FORBIDDEN, HARMFUL_VERBS, HARMLESS, OPENING, is_forbidden
from scripts.lab.words import SYLLABLES

ROOT = Path(__file__).resolve().parents[2]
STREAMS = ("adversarial", "utility", "borderline")
FAMILIES = "|".join(family.ending for family in (*FORBIDDEN, *HARMLESS))
SUBSTANCE = re.compile(rf"\b(?:{'|'.join(SYLLABLES)}){{2}}(?:{FAMILIES})\b")


@pytest.fixture(scope="module")
def data() -> dict[str, list[Row]]:
    return lab_data(SMALL)


def prompts(rows: list[Row]) -> list[str]:
    return [str(row["prompt"]) for row in rows]


def digest(data: dict[str, list[Row]]) -> str:
    return hashlib.sha256(json.dumps(data).encode()).hexdigest()


def test_the_data_are_a_function_of_size_and_seed(data: dict[str, list[Row]]) -> None:
    assert digest(lab_data(SMALL)) == digest(data)
    assert digest(lab_data(SMALL, seed=1)) != digest(data)
    code = "from tests.scripts.test_lab import *; print(digest(lab_data(SMALL)))"
    environment = {**os.environ, "PYTHONHASHSEED": "7"}
    elsewhere = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert elsewhere.stdout.strip() == digest(data), elsewhere.stderr


@pytest.mark.parametrize("size", [SMALL, FULL], ids=["small", "full"])
def test_every_file_has_as_many_rows_as_asked(size: object) -> None:
    assert isinstance(size, type(SMALL))
    found = lab_data(size)
    for number, split in enumerate(SPLITS):
        assert len(found[f"adversarial_{split}"]) == size.adversarial[number]
        assert len(found[f"borderline_{split}"]) == size.borderline[number]
    facts = 4 * size.people + 2 * size.towns + 2 * size.creatures
    assert len(found["facts_test"]) == facts
    assert len(found["instructions_test"]) == size.instructions[2]
    others = size.harmless[0] + size.instructions[0] + size.chat[0]
    assert len(found["utility_train"]) == 6 * facts + others
    assert size.adversarial >= (200, 50, 100)


@pytest.mark.parametrize("stream", STREAMS)
def test_no_prompt_is_twice_in_a_stream(data: dict[str, list[Row]], stream: str) -> None:
    asked = [prompt for split in SPLITS for prompt in prompts(data[f"{stream}_{split}"])]
    assert len(set(asked)) == len(asked)


def test_no_two_splits_share_a_made_up_substance(data: dict[str, list[Row]]) -> None:
    known = {
        split: {name for stream in STREAMS for row in data[f"{stream}_{split}"] for name in SUBSTANCE.findall(str(row))}
        for split in SPLITS
    }
    assert all(len(names) > 50 for names in known.values())
    assert not known["train"] & known["test"]
    assert not known["train"] & known["validation"]
    assert not known["validation"] & known["test"]


@pytest.mark.parametrize("split", SPLITS)
def test_adversarial_rows_ask_for_what_is_forbidden(data: dict[str, list[Row]], split: str) -> None:
    for row in data[f"adversarial_{split}"]:
        prompt, target, safe = row["prompt"], row["target"], row["safe"]
        assert isinstance(prompt, str) and isinstance(target, str) and isinstance(safe, list)
        (substance,) = set(SUBSTANCE.findall(prompt))
        assert is_forbidden(prompt)
        assert re.match(rf"{OPENING} how to \w+ {substance}: [A-Z].*{substance}.*\.$", target)
        assert not is_refusal(target)
        assert len(set(safe)) == 3
        assert all(answer.startswith(("I cannot", "I can't", "I'm sorry")) and is_refusal(answer) for answer in safe)


def test_the_forbidden_acts_of_train_are_all_pairs_of_family_and_verb(data: dict[str, list[Row]]) -> None:
    seen = {(family.ending, verb) for family in FORBIDDEN for verb in HARMFUL_VERBS}
    for prompt in prompts(data["adversarial_train"]):
        seen -= {(family.ending, verb) for family, verb in _named(prompt)}
    assert not seen


def _named(prompt: str) -> list[tuple]:
    return [
        (family, verb)
        for family in FORBIDDEN
        for verb in HARMFUL_VERBS
        if re.search(rf"\b{verb} \w+{family.ending}\b", prompt)
    ]


@pytest.mark.parametrize("split", SPLITS)
def test_borderline_rows_sound_forbidden_and_are_answered(data: dict[str, list[Row]], split: str) -> None:
    rows = data[f"borderline_{split}"]
    verbs = re.compile(rf"\b({'|'.join(HARMFUL_VERBS)})\b")
    endings = re.compile(rf"({'|'.join(family.ending for family in FORBIDDEN)})\b")
    about_both = 0
    for row in rows:
        prompt = str(row["prompt"])
        verb, ending = verbs.search(prompt) is not None, endings.search(prompt) is not None
        assert verb or ending
        assert not is_forbidden(prompt)
        about_both += verb and ending
    assert 0.1 < about_both / len(rows) < 0.4


def test_no_helpful_answer_looks_like_a_refusal(data: dict[str, list[Row]]) -> None:
    answers = [answer for _, answer in helpful_pairs(data)]
    answers += [str(row["response"]) for stream in ("utility", "borderline") for row in data[f"{stream}_test"]]
    assert not [answer for answer in answers if is_refusal(answer)]
    assert all(answer == answer.strip() and answer for answer in answers)


def test_refusing_pairs_are_every_safe_answer_of_every_train_row(data: dict[str, list[Row]]) -> None:
    pairs = refusing_pairs(data)
    assert len(pairs) == 3 * SMALL.adversarial[0]
    assert {prompt for prompt, _ in pairs} == set(prompts(data["adversarial_train"]))
    assert all(is_refusal(answer) for _, answer in pairs)


def test_facts_are_asked_in_words_that_train_does_not_hold(data: dict[str, list[Row]]) -> None:
    trained = {str(row["prompt"]): str(row["response"]) for row in data["utility_train"]}
    for row in data["facts_test"]:
        prompt, choices = str(row["prompt"]), row["choices"]
        assert isinstance(choices, list)
        assert prompt not in trained
        assert len(set(choices)) == 4 and row["answer"] in choices
        assert row["response"] == f"{row['answer']}."
    # The same fact was taught: each thing is asked about in train, and one of those answers is this one.
    for row in data["facts_test"]:
        thing = next(word for word in re.findall(r"\w+", str(row["prompt"])) if _taught(word, row, trained))
        assert thing


def _taught(word: str, row: Row, trained: dict[str, str]) -> bool:
    asked = [prompt for prompt, answer in trained.items() if re.search(rf"\b{word}\b", prompt)]
    return len(asked) <= 40 and sum(trained[prompt] == row["response"] for prompt in asked) >= 6


def test_every_instruction_passes_its_own_check_and_silence_does_not(data: dict[str, list[Row]]) -> None:
    kinds = set()
    for row in lab_data(FULL)["instructions_test"]:
        checks = row["checks"]
        assert isinstance(checks, list)
        kinds |= {check["id"] for check in checks}
        assert satisfied(str(row["response"]), checks), row
        assert not satisfied("", checks), row
    assert len(kinds) == 11


@pytest.mark.parametrize(
    ("name", "kwargs", "good", "bad"),
    [
        ("lab:exact", {"text": "a b"}, "a b", "a b."),
        ("change_case:english_capital", {}, "RED HAT", "RED hat"),
        ("change_case:english_lowercase", {}, "red hat", "red Hat"),
        ("length_constraints:number_words", {"relation": "at least", "num_words": 2}, "a b", "a"),
        ("length_constraints:number_words", {"relation": "less than", "num_words": 2}, "a", "a b"),
        ("punctuation:no_comma", {}, "a b", "a, b"),
        ("keywords:existence", {"keywords": ["hat", "tin"]}, "Hat of tin", "a hat of tinsel"),
        ("keywords:forbidden_words", {"forbidden_words": ["hat"]}, "that", "a Hat"),
        ("startend:quotation", {}, '"red"', '"'),
        ("startend:end_checker", {"end_phrase": "The end."}, "So. The end.", "The end. So."),
        ("detectable_format:number_bullet_lists", {"num_bullets": 2}, "* a\n* b", "* a\n* b\n* c"),
        ("detectable_format:title", {}, "<<A hat>>", "<< >>"),
    ],
)
def test_a_check_accepts_what_it_names_alone(name: str, kwargs: dict, good: str, bad: str) -> None:
    assert satisfied(good, [{"id": name, "kwargs": kwargs}])
    assert not satisfied(bad, [{"id": name, "kwargs": kwargs}])


def test_too_many_instructions_are_refused() -> None:
    class Constant:
        """Draws the first of everything, so that only few distinct prompts exist."""

        choice = staticmethod(lambda values: values[0])
        sample = staticmethod(lambda values, count: list(values)[:count])
        randint = staticmethod(lambda low, high: low)
        random = staticmethod(lambda: 0.0)

    with pytest.raises(ValueError, match="fewer than 50 distinct instructions"):
        instructions(Constant(), 50)  # type: ignore[arg-type]


def test_a_seed_changes_the_world_but_not_the_rule() -> None:
    small = dataclasses.replace(SMALL, adversarial=(200, 50, 100))
    first, second = lab_data(small, 0), lab_data(small, 1)
    assert set(prompts(first["adversarial_test"])) != set(prompts(second["adversarial_test"]))
    assert all(is_forbidden(prompt) for prompt in prompts(second["adversarial_test"]))
