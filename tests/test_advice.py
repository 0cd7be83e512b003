"""Whatever a sentence advises, the configuration of the task that shows it has the keys."""

from __future__ import annotations

from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.config_sample import small_chat
from tests.support.config_keys import keys_in, sentences, tasks_with
from textadv.config.types import ConfigError
from textadv.data import DataError
from textadv.data.tables import Table, read_files
from textadv.training.mixing import Constant, Mixing

PACKAGE = Path(__file__).parents[1] / "textadv"
TEXTS, IMAGES, TOKENS, CHAT = "classification", "images", "tokens", "chat"
EVERY = {TEXTS, IMAGES, TOKENS, CHAT}
CLASSIFIERS, TEXTUAL, OF_ONE_CLASS = {TEXTS, IMAGES, TOKENS}, {TEXTS, TOKENS, CHAT}, {TEXTS, IMAGES}
# The tasks that show the sentences of a file; of a file that no line matches, every task may.
SHOWN_BY = {
    "config/classifier.py": CLASSIFIERS,
    "config/evaluation.py": CLASSIFIERS,
    "attacks/edits/*.py": {TEXTS},
    "config/edits*.py": {TEXTS},
    "config/detection.py": CLASSIFIERS,
    "tasks/detecting.py": OF_ONE_CLASS,
    "data/choosing.py": {TEXTS},
    "data/windows.py": {TEXTS},
    "config/lowered.py": CLASSIFIERS,
    "config/mining.py": {TEXTS},
    "training/mining.py": {TEXTS},
    "attacks/prompts/*.py": {CHAT},
    "objectives/seeded.py": {CHAT},
    "objectives/spectrum.py": {CHAT},
    "objectives/triplet.py": {CHAT},
    "data/paraphrases.py": {CHAT},
    "measuring/sections/samples.py": {CHAT},
    "config/objective*.py": OF_ONE_CLASS,
    "config/attacks.py": CLASSIFIERS,
    "tasks/checks.py": CLASSIFIERS,
    "tasks/classifier.py": CLASSIFIERS,
    "tasks/text/*.py": {TEXTS},
    "tasks/images/*.py": {IMAGES},
    "tasks/tokens/*.py": {TOKENS},
    "tasks/chat/*.py": {CHAT},
    "models/split_norm.py": {IMAGES},
    "data/classification.py": {TEXTS, TOKENS},
    "data/classes.py": OF_ONE_CLASS,
    "data/labels.py": OF_ONE_CLASS,
    "data/image_*.py": {IMAGES},
    "data/encoding.py": TEXTUAL,
    "data/chat*.py": {CHAT},
    "data/rendering.py": {CHAT},
    "data/locating.py": {CHAT},
    "models/causal.py": {CHAT},
    "models/heads.py": CLASSIFIERS,
    "models/vision*.py": {IMAGES},
    "models/preprocessing.py": {IMAGES},
    "models/surrogates.py": CLASSIFIERS,
    "models/long_positions.py": TEXTUAL,
    "models/trial.py": TEXTUAL,
    "models/running.py": TEXTUAL,
    "models/loading.py": TEXTUAL,
    "objectives/alignment.py": {CHAT},
    "objectives/distributional.py": OF_ONE_CLASS,
    "objectives/margin_aware.py": OF_ONE_CLASS,
    "objectives/predictor.py": OF_ONE_CLASS,
    "objectives/proximal.py": OF_ONE_CLASS,
    "objectives/regularised.py": OF_ONE_CLASS,
    "objectives/token_means.py": {CHAT},
    "objectives/weights.py": CLASSIFIERS,
    "measuring/accuracy/edited*.py": {TEXTS},
    "measuring/accuracy/masking.py": CLASSIFIERS,
    "measuring/accuracy/minimum.py": CLASSIFIERS,
    "measuring/accuracy/sanity.py": CLASSIFIERS,
    "measuring/accuracy/renumbering.py": CLASSIFIERS,
    "measuring/safety/chat.py": {CHAT},
    "measuring/safety/measures.py": {CHAT},
    "measuring/safety/panel.py": {CHAT},
    "measuring/safety/record.py": {CHAT},
    "measuring/safety/results.py": {CHAT},
    "measuring/safety/fluency.py": {CHAT},
    "measuring/accuracy/record.py": CLASSIFIERS,
    "measuring/accuracy/results.py": CLASSIFIERS,
    "measuring/verdict.py": CLASSIFIERS,
    "measuring/safety/verdict*.py": {CHAT},
    "measuring/judges/refusal.py": {CHAT},
    "measuring/judges/target_judge.py": {CHAT},
}
# Sentences of shared files that one kind of run shows, and so names its keys: file -> beginnings of keys -> tasks.
ONE_KIND = {
    "attacks/wrappers/curriculum.py": {"mixing.adaptive_radius": CLASSIFIERS},
    "config/detection.py": {"data.benign": {TEXTS}},
    "tasks/detecting.py": {"data.benign": {TEXTS}},
    "training/liveness.py": {"attack.edits": {TEXTS}},
    "models/running.py": {"data.windows": {TEXTS}},
    "attacks/penalty.py": {"objective.": OF_ONE_CLASS},
    "attacks/contrast.py": {"objective.parts": {CHAT}},
    "attacks/wrappers/held.py": {"objective.defence_steps": {CHAT}},
    "config/mixing.py": {"mixing.adaptive_radius": CLASSIFIERS},
    "config/errors.py": {"objective.name": CLASSIFIERS},
    "tasks/file.py": {"data.name": CLASSIFIERS},
    "config/labels.py": {"data.borderline": {CHAT}, "evaluation.elicitation": {CHAT}},
    "config/training.py": {"objective.replays": OF_ONE_CLASS, "objective.": CLASSIFIERS},
    "data/classification.py": {key: {TEXTS} for key in ("data.text", "data.label", "data.columns", "data.tests")},
    "data/tables.py": {"data.columns": {TEXTS}, "data.name": CLASSIFIERS},
    # Of a chat run's stream, `data.chat` puts the stream's key in place of data.
    "data/hub.py": {"data.": CLASSIFIERS},
    "objectives/free.py": {"objective.": OF_ONE_CLASS},
    "objectives/pairs.py": {"objective.": CLASSIFIERS, "model.gradient": TEXTUAL},
    "training/rehearsal.py": {"data.image_size": {IMAGES}, "data.max_length": TEXTUAL, "model.gradient": TEXTUAL},
    "training/sampling.py": {
        "data.train": CLASSIFIERS,
        "objective.replays": OF_ONE_CLASS,
        "mixing.borderline_share": {CHAT},
        "data.borderline": {CHAT},
        "objective.defence_steps": {CHAT},
    },
    "values/spaces.py": {"threat.layers": {CHAT}},
    "models/split_norm.py": {"objective.name": {IMAGES}},
}
# Only who builds these in Python meets them: a configuration is refused before, in the key that it has.
IN_PYTHON = {
    "attacks/minimal/carlini_wagner.py": ("attack.constant_factor", "attack.shrink", "attack.freeze"),
    "attacks/minimal/fab.py": ("attack.eta", "attack.targets"),
    "attacks/direction.py": ("objective.",),
    "data/chat_rows.py": ("data.suffix_",),
    "measuring/judges/validation.py": ("evaluation.judge_validation",),
    "objectives/free.py": ("objective.start",),
    "models/*.py": ("model.safetensors",),
}


