"""Names that become keys, columns and files: what is taken or alike is refused in one sentence, before a run."""

from __future__ import annotations

import pytest

from tests.config_sample import chat_problems as problems
from tests.config_sample import problems as classifier_problems
from tests.config_sample import small as small_classifier
from tests.config_sample import small_chat as small
from textadv.config.labels import ATTACKS, attack_problems, called, radius_problems, set_problems
from textadv.measuring.safety.measure_ids import measure_id

SETS = ("over_refusal", "questions", "instructions")


@pytest.mark.parametrize("key", SETS)
@pytest.mark.parametrize(
    "name",
    ["direct", "Direct", "embedding", "embedding_at_2", "prefill_5", "worst_case", "free_suffix_of_20", "_direct_"],
)
def test_a_set_is_not_called_like_an_attack(key: str, name: str) -> None:
    (line,) = problems(f"evaluation.{key}={{{name}: x}}")
    assert line == f"evaluation.{key}.{name} is what an attack is called, under whose name answers are kept. Rename it."


@pytest.mark.parametrize("key", SETS)
def test_a_set_is_not_called_like_the_borderline_rows(key: str) -> None:
    (line,) = problems(f"evaluation.{key}={{borderline: x}}")
    assert line == f"evaluation.{key}.borderline is what the rows of data.borderline are called. Rename it."


@pytest.mark.parametrize(
    ("overrides", "pair"),
    [
        (["evaluation.over_refusal={A: x, a: y}"], ("over_refusal.A", "over_refusal.a")),
        (
            ["evaluation.over_refusal={a-b: x}", "evaluation.instructions={A-b: y}"],
            ("over_refusal.a-b", "instructions.A-b"),
        ),
        (
            ["evaluation.questions={lab_a: x}", "evaluation.over_refusal={lab_a: y}"],
            ("over_refusal.lab_a", "questions.lab_a"),
        ),
        (["evaluation.instructions={a__b: x, a_b: y}"], ("instructions.a__b", "instructions.a_b")),
        (["evaluation.instructions={a: x, a_: y}"], ("instructions.a", "instructions.a_")),
    ],
)
def test_two_sets_are_not_called_alike(overrides: list[str], pair: tuple[str, str]) -> None:
    (line,) = problems(*overrides)
    assert line.startswith(f"evaluation.{pair[0]} and evaluation.{pair[1]} would be called alike")


def test_a_name_without_a_letter_is_refused() -> None:
    (line,) = problems("evaluation.over_refusal={_: x}")
    assert line.startswith("evaluation.over_refusal._ needs a letter or a digit")


def test_other_names_are_free() -> None:
    small(
        "evaluation.over_refusal={instructions: x, xstest: y, benign: z}",
        "evaluation.questions={lab_facts: x, mmlu_all: y}",
        "evaluation.instructions={lab_instructions: x, prefilled: y}",
    )
    small_classifier("evaluation.attacks={pgd: {name: pgd}, pgd-2: {name: pgd}, cleanest: {name: pgd}}")


def test_names_that_are_called_apart_have_ids_apart() -> None:
    names = ["a", "A", "a_", "a__b", "a_b", "a-b", "prefill 5", "prefill_5", "b."]
    for one in names:
        for other in names:
            same = measure_id("over-refusal", one).lower() == measure_id("over-refusal", other).lower()
            assert same == (called(one) == called(other)), (one, other)
    assert not set_problems({"evaluation.over_refusal": ["mine"]}) and ATTACKS


@pytest.mark.parametrize("radii", ["[0.1, 0.1]", "[0.5, 0.25, 0.50000001]"])
def test_radii_of_one_name_are_refused(radii: str) -> None:
    (line,) = problems(f"evaluation.elicitation.radii={radii}")
    assert line.startswith("evaluation.elicitation.radii: ") and "would both be called embedding at" in line
    assert not radius_problems([0.1, 0.11])


@pytest.mark.parametrize("names", [("clean",), ("Clean",), ("worst_case",), ("pgd", "PGD")])
def test_attacks_of_a_classifier_are_told_apart_in_tables_and_files(names: tuple[str, ...]) -> None:
    (line,) = classifier_problems(f"evaluation.attacks={{{', '.join(f'{name}: {{name: pgd}}' for name in names)}}}")
    assert all(f"evaluation.attacks.{name}" in line for name in names) and "Rename" in line
    assert attack_problems("evaluation.attacks", ["pgd", "apgd"]) == []
