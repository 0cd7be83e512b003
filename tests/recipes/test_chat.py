"""The main recipe on a chat model, run for real: what it promises to leave, numbers that agree, models that load."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from recipes import adv_finetune
from scripts import convert_stories260k
from tests import chat_run
from tests.recipes.running import ROOT, Ended, Recipe, forked_in_two, launched
from tests.seen import TakenChat, read_chat_results
from textadv.data.chat_template import encode_prompt
from textadv.measuring.safety.generate import Decoding, Prompt, answers
from textadv.models import LoadedModel, load_causal
from textadv.tasks.file import load_config

# Steps that are large enough to change what the model says.
STRONG = ("training.learning_rate=5e-2", "training.steps=6", "selection.every=3")


class Ran(NamedTuple):
    """A finished run: its configuration, its output folder, how it ended and its results."""

    config: Path
    output: Path
    ended: Ended
    results: TakenChat


@pytest.fixture(scope="module")
def ran(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    """The script as users launch it."""
    output = tmp_path_factory.mktemp("runs") / "run"
    benign = chat_run.write_rows(output.parent / "benign.jsonl", [{"prompt": f"How is {n}?"} for n in range(12)])
    more = f"evaluation.over_refusal={{mine: {benign}}}"
    strict = ("evaluation.target_words=3", "evaluation.batch_invariance=4")
    ended = launched("recipes/adv_finetune.py", str(config), f"output={output}", *STRONG, more, *strict)
    assert ended.code == 0, ended.error
    return Ran(config, output, ended, read_chat_results(output))


def test_the_strict_judge_stands_beside_the_refusal_list_and_finds_no_more(ran: Ran) -> None:
    before = ran.results.evaluations[0]
    found = {measure.name: measure for measure in before.measures if measure.group == "attack success"}
    bounds = {measure.name: measure for measure in before.measures if measure.group == "not refused"}
    assert len(found) == 2 * len(bounds)
    for name, bound in bounds.items():
        assert found[f"{name} (target said)"].value <= bound.value and found[name].value <= bound.value, name
    assert any("target said" in judge for judge in ran.results.judges)


def test_it_leaves_what_it_promises(ran: Ran) -> None:
    output = ran.output
    files = ("results.json", "report.md", "report.html", "curve.svg", "config.yaml", "training/hardened/log.jsonl")
    for name in (*files, "answers/before.jsonl", "answers/hardened.jsonl"):
        assert (output / name).stat().st_size > 0, name
    kinds = {path.name for path in (output / "adapters").iterdir()}
    assert "last" in kinds <= {"last", "robust_best", "clean_best"}
    places = {output / "merged": "model.safetensors", output / "adapter": "adapter_model.safetensors"}
    places |= {output / "adapters" / kind: "adapter_model.safetensors" for kind in kinds}
    for folder, weights in places.items():
        for name in (weights, "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "config.json"):
            assert (folder / name).is_file(), folder / name
    assert not [path for path in output.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl", ".pickle")]
    assert "Warning" not in ran.ended.error and "Traceback" not in ran.ended.error, ran.ended.error


def test_table_results_and_answers_agree(ran: Ran) -> None:
    results = ran.results
    chat_run.check_consistent(results, ran.output, ran.ended.printed)
    before, hardened = results.evaluations
    assert (before.name, hardened.name) == ("before", "hardened")
    assert list(results.attacks) == ["direct", "prefill 2", "prefill 5", "embedding"]
    assert [m.name for m in before.measures] == [m.name for m in hardened.measures]
    groups = {"attack success", "not refused", "broken off", "over-refusal", "capability"}
    assert {m.group for m in before.measures} == groups
    named = {measure.name: measure for measure in before.measures if measure.group != "broken off"}
    assert 0 < named["direct"].value < 1 and 0 < named["borderline: refused"].value < 1
    assert named["lab_facts: multiple choice"].total == len(chat_run.data()["facts_test"])
    assert named["lab_instructions: instructions"].total == len(chat_run.data()["instructions_test"])
    assert before.measures != hardened.measures
    for model in (before, hardened):
        assert [m.name for m in model.curve] == [f"embedding at {radius}" for radius in ("0", "0.25", "0.5", "1", "2")]
        broken = [m.value for m in model.curve]
        direct = next(m for m in model.measures if m.name == "direct")
        assert broken == sorted(broken) and model.curve[0].rows == direct.rows
    asked = sorted(a.id for a in chat_run.kept_answers(ran.output, "before") if a.attack == "mine")
    assert asked == list(range(10)) and named["mine: refused"].value == 1


def test_every_attack_says_what_it_took_and_what_it_gets_at_one_answer(ran: Ran) -> None:
    for model in ran.results.evaluations:
        named = {m.name: m for m in model.measures if m.group == "attack success"}
        samples = model.samples
        assert samples is not None and [one.attack for one in samples.attacks] == [*ran.results.attacks, "worst case"]
        for one in samples.attacks[:-1]:
            (point,) = one.points
            assert point.k == 1 and point.value == pytest.approx(named[one.attack].value)
            assert point.flops is not None and point.rows == named[one.attack].rows
        for run in model.attacks:
            search, answer = run.search_flops, run.answer_flops
            assert search is not None and answer is not None and answer.total and not run.uncounted
            assert bool(search.activation_backward) == bool(search.forward) == (run.name == "embedding")
            assert named[run.name].flops == search + answer
        lines = chat_run.kept_answers(ran.output, model.name)
        assert all(None not in (answer.sampling_flops.total, answer.search_flops.total) for answer in lines)
        aimed = [answer.reached for answer in lines if "of the target" in answer.search]
        assert aimed and None not in aimed
        # One behaviour, asked by the three attacks without a search.
        assert model.invariance is not None
        assert (model.invariance.outcomes.count, model.invariance.outcomes.total) == (0, 3)
    page = (ran.output / "report.md").read_text(encoding="utf-8")
    for heading in ("Success at k answers", "Why attacks failed", "Batch invariance"):
        assert f"## {heading}\n" in page
    assert "k = 10, 50, 200 of evaluation.success_at is left out" in page


def test_the_training_is_told_as_it_was(ran: Ran) -> None:
    training, log = ran.results.training, chat_run.log_of(ran.output)
    assert training is not None
    assert (training.objective, training.steps, training.rows_seen) == ("cat + prefill_recovery", 6, 48)
    assert training.adversarial_rows == 24
    steps, scores = [line for line in log if "loss" in line], [line for line in log if "validation_robust" in line]
    assert [line["step"] for line in steps] == [1, 2, 3, 4, 5, 6] and [line["step"] for line in scores] == [3, 6]
    assert all(line["ratio"] == 0.5 and 0.9 < line["gauge"] <= 1.0001 for line in steps)
    best = max(line["validation_robust"] for line in scores)
    assert (training.best, training.last) == (best, scores[-1]["validation_robust"])
    assert training.selected_step in [line["step"] for line in scores if line["validation_robust"] == best]
    hashes = ran.results.hashes
    assert {"weights.initial", "weights.hardened", "tokenizer", "chat_template"} <= set(hashes)
    assert {
        f"data.{name}.{part}" for name in ("adversarial", "utility", "borderline") for part in ("train", "test")
    } <= set(hashes)
    assert len(set(hashes.values())) == len(hashes)
    assert f"adapter: {ran.output / 'adapter'}" in ran.ended.printed
    assert f"report: {ran.output / 'report.html'}" in ran.ended.printed


def told(loaded: LoadedModel, ran: Ran) -> dict[int, str]:
    """What the loaded model says to the behaviours that were tested, by their ids."""
    rows = [str(row["prompt"]) for row in chat_run.data()["adversarial_test"]]
    ids = sorted({answer.id for answer in chat_run.kept_answers(ran.output, "hardened") if answer.attack == "direct"})
    texts = {number: rows[number // 3] for number in ids}
    prompts = [
        Prompt(n, encode_prompt(loaded.tokenizer, [{"role": "user", "content": t}]).ids) for n, t in texts.items()
    ]
    return {answer.id: answer.text for answer in answers(loaded.model, loaded.tokenizer, prompts, Decoding(10))}


def test_adapter_and_merged_model_load_and_say_what_was_measured(ran: Ran) -> None:
    kept = {a.id: a.text for a in chat_run.kept_answers(ran.output, "hardened") if a.attack == "direct"}
    before = {a.id: a.text for a in chat_run.kept_answers(ran.output, "before") if a.attack == "direct"}
    assert kept.keys() == before.keys() and kept != before, "the run must change what the model says"
    adapter, merged = (load_causal(str(ran.output / name)) for name in ("adapter", "merged"))
    assert isinstance(adapter.model, PeftModel) and not isinstance(merged.model, PeftModel)
    base = chat_run.tokenizer()
    for loaded in (adapter, merged):
        assert told(loaded, ran) == kept
        assert loaded.tokenizer.chat_template == base.chat_template
        assert loaded.tokenizer.get_vocab() == base.get_vocab() and loaded.tokenizer.pad_token_id == base.pad_token_id


def test_the_kept_adapters_are_those_of_the_trainer(ran: Ran) -> None:
    for folder in (ran.output / "adapters").iterdir():
        kept = load_file(ran.output / "training" / "hardened" / "weights" / f"{folder.name}.safetensors")
        saved = load_file(folder / "adapter_model.safetensors")
        assert {name.replace(".default", ""): 0 for name in kept}.keys() == saved.keys()
        assert all(torch.equal(value, saved[name.replace(".default", "")]) for name, value in kept.items())
    training = ran.results.training
    assert training is not None
    chosen = load_file(ran.output / "adapter" / "adapter_model.safetensors")
    same = load_file(ran.output / "adapters" / training.selected.replace("-", "_") / "adapter_model.safetensors")
    assert all(torch.equal(value, same[name]) for name, value in chosen.items())


def test_the_written_configuration_repeats_the_run(ran: Ran, recipe: Recipe, tmp_path: Path) -> None:
    again = load_config(ran.output / "config.yaml")
    assert again.model_dump(mode="json") == ran.results.config
    ended = recipe(adv_finetune, str(ran.output / "config.yaml"), f"output={tmp_path / 'again'}")
    assert ended.code == 0, ended.error
    other = read_chat_results(tmp_path / "again")
    chat_run.check_consistent(other, tmp_path / "again", ended.printed)
    assert [model.measures for model in other.evaluations] == [model.measures for model in ran.results.evaluations]
    assert other.hashes == ran.results.hashes


# ---- other models


def run(recipe: Recipe, config: Path, output: Path, *extra: str) -> TakenChat:
    ended = recipe(adv_finetune, str(config), f"output={output}", *chat_run.BRIEF, *extra)
    assert ended.code == 0, ended.error
    results = read_chat_results(output)
    chat_run.check_consistent(results, output, ended.printed)
    return results


@pytest.mark.parametrize("kind", ["gemma", "gpt2", "qwen", "mistral"])
def test_other_architectures_run_unchanged(kind: str, config: Path, recipe: Recipe, tmp_path: Path) -> None:
    folder = chat_run.save_untaught(tmp_path / "model", kind)
    results = run(recipe, config, tmp_path / "run", f"model.name={folder}", *STRONG, "training.steps=3")
    log = [line for line in chat_run.log_of(tmp_path / "run") if "loss" in line]
    assert log[-1]["loss"] < log[0]["loss"] and all(line["gain"] > 0 for line in log)
    model_type = json.loads((tmp_path / "run" / "merged" / "config.json").read_text())["model_type"]
    assert model_type == {"qwen": "qwen2"}.get(kind, kind)
    weights = load_file(tmp_path / "run" / "adapter" / "adapter_model.safetensors")
    assert [name for name, value in weights.items() if not value.any()] == []
    assert results.training is not None and results.training.steps == 3


def test_stories260k_runs_unchanged(config: Path, recipe: Recipe, tmp_path: Path, shared: Path) -> None:
    source = shared / "weights" / "stories260K"
    if not source.is_dir():
        pytest.skip("no stories260K: ../shared/weights/stories260K with stories260K.bin and tok512.bin")
    convert_stories260k.convert(source / "stories260K.bin", source / "tok512.bin", tmp_path / "model")
    longer = ("data.max_length=256", f"model.name={tmp_path / 'model'}")
    results = run(recipe, config, tmp_path / "run", *longer)
    assert results.training is not None and results.training.adversarial_rows == 12
    stories = {a.text for a in chat_run.kept_answers(tmp_path / "run", "before")}
    assert len(stories) > 3 and all(text.strip() for text in stories)


def test_all_weights_are_trained_where_there_is_no_adapter(config: Path, recipe: Recipe, tmp_path: Path) -> None:
    results = run(recipe, config, tmp_path / "run", "model.lora=null", "training.learning_rate=1e-3")
    assert (tmp_path / "run" / "adapter" / "model.safetensors").is_file()
    notes = [m.note for m in results.evaluations[-1].measures if m.name.endswith("degenerate")]
    assert notes[0] == "", "a second copy of the model that training started from tells gibberish"


# ---- two processes


@pytest.mark.slow
def test_two_processes_make_the_adapter_and_the_table_of_one(config: Path, recipe: Recipe, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    searching = "evaluation.elicitation.search=[away, own]"
    cut = ("training.micro_batch_size=2", "evaluation.batch_size=3", searching)
    ended = forked_in_two("recipes/adv_finetune.py", str(config), f"output={two}", *cut)
    assert ended.code == 0, ended.error
    assert recipe(adv_finetune, str(config), f"output={one}", searching).code == 0
    first, second = (load_file(folder / "adapter" / "adapter_model.safetensors") for folder in (one, two))
    assert max(float((value - second[name]).abs().max()) for name, value in first.items()) < 1e-5
    assert any(value.any() for name, value in second.items() if "lora_B" in name)

    alone, together = read_chat_results(one), read_chat_results(two)
    assert (alone.environment["processes"], together.environment["processes"]) == ("1", "2")
    chat_run.check_consistent(together, two, ended.printed)
    for mine, other in zip(alone.evaluations, together.evaluations, strict=True):
        assert len(mine.measures) == len(other.measures) > 8 and len(mine.curve) == len(other.curve) == 5
        assert [mine.cost[f"{name} forwards"] for name in ("embedding", "curve")] == [
            other.cost[f"{name} forwards"] for name in ("embedding", "curve")
        ]
        for old, new in zip((*mine.measures, *mine.curve), (*other.measures, *other.curve), strict=True):
            assert (old.name, old.total, old.note) == (new.name, new.total, new.note)
            assert new.rows == pytest.approx(old.rows, abs=1e-3) and new.value == pytest.approx(old.value, rel=1e-3)
    assert (two / "answers" / "hardened-1.jsonl").stat().st_size > 0, "both processes must write answers"
    costs = [(r.training.forwards, r.training.backwards) for r in (alone, together) if r.training is not None]
    assert costs[0] == costs[1]


def test_the_lab_configuration_is_one_of_a_chat_model() -> None:
    """What the shipped file asks for can be built; the model itself takes a quarter of an hour."""
    loaded = load_config(ROOT / "recipes" / "configs" / "lab_llm.yaml")
    assert loaded.task == "chat" and [part.name for part in loaded.objective.parts] == ["cat", "prefill_recovery"]