def _advised() -> list[tuple[str, str, int]]:
    """Every file, key and line."""
    return [
        (path.relative_to(PACKAGE).as_posix(), key, line)
        for path in sorted(PACKAGE.rglob("*.py"))
        for line, text in sentences(path)
        for key in keys_in(text)
    ]


def _shown_by(file: str, key: str) -> set[str]:
    if any(fnmatch(file, name) and key.startswith(starts) for name, starts in IN_PYTHON.items()):
        return set()
    for start, tasks in ONE_KIND.get(file, {}).items():
        if key.startswith(start):
            return tasks
    return next((tasks for name, tasks in SHOWN_BY.items() if fnmatch(file, name)), EVERY)


def _tasks_with(file: str, key: str) -> set[str]:
    """Of an attack: it calls itself attack wherever it stands, which the errors of a configuration put right."""
    own = key.removeprefix("attack.")
    if own != key and tasks_with(key) == set() and file.startswith(("attacks/", "config/attacks")):
        named, searching = (tasks_with(f"evaluation.{at}.{own}") for at in ("attacks.mine", "minimum_radius"))
        return EVERY if named | searching >= OF_ONE_CLASS else set()
    return tasks_with(key)


def test_every_key_that_a_sentence_names_is_one_of_the_task_that_shows_it() -> None:
    advised = _advised()
    assert len(advised) > 400, "the sentences are not found"
    wrong = [
        f"{file}:{line}: {key} is no key of {', '.join(sorted(_shown_by(file, key) - _tasks_with(file, key)))}"
        for file, key, line in advised
        if not _shown_by(file, key) <= _tasks_with(file, key)
    ]
    assert wrong == []


def test_a_ratio_that_attacks_no_row_and_no_steps_are_advised_in_the_keys_of_the_task() -> None:
    with pytest.raises(ValueError, match="gives none") as found:
        Mixing(Constant(0.01)).count(0, 8, 1)
    with pytest.raises(ConfigError, match="attack.steps must be at least 1") as steps:
        small_chat("attack.steps=0")
    for error in (found, steps):
        keys = keys_in(str(error.value))
        assert "mixing.ratio" in keys and all(tasks_with(key) >= {CHAT} for key in keys), error.value


def test_a_folder_or_a_column_is_advised_in_the_keys_of_its_stream(tmp_path: Path) -> None:
    for key, expected in (("data.train", ["data.name"]), ("data.utility.test", ["data.utility.name"]), ("mine", [])):
        with pytest.raises(DataError, match="is a folder") as error:
            read_files([tmp_path], None, key)
        assert [found for found in keys_in(str(error.value)) if found != key] == expected
    (tmp_path / "rows.arrow").touch()
    with pytest.raises(DataError, match=r"Set data\.borderline\.name to the folder"):
        read_files([tmp_path / "rows.arrow"], None, "data.borderline.train")
    with pytest.raises(DataError, match="no column") as error:
        Table("here", {"a": [], "b": []}, {}).column("picture", "data.image")
    assert keys_in(str(error.value)) == ["data.image", "data.image"]


def test_keys_are_looked_up_below_keys_of_the_users_choice() -> None:
    assert tasks_with("evaluation.attacks.mine.steps") == CLASSIFIERS
    assert tasks_with("data.tags") == {TOKENS} and tasks_with("evaluation.attacks.mine.queries") == OF_ONE_CLASS
    assert tasks_with("data.adversarial.columns.prompt") == {CHAT} and tasks_with("objective.nothing") == set()
    assert keys_in("Set model.name: x (or mixing.ratio), not model.to(device).") == [
        "model.name",
        "mixing.ratio",
    ]
