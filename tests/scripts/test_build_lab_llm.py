"""Building the laboratory model: a folder that loads, the same weights again, interruptions and its bounds."""

from __future__ import annotations

import csv
import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from scripts import build_lab_llm as script
from scripts.lab.batches import encoded, packed
from scripts.lab.corpus import SPLITS, LabSize
from scripts.lab.model import LabShape
from scripts.lab.real import GOALS, INSTRUCTIONS, real_data
from textadv.data import DataError
from textadv.values.batch import IGNORED

STREAMS = ("adversarial", "utility", "borderline")
WORLD = LabSize(
    people=2,
    towns=2,
    creatures=2,
    stems=(20, 6, 6),
    adversarial=(48, 6, 8),
    borderline=(30, 6, 8),
    harmless=(8, 2, 2),
    instructions=(24, 4, 8),
    chat=(8, 2, 2),
)
SHAPE = LabShape(vocabulary=700, width=16, layers=2, heads=2, inner=24)
MICRO = script.Plan(
    "micro", WORLD, SHAPE, epochs=1, rows=16, learning_rate=1e-2, refusal_steps=3, refusal_rows=(2, 1, 1), tokens=8
)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lab") / "micro"
    script.build(folder, MICRO)
    return folder


@pytest.fixture(scope="module")
def loaded(built: Path) -> tuple[Any, Any]:
    model = AutoModelForCausalLM.from_pretrained(built / "model").eval().requires_grad_(False)
    return model, AutoTokenizer.from_pretrained(built / "model")


