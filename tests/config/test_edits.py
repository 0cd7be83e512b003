"""The section of attacks by edits: every name and key, what each makes, and what is refused before anything runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import pytest

from tests.attacks.edits.toys import rows, victim
from tests.config_sample import problems, small
from textadv.attacks.edits import ChangedWords, EditAttack, NotLabelWords, Similarity
from textadv.config.edit_sources import EditSources
from textadv.config.edits_evaluation import BY_NAME, EditConfig
from textadv.config.types import ConfigError
from textadv.data import Examples

NAMES = [section.model_fields["name"].default for section in get_args(EditConfig)]
CLASSES = ("negative", "positive")
TEXTS = ("a dull film of six hours", "the bread was warm", "superb and warm", "superb at six")
TRAIN = Examples(4 * TEXTS, None, 4 * (0, 0, 1, 1), tuple(range(16)))
FEW = Examples(TEXTS, None, (0, 0, 1, 1), tuple(range(4)))


def own_sources() -> EditSources:
    return EditSources(TRAIN, CLASSES)


def made(section: str, sources: EditSources | None = None) -> EditAttack:
    config = small(f"evaluation.edits={{a: {section}}}").evaluation
    return config.edit_attacks(7, sources or own_sources())["a"]


def refused(section: str) -> str:
    with pytest.raises(ConfigError) as caught:
        made(section)
    (line,) = caught.value.lines
    return line


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "words.tsv"
    path.write_text("good\tfine\tnice\nbad\n# more\nfilm\tmovie\n", encoding="utf-8")
    return path


def test_the_names_are_those_of_the_presets_and_of_what_guards_meet() -> None:
    presets = "deepwordbug pruthi textbugger bad_characters textfooler pwws bae hotflip"
    disguises = "padding trigger_words splitting base64 rot13 spelling_out"
    assert [*presets.split(), *disguises.split(), "input_reduction"] == NAMES
    assert set(NAMES) - set(BY_NAME) == {"textfooler", "pwws", "bae", "trigger_words"}


@pytest.mark.parametrize("name", BY_NAME)
def test_what_needs_no_file_is_made_by_its_name_alone(name: str) -> None:
    attack = made(f"{{name: {name}}}")
    assert (attack.name, attack.queries, attack.seed, attack.labels) == (name, 1000, 7, None)


@pytest.mark.parametrize("name", BY_NAME)
def test_the_keys_of_all_are_those_of_the_attack(name: str) -> None:
    attack = made(f"{{name: {name}, queries: null, labels: [positive]}}")
    assert attack.queries is None and attack.labels == (1,)
    assert attack.identity != made(f"{{name: {name}, queries: 9}}").identity


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{name: pruthi, words: 3}", "most=3"),
        ("{name: hotflip, words: 4}", "most=4"),
        ("{name: bad_characters, words: 2}", "most=2"),
        ("{name: deepwordbug, share: 0.2}", "share=0.2"),
        ("{name: padding, texts: [Hello there.], times: [7]}", "'Hello there.'"),
        ("{name: splitting, parts: [5]}", "Split(parts=5)"),
        ("{name: pruthi, not_label_words: true}", "NotLabelWords(labels=('negative', 'positive'))"),
        ("{name: trigger_words, toward: 1, not_label_words: true}", "NotLabelWords(labels=('negative', 'positive'))"),
        ("{name: padding, of: negative}", "the bread was warm"),
        ("{name: trigger_words, toward: positive, inserts: 5}", "most=5"),
        ("{name: trigger_words, toward: 1, gradient: 4}", "InsertGradientWords(count=4)"),
    ],
)
def test_each_key_reaches_its_part(section: str, told: str) -> None:
    assert told in str(made(section))


def test_names_of_classes_stay_where_that_is_asked_for() -> None:
    """Every attack that edits words has the key, and without it names of classes are words like any other."""
    words = {name for name in BY_NAME if "share" in BY_NAME[name].model_fields}
    assert words == {"deepwordbug", "pruthi", "textbugger", "bad_characters", "hotflip"}
    for name in words:
        wanted = NotLabelWords(CLASSES)
        assert wanted in made(f"{{name: {name}, share: 0.5, not_label_words: true}}").constraints
        assert wanted not in made(f"{{name: {name}}}").constraints
    own = victim({"negative": 2.0, "film": 0.5}, letters=True)
    (kept,) = made("{name: deepwordbug, not_label_words: true}")(own, rows("negative film")).rows
    (changed,) = made("{name: deepwordbug}")(own, rows("negative film")).rows
    assert kept.edited.split()[0] == "negative" != changed.edited.split()[0]


def test_tables_are_read_once_and_their_bad_rows_told_by_line(table: Path) -> None:
    sources = own_sources()
    section = f"{{name: textfooler, table: {table}, share: 0.5}}"
    config = small(f"evaluation.edits={{a: {section}, b: {{name: textbugger, table: {table}}}}}").evaluation
    attacks = config.edit_attacks(0, sources)
    assert ChangedWords(share=0.5) in attacks["a"].constraints
    assert not any(isinstance(one, Similarity) for one in attacks["a"].constraints)
    (note,) = sources.notes
    assert note.startswith("words.tsv: 1 rows were left out: line 2: 'bad' has null")
    assert sources.models == ()


@pytest.mark.parametrize(
    ("section", "key", "told"),
    [
        ("{name: textfooler, table: nowhere.json}", "table", "The synonym table nowhere.json cannot be read"),
        ("{name: textbugger, table: nowhere.json}", "table", "The synonym table nowhere.json cannot be read"),
        ("{name: pwws, wordnet: nowhere}", "wordnet", "nowhere holds none of WordNet's files"),
        ("{name: bae, masked_lm: ./nowhere}", "masked_lm", "nowhere"),
        ("{name: textbugger, encoder: ./nowhere}", "encoder", "nowhere"),
    ],
)
def test_a_path_that_is_not_there_is_told_by_its_key(section: str, key: str, told: str) -> None:
    line = refused(section)
    assert line.startswith(f"evaluation.edits.a.{key}: ") and told in line


def test_padding_of_a_class_holds_its_training_rows_alone() -> None:
    told = str(made("{name: padding, of: 0}"))
    assert "dull film" in told and "superb" not in told


def test_trigger_words_speak_for_the_class_and_go_into_rows_of_the_others() -> None:
    attack = made("{name: trigger_words, toward: positive}")
    assert attack.labels == (0,) and "'superb'" in str(attack) and "dull" not in str(attack)
    assert (
        made("{name: trigger_words, toward: 1, words: 1}").identity
        == made("{name: trigger_words, toward: positive, words: 1}").identity
    )


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{name: trigger_words, toward: neutral}", "evaluation.edits.a.toward must be classes of the data"),
        ("{name: padding, of: 2}", "evaluation.edits.a.of must be classes of the data"),
        ("{name: trigger_words, toward: 1, labels: [1]}", "evaluation.edits.a.labels: rows of positive are those of"),
    ],
)
def test_what_is_no_class_is_told(section: str, told: str) -> None:
    assert refused(section).startswith(told)


def test_training_rows_without_such_words_are_told() -> None:
    with pytest.raises(ConfigError) as caught:
        made("{name: trigger_words, toward: positive}", EditSources(FEW, CLASSES))
    assert caught.value.lines[0].startswith("evaluation.edits.a.words: the training rows hold none.")


def test_padding_has_its_texts_from_one_place() -> None:
    (line,) = problems("evaluation.edits={a: {name: padding, texts: [Hello.], of: benign}}")
    assert line.startswith("evaluation.edits.a must have its padding from one place, texts or of, the other null, got")


@pytest.mark.parametrize(
    ("labels", "ids"),
    [("[negative]", (0,)), ("[1]", (1,)), ('["1", positive]', (1,)), ("[1, negative]", (0, 1))],
)
def test_labels_are_names_or_numbers(labels: str, ids: tuple[int, ...]) -> None:
    assert made(f"{{name: deepwordbug, labels: {labels}}}").labels == ids


@pytest.mark.parametrize("labels", ["[neutral]", "[2]", "[-1]"])
def test_a_label_that_is_no_class_is_told_with_those_there_are(labels: str) -> None:
    line = refused(f"{{name: deepwordbug, labels: {labels}}}")
    assert line.startswith(
        "evaluation.edits.a.labels must be classes of the data (negative, positive) or their numbers"
    )


@pytest.mark.parametrize(
    ("section", "told"),
    [
        ("{name: textfoooler}", "evaluation.edits.a.name must be one of"),
        ("{queries: 3}", "evaluation.edits.a.name is missing"),
        ("{name: deepwordbug, querys: 3}", "unknown key evaluation.edits.a.querys"),
        ("{name: deepwordbug, table: x}", "unknown key evaluation.edits.a.table"),
        ("{name: deepwordbug, queries: 0}", "evaluation.edits.a.queries must be at least 1, got 0."),
        ("{name: deepwordbug, rows: 0}", "evaluation.edits.a.rows must be at least 1, got 0."),
        ("{name: deepwordbug, share: 0}", "evaluation.edits.a.share must be greater than 0, got 0."),
        ("{name: deepwordbug, share: 1.5}", "evaluation.edits.a.share must be at most 1, got 1.5."),
        ("{name: deepwordbug, labels: []}", "evaluation.edits.a.labels must not be empty, got []."),
        ("{name: pruthi, words: 0}", "evaluation.edits.a.words must be at least 1, got 0."),
        ("{name: splitting, parts: [1]}", "evaluation.edits.a.parts[0] must be at least 2, got 1."),
        ("{name: padding, times: [0]}", "evaluation.edits.a.times[0] must be at least 1, got 0."),
        ("{name: padding, texts: []}", "evaluation.edits.a.texts must not be empty, got []."),
        ("{name: textfooler}", "evaluation.edits.a.table is missing"),
    ],
)
def test_bad_values_are_told_by_their_keys(section: str, told: str) -> None:
    lines = problems(f"evaluation.edits={{a: {section}}}")
    assert any(line.startswith(told) for line in lines), lines


def test_no_two_attacks_have_one_name() -> None:
    (line,) = problems("evaluation.edits={pgd: {name: deepwordbug}}", "evaluation.attacks={pgd: {steps: 4}}")
    assert line == "evaluation.edits.pgd has the name of one of evaluation.attacks. Rename one of them."


def test_an_override_of_the_name_takes_no_key_of_another_attack_along() -> None:
    config: Any = small("evaluation.edits={a: {name: pruthi, words: 3}}", "evaluation.edits.a.name=deepwordbug")
    assert config.evaluation.edits["a"].name == "deepwordbug"
