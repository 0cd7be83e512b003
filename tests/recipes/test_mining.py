"""Hard rows mined in a run: what joins the training rows is what the model has wrong, resumed and shared out alike."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch import nn

from tests import edited
from tests.recipes.running import (
    ROOT,
    SMALL,
    Recipe,
    forked_in_two,
    hardened_run,
    refused,
    results_of,
)
from textadv.attacks.edits import EditAttack, Victim, rot13, trigger_words
from textadv.config.edit_sources import EditSources
from textadv.config.types import ConfigError
from textadv.data import Splits
from textadv.measuring.accuracy.detecting import Detector
from textadv.measuring.sections.mining import Mining as Shown
from textadv.models import LoadedModel
from textadv.models.victim import Asked
from textadv.report import read_results
from textadv.tasks.file import load_config
from textadv.tasks.protocol import Run
from textadv.tasks.text.config import RunConfig
from textadv.tasks.text.mining import EditMiner, Mining
from textadv.training.mining import MinedRows, Round
from textadv.training.mixing import Mixing
from textadv.training.sampling import OneStream
from textadv.values.randomness import rng_state
from textadv.values.windows import margins

MINED = (
    "mining={edits: {letters: {name: deepwordbug, queries: 12}, words: {name: trigger_words, gradient: 0, queries: 10, "
    "toward: positive}}, rounds: 2, rows: 6, held_out: 5, share: 0.5}"
)
RUN = [
    "training.steps=6",
    "checkpoint.every=2",
    "checkpoint.keep_last=9",
    "selection.every=6",
    "evaluation.detection={positive: positive, false_positives: [0.3], attack: null}",
]


def miner(steps: tuple[int, ...], detector: Detector | None = None) -> tuple[EditMiner, nn.Module]:
    """Bad words speak for class 1 and good ones against it, of no known word class 0 is said."""
    own = edited.reader()
    rows = edited.rows(own, 12)
    sampler = MinedRows(OneStream(rows, Mixing(), 4), lambda hard: rows, 0.5)
    model = edited.bag(own)
    with torch.no_grad():
        for words, weight in zip(edited.WORDS, (-1.0, 1.5), strict=True):
            model.embeddings.weight[own.convert_tokens_to_ids(list(words)), 1] = weight

    def victim(model: nn.Module) -> Victim:
        return Victim(model, own, edited.LENGTH)

    attacks = {"coded": replace(rot13(), labels=(1,)), "words": trigger_words(edited.WORDS[1], gradient=0, queries=20)}
    parts = (edited.examples(12), edited.examples(10, first_id=900))
    return EditMiner(attacks, *parts, 6, 4, steps, victim, sampler, detector), model


def test_what_joins_is_edited_and_wrong_under_its_own_label_and_the_last_round_adds_nothing() -> None:
    found, model = miner((0, 4))
    told = found(model, 0).round
    victim = found.victim(model)
    texts = set(found.train.texts) | set(found.held_out.texts)
    assert told.added == told.pool == len(found.sampler.found) > 0
    for row in found.sampler.found:
        assert row.text not in texts
        assert int(victim.logits([Asked(row.text)]).argmax()) != row.label
    counts = {one.name: one for one in told.tried}
    assert counts["coded"].rows == 6 and len(counts["coded"].held_out) == 4
    assert {row.label for row in found.sampler.found} == {0, 1} and counts["coded"].wrong == 6
    before = list(found.sampler.found)
    last, *took = found(model, 4)
    assert took == [0, 0, 0]
    assert (last.added, last.pool) == (0, len(before)) and found.sampler.found == before
    assert [one.rows for one in last.tried] == [0, 0]
    assert [one.held_out for one in last.tried] == [one.held_out for one in told.tried]


def test_a_round_says_what_the_search_of_training_rows_took() -> None:
    small, model = miner((0, 4))
    found = replace(small, rows=12)
    took = found(model, 0)
    victim = found.victim(model)
    own = [one(victim, found.train.select(able(one)), step=0).rows for one in found.attacks.values()]
    searched = [row for rows in own for row in rows]
    slopes = sum(row.slopes for row in searched)
    assert took.backwards == slopes > 0
    assert took.forwards == slopes + sum(row.queries for row in searched) > slopes + len(searched)


def test_rows_that_the_model_cannot_be_asked_about_are_not_counted() -> None:
    small, model = miner((0, 4))
    texts = ("cut \ud83d", *small.train.texts[1:])
    found = replace(small, rows=12, attacks={"words": small.attacks["words"]}, train=replace(small.train, texts=texts))
    (tried,) = found(model, 0).round.tried
    assert tried.rows == len(able(small.attacks["words"])) - 1
    assert all(row.text.isascii() for row in found.sampler.found)


def able(attack: EditAttack) -> list[int]:
    """The places of the rows that it edits."""
    return [place for place, label in enumerate(edited.examples(12).labels) if attack.attacks(label)]


def test_a_round_leaves_the_model_and_the_generators_as_they_were() -> None:
    found, model = miner((0, 4))
    led = replace(found, attacks={"led": trigger_words(edited.WORDS[1], gradient=2, queries=20)})
    weights, drawn = {name: value.clone() for name, value in model.state_dict().items()}, rng_state()
    modes = [module.training for module in model.modules()]
    led(model.train(), 0)
    assert modes == [module.training for module in model.modules()]
    assert all(value.grad is None and value.requires_grad for value in model.parameters())
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert all(torch.equal(value, drawn[name]) for name, value in rng_state().items())


def test_other_batches_of_the_search_find_the_same_rows() -> None:
    (one, model), (other, _) = miner((0, 4)), miner((0, 4))
    other = replace(other, attacks={key: replace(own, together=1) for key, own in other.attacks.items()}, batch_size=1)
    assert one(model, 0)[:3] == other(model, 0)[:3] and one.sampler.found == other.sampler.found


def test_a_run_that_does_not_train_reads_no_file_of_an_attack_and_hashes_none(tmp_path: Path) -> None:
    words = ["mining={edits: {a: {name: bae, masked_lm: nowhere}}}"]
    config = load_config(str(ROOT / SMALL), words)
    assert isinstance(config, RunConfig)
    parts = Splits(edited.examples(12), edited.examples(10), edited.examples(10), ("negative", "positive"))
    sources = EditSources(parts.train, parts.labels)
    run = Run(Accelerator(cpu=True), tmp_path, False, lambda model: None)
    found = Mining.of(config, parts, sources, run)
    assert found.hashes == {}
    with pytest.raises(ConfigError, match="mining.edits.a.masked_lm"):
        Mining.of(config, parts, sources, replace(run, training=True))


def test_an_attack_on_classes_without_a_training_row_is_refused(tmp_path: Path) -> None:
    config = load_config(str(ROOT / SMALL), ["mining={edits: {a: {name: rot13, labels: [mixed]}, b: {name: rot13}}}"])
    assert isinstance(config, RunConfig)
    parts = Splits(edited.examples(12), edited.examples(10), edited.examples(10), ("negative", "positive", "mixed"))
    run = Run(Accelerator(cpu=True), tmp_path, True, lambda model: None)
    with pytest.raises(ConfigError, match="mining.edits.a: no training row is of a class whose rows it edits") as told:
        Mining.of(config, parts, EditSources(parts.train, parts.labels), run)
    assert len(told.value.lines) == 1


def test_a_sharded_model_is_refused_with_what_to_do_instead(tmp_path: Path) -> None:
    config = load_config(str(ROOT / SMALL), ["mining={edits: {a: {name: rot13}}, rounds: 1}"])
    assert isinstance(config, RunConfig)
    parts = Splits(edited.examples(12), edited.examples(10), edited.examples(10), ("negative", "positive"))
    sharded = cast(Accelerator, SimpleNamespace(distributed_type=DistributedType.FSDP))
    run, loaded = Run(sharded, tmp_path, True, lambda model: None), cast(LoadedModel, None)
    mining = Mining.of(config, parts, EditSources(parts.train, parts.labels), run)
    with pytest.raises(ConfigError, match="which FSDP cannot do. Use DDP, or set mining: null"):
        mining.rehearse(loaded, run, 12)
    mining.rehearse(loaded, replace(run, training=False), 12)


def test_of_a_detector_what_is_on_the_other_side_of_its_threshold_joins() -> None:
    plain, model = miner((0, 4))
    rows = plain.sampler.stream.rows
    benign = tuple(place for place, label in enumerate(rows.labels) if label == 0)
    detector = Detector(1, (0.3,), ((rows, benign),), "these")
    limit = detector.thresholds(model)[0][0].value
    found, _ = miner((0, 4), detector)
    found(model, 0)
    victim = found.victim(model)
    assert found.sampler.found and found.sampler.found != plain.sampler.found
    for row in found.sampler.found:
        flagged = float(margins(victim.logits([Asked(row.text)]), 1)) > limit
        assert flagged != (row.label == 1)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Recipe], Path]:
    """One run for all tests."""
    output = tmp_path_factory.mktemp("mined")

    def run(recipe: Recipe) -> Path:
        if not (output / "results.json").exists():
            hardened_run(recipe, SMALL, output, *RUN, MINED)
        return output

    return run


def rounds(output: Path) -> tuple[Round, ...]:
    section = read_results(output).section(Shown)
    assert section is not None
    return section.rounds


def test_rounds_stand_in_the_results_the_log_and_the_report(whole: Any, recipe: Recipe) -> None:
    output = whole(recipe)
    found = rounds(output)
    assert [one.step for one in found] == [2, 4, 6] and results_of(output).trainings[-1].rounds == found
    assert [one.rows for one in found[0].tried] == [6, 6] and [len(one.held_out) for one in found[0].tried] == [5, 5]
    assert found[0].added > 0 and found[1].pool == found[0].added + found[1].added == found[2].pool
    report = (output / "report.md").read_text(encoding="utf-8")
    assert "Hard rows, by rounds" in report and "no fall beyond chance" in report
    assert {"mining.edits.letters", "mining.edits.words"} <= results_of(output).hashes.keys()


def test_an_interrupted_run_mines_the_same_rows_and_ends_in_the_same_bits(
    whole: Any, recipe: Recipe, tmp_path: Path
) -> None:
    output = tmp_path / "resumed"
    first = whole(recipe)
    shutil.copytree(first, output)
    for step in ("04", "06"):
        shutil.rmtree(output / f"training/hardened/checkpoints/step-000000{step}")
    (output / "results.json").unlink()
    resumed = hardened_run(recipe, SMALL, output, *RUN, MINED, "checkpoint.resume=true")
    assert resumed.hashes == results_of(first).hashes
    assert resumed.trainings[-1].passes == results_of(first).trainings[-1].passes
    assert rounds(output) == rounds(first)


def test_mined_rows_change_what_is_trained(whole: Any, recipe: Recipe, tmp_path: Path) -> None:
    output = whole(recipe)
    plain, mined = hardened_run(recipe, SMALL, tmp_path, *RUN), results_of(output)
    assert plain.hashes["weights.hardened"] != mined.hashes["weights.hardened"]
    assert read_results(tmp_path).section(Shown) is None and plain.trainings[-1].rounds == ()
    assert plain.trainings[-1].rows_seen == mined.trainings[-1].rows_seen
    searched = sum(tried.rows for one in mined.trainings[-1].rounds for tried in one.tried)
    assert mined.trainings[-1].forwards >= plain.trainings[-1].forwards + searched > plain.trainings[-1].forwards


@pytest.mark.slow
def test_two_processes_mine_the_same_rows(recipe: Recipe, tmp_path: Path) -> None:
    """Of weights that hardly move: each process draws dropout of its own."""
    words = [*RUN, MINED, "training.learning_rate=1e-12"]
    ended = forked_in_two("recipes/adv_finetune.py", SMALL, f"output={tmp_path / 'two'}", *words)
    assert ended.code == 0, ended.error
    hardened_run(recipe, SMALL, tmp_path / "one", *words)
    assert rounds(tmp_path / "two") == rounds(tmp_path / "one")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["mining={edits: {}}"], "mining.edits"),
        (["mining={rounds: 1, edits: {a: {name: trigger_words, toward: negative}}}"], "mining.edits.a: No token"),
        (["mining={rounds: 1, edits: {a: {name: trigger_words, toward: positive}}}"], "mining.edits.a: No token"),
        (["mining={edits: {a: {name: rot13, rows: 3}}}"], "mining.edits.a.rows samples the rows of an evaluation"),
        (["mining={edits: {a: {name: rot13, labels: [third]}}}"], "mining.edits.a.labels"),
        (["mining={edits: {a: {name: rot13}}, rounds: 6}", "training.steps=6"], "mining.rounds: 6 need more than 6"),
        (["mining={edits: {a: {name: rot13}}, share: 0.01}"], "mining.share: 0.01 of training.batch_size"),
        (
            ["mining={edits: {a: {name: rot13}}}", "objective={name: free, replays: 2}"],
            "mining does not go with objective",
        ),
        (["mining={edits: {a: {name: rot13}}}", "training.guard={}"], "mining does not go with training.guard"),
    ],
)
def test_what_cannot_be_mined_is_told_first(recipe: Recipe, tmp_path: Path, words: list[str], told: str) -> None:
    assert told in refused(recipe, tmp_path / "out", SMALL, *words)