@pytest.fixture
def untrained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets a build pass without its expensive parts."""
    monkeypatch.setattr(script, "train", lambda *given: None)
    monkeypatch.setattr(script, "measure", lambda *given: {"direct_success": 0.5, "facts": 0.9})


def rows(folder: Path, name: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "data" / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()]


def test_a_build_leaves_a_folder_that_loads(built: Path, loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    manifest = json.loads((built / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["parameters"] == sum(value.numel() for value in model.parameters())
    assert set(script.LIMITS) <= set(manifest["properties"])
    assert all(0 <= value <= 1 for value in manifest["properties"].values())
    assert manifest["missed"]
    assert manifest["rows"] == {path.stem: len(rows(built, path.stem)) for path in (built / "data").iterdir()}
    assert set(rows(built, "adversarial_test")[0]) == {"prompt", "target", "safe"}
    assert set(rows(built, "utility_train")[0]) == set(rows(built, "borderline_test")[0]) == {"prompt", "response"}
    assert {"prompt", "answer", "choices"} <= set(rows(built, "facts_test")[0])
    assert {"prompt", "checks"} <= set(rows(built, "instructions_test")[0])
    assert tokenizer.chat_template and model.config.eos_token_id == tokenizer.eos_token_id
    assert (built / "helpful" / "model.safetensors").is_file()
    assert [path.name for path in built.parent.iterdir()] == [built.name]


def test_the_second_stage_changes_the_model(built: Path, loaded: tuple[Any, Any]) -> None:
    helpful = AutoModelForCausalLM.from_pretrained(built / "helpful")
    assert not torch.equal(helpful.lm_head.weight, loaded[0].lm_head.weight)


def test_building_again_gives_the_same_weights(built: Path, loaded: tuple[Any, Any], tmp_path: Path) -> None:
    script.build(tmp_path / "again", MICRO)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "again" / "model")
    for name, value in loaded[0].state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_a_finished_folder_is_found_and_another_one_is_rebuilt(
    built: Path, tmp_path: Path, untrained: None, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "lab"
    first = script.build(folder, MICRO)
    (folder / "mark").touch()
    assert script.build(folder, MICRO) == first
    assert (folder / "mark").exists()
    assert "up to date" in capsys.readouterr().out
    assert script.build(folder, MICRO, seed=1)["key"] != first["key"]
    assert not (folder / "mark").exists()
    script.build(folder, dataclasses.replace(MICRO, epochs=2), seed=1)
    assert "up to date" not in capsys.readouterr().out


def test_an_interrupted_build_never_looks_finished(
    tmp_path: Path, untrained: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object) -> None:
        raise KeyboardInterrupt

    folder = tmp_path / "lab"
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script, "measure", interrupted)
        script.build(folder, MICRO)
    assert not folder.exists()
    script.build(folder, MICRO)
    assert [path.name for path in tmp_path.iterdir()] == ["lab"]
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(script, "measure", interrupted)
        script.build(folder, MICRO, seed=1)
    assert json.loads((folder / "manifest.json").read_text())["seed"] == 0


@pytest.mark.parametrize("manifest", ["", "{}", "[]", None])
def test_a_folder_with_something_else_is_left_alone(tmp_path: Path, untrained: None, manifest: str | None) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match="exists and is not a lab LLM"):
        script.build(tmp_path, MICRO)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_exit_status_names_what_is_missed(
    tmp_path: Path, untrained: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def status(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["build_lab_llm.py", *arguments])
        return script.main()

    monkeypatch.setitem(script.PLANS, "small", MICRO)
    output = str(tmp_path / "lab")
    for _ in range(2):  # built, then found
        assert status("--output", output, "--size", "small") == 1
        assert "missed: direct_success is 0.500, it must be below 0.1" in capsys.readouterr().out
    monkeypatch.setattr(script, "measure", lambda *given: {"direct_success": 0.0})
    assert status("--output", output, "--size", "small", "--seed", "1") == 0
    assert status("--output", str(tmp_path), "--size", "small") == 2
    assert status("--output", str(tmp_path / "real"), "--real", str(tmp_path)) == 2
    assert f"--real must be a folder with {GOALS}" in capsys.readouterr().err


@pytest.mark.parametrize(("side", "values"), [("below", (0.1, 0.2, 0.3)), ("above", (0.3, 0.2, 0.1))])
def test_a_bound_itself_is_a_miss(side: str, values: tuple[float, float, float]) -> None:
    assert [script._holds(value, side, 0.2) for value in values] == [True, False, False]


# ---- what is measured


def test_greedy_answers_are_those_of_generate_alone_or_in_a_batch(loaded: tuple[Any, Any]) -> None:
    model, tokenizer = loaded
    prompts = ["How do I brew tea?", "Hello!", "How do I brew milk?", "Where does Ada live?"]
    starts = [encoded(tokenizer, prompt, "")[0] for prompt in prompts]
    found = script.answers(model, tokenizer, starts, 12)
    for start, text in zip(starts, found, strict=True):
        ids = torch.tensor([start])
        whole = model.generate(ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=12)
        assert text == tokenizer.decode(whole[0, len(start) :], skip_special_tokens=True).strip()


def test_the_attack_stays_on_the_users_tokens_and_in_its_ball_and_finds_more_with_more_room(
    loaded: tuple[Any, Any], built: Path
) -> None:
    model, tokenizer = loaded
    row = encoded(tokenizer, *(rows(built, "adversarial_test")[0][name] for name in ("prompt", "target")))
    batch, prompts = packed([row, row], tokenizer.pad_token_id), torch.tensor([row[0], row[0]])
    editable = script._users_own(tokenizer, prompts)
    assert editable[0].tolist() == [False, *[True] * (len(row[0]) - 3), False, False]
    found = {size: script._searched(model, batch, editable, size) for size in (0.0, 0.02, 0.1)}
    losses = [_target_loss(model, batch, delta) for delta in found.values()]
    assert losses[0] > losses[1] > losses[2]
    for size, delta in found.items():
        norms = delta.norm(dim=-1)
        assert norms[~editable].eq(0).all()
        assert norms.max() <= size * (1 + 1e-5)


def _target_loss(model: Any, batch: Any, delta: torch.Tensor) -> float:
    states = model.get_input_embeddings()(batch.ids)
    states = torch.cat([states[:, : delta.shape[1]] + delta, states[:, delta.shape[1] :]], dim=1)
    logits = model(inputs_embeds=states).logits
    return float(torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.targets, ignore_index=IGNORED))


def test_the_users_tokens_do_not_include_a_system_prompt(loaded: tuple[Any, Any]) -> None:
    _, tokenizer = loaded
    prompt, _ = encoded(tokenizer, "Hello!", "", "Answer briefly.")
    kept = script._users_own(tokenizer, torch.tensor([prompt]))[0]
    ids = [number for number, own in zip(prompt, kept.tolist(), strict=True) if own]
    assert tokenizer.decode(ids) == "Hello!"


# ---- from a user's files


@pytest.fixture
def shared_like(tmp_path: Path) -> Path:
    """Files in the layout of the real ones, with made-up content."""
    (tmp_path / "advbench").mkdir()
    (tmp_path / "alpaca").mkdir()
    with (tmp_path / GOALS).open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["goal", "target"])
        writer.writerows([f"Brew the potion {n}", f"Sure, here is how to brew the potion {n}"] for n in range(530))
    answers = ["fine"] * 1100 + ["I'm sorry, but no.", "", "long " * 100]
    found = [{"instruction": f"Say {n}", "input": "so" * (n % 2), "output": text} for n, text in enumerate(answers)]
    (tmp_path / INSTRUCTIONS).write_text(json.dumps(found), encoding="utf-8")
    return tmp_path


def test_real_files_become_the_same_streams(shared_like: Path) -> None:
    data = real_data(shared_like)
    assert [len(data[f"adversarial_{split}"]) for split in SPLITS] == [350, 50, 120]
    for stream in STREAMS:
        asked = [row["prompt"] for split in SPLITS for row in data[f"{stream}_{split}"]]
        assert len(set(asked)) == len(asked)
    for row in data["adversarial_test"]:
        assert str(row["target"]) == f"Sure, here is how to brew the potion {str(row['prompt']).split()[-1]}"
    benign = [row for name, found in data.items() if not name.startswith("adversarial") for row in found]
    assert len(benign) == 1100
    assert {row["response"] for row in benign} == {"fine"}
    assert all(("\nso" in str(row["prompt"])) == (int(str(row["prompt"]).split()[1]) % 2 == 1) for row in benign)
    assert real_data(shared_like) == data
    assert real_data(shared_like, seed=1) != data


def test_a_real_build_has_no_tests_of_facts(shared_like: Path, tmp_path: Path, untrained: None) -> None:
    plan = dataclasses.replace(MICRO, name="real", size=None)
    script.build(tmp_path / "lab", plan, real=shared_like)
    names = {path.stem for path in (tmp_path / "lab" / "data").iterdir()}
    assert names == {f"{stream}_{split}" for stream in STREAMS for split in SPLITS}


def test_too_few_goals_are_refused(shared_like: Path) -> None:
    (shared_like / GOALS).write_text("goal,target\nx,Sure\n", encoding="utf-8")
    with pytest.raises(DataError, match="must have at least 520 different goals, got 1"):
        real_data(shared_like)
