"""Mistakes in a configuration are told in one sentence each: key, value, remedy, and all at once."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest

from tests.config_sample import SMALL, file_problems, problems
from textadv.config.objective import ObjectiveConfig

# Overrides beside the right start of each line that they must lead to, in order.
REFUSED: dict[str, tuple[list[str], list[str]]] = {
    "no steps": (
        ["attack.steps=0"],
        ["attack.steps must be at least 1, got 0. To train without an attack set objective.name: clean."],
    ),
    "no steps when measuring": (["selection.attack.steps=0"], ["selection.attack.steps must be at least 1, got 0."]),
    "no steps in the panel": (
        ["evaluation.attacks.pgd20.steps=-1"],
        ["evaluation.attacks.pgd20.steps must be at least 1, got -1."],
    ),
    "ratio above 1": (["mixing.ratio=1.5"], ["mixing.ratio must be at most 1, got 1.5. (Share of the rows"]),
    "ratio below 0": (["mixing.ratio=-0.1"], ["mixing.ratio must be at least 0, got -0.1. (Share of the rows"]),
    "ratio true": (["mixing.ratio=true"], ["mixing.ratio must be a number, got true."]),
    "ratio text": (["mixing.ratio=much"], ["mixing.ratio must be a number, got 'much'."]),
    "half a step": (["attack.steps=2.5"], ["attack.steps must be a whole number, got 2.5."]),
    "steps true": (["attack.steps=true"], ["attack.steps must be a whole number, got true."]),
    "steps in quotes": (["attack.steps='3'"], ["attack.steps must be a whole number, got '3'."]),
    "seed too large": (["seed=4294967296"], ["seed must be less than 4294967296, got 4294967296."]),
    "seed negative": (["seed=-1"], ["seed must be at least 0, got -1."]),
    "no output": (["output="], ["output must be text, got null. (Folder"]),
    "empty output": (["output=''"], ["output must not be empty, got ''."]),
    "number as name": (["model.name=5"], ["model.name must be text, got 5. Put quotes around it."]),
    "yes is not true": (["attack.early_stop=yes"], ["attack.early_stop must be true or false, got 'yes'."]),
    "wrong choice": (
        ["attack.name=pdg"],
        ["attack.name must be 'pgd', 'fgsm', 'r_fgsm', 'virtual_adversarial', 'noise' or 'edits', got 'pdg'. Did yo"],
    ),
    "section as text": (["objective=trades"], ["objective must be a section of keys, got 'trades'. Write objective.n"]),
    "section as number": (["model=5"], ["model must be a section of keys, got 5. (The classifier.)"]),
    "attack as number": (["attack=5"], ["attack must be a section of keys, got 5. (How hard"]),
    "attack named by a list": (["attack.name=[pgd]"], ["attack.name must be 'pgd', 'fgsm', "]),
    "selection attack as number": (["selection.attack=5"], ["selection.attack must be a section of keys, got 5."]),
    "selection attack by a list": (["selection.attack.name=[pgd]"], ["selection.attack.name must be 'pgd', 'fgsm', "]),
    "panel entry as number": (
        ["evaluation.attacks.pgd20=5"],
        ["evaluation.attacks.pgd20 must be a section of keys, got 5."],
    ),
    "panel without a name": (
        ["evaluation.attacks.steps=5"],
        ["evaluation.attacks.steps must be a section of keys, got 5."],
    ),
    "list as text": (["evaluation.radii=0.1"], ["evaluation.radii must be a list, got 0.1."]),
    "infinite radius": (["threat.relative_radius=.inf"], ["threat.relative_radius must be a finite number, got inf."]),
    "radius not a number": (["threat.relative_radius=.nan"], ["threat.relative_radius must be a finite number, got n"]),
    "radius zero": (["threat.relative_radius=0"], ["threat.relative_radius must be greater than 0, got 0."]),
    "radius negative": (["threat.relative_radius=-8/255"], ["threat.relative_radius must be a number, got '-8/255'."]),
    "division by zero": (
        ["threat.relative_radius=8/0"],
        ["threat.relative_radius must not divide by zero, got '8/0'. (Largest norm"],
    ),
    "radius as code": (
        ["threat.relative_radius=__import__('os')"],
        ["""threat.relative_radius must be a number, got "__import__('os')"."""],
    ),
    "two radii": (
        ["threat.radius=1"],
        ["threat needs exactly one of threat.radius and threat.relative_radius, got 1.0 and 0.05. Set the one"],
    ),
    "no radius": (
        ["threat.relative_radius=null"],
        ["threat needs exactly one of threat.radius (absolute) and threat.relative_radius (in mean norms of th"],
    ),
    "relative pixels": (
        ["threat.space=pixels"],
        [
            "threat.relative_radius counts in norms of vectors, which threat.space: pixels does not have, got 0.05.",
            "threat.per: token has no meaning for threat.space: pixels. Set threat.per: example.",
        ],
    ),
    "hidden without layer": (["threat.space=hidden"], ["threat.layer is missing: threat.space: hidden needs the bl"]),
    "layer without hidden": (
        ["threat.layer=2"],
        ["threat.layer does not apply to threat.space: embeddings, got 2. Remove it, or set threat.space: hidden."],
    ),
    "layer below 0": (["threat.layer=-1", "threat.space=hidden"], ["threat.layer must be at least 0, got -1."]),
    "hidden and checkpointing": (
        ["threat.space=hidden", "threat.layer=0", "model.gradient_checkpointing=true"],
        ["model.gradient_checkpointing: true recomputes hidden states without their perturbation, so it cannot"],
    ),
    "two lengths": (["training.steps=3"], ["training needs exactly one of training.epochs and training.steps, got 1"]),
    "no length": (
        ["training.epochs=null"],
        ["training needs exactly one of training.epochs and training.steps, got neither. Set for example"],
    ),
    "training steps 0": (
        ["training={steps: 0}"],
        ["training.steps must be at least 1, got 0. (Optimizer steps; or set training.epochs.)"],
    ),
    "epochs 0": (["training.epochs=0"], ["training.epochs must be greater than 0, got 0."]),
    "micro-batch larger than batch": (
        ["training.batch_size=8"],
        ["training.micro_batch_size must be at most training.batch_size (8), got 32. Lower it, or raise"],
    ),
    "learning rate 0": (["training.learning_rate=0"], ["training.learning_rate must be greater than 0, got 0."]),
    "precision": (["training.precision=fp8"], ["training.precision must be 'no', 'bf16' or 'fp16', got 'fp8'."]),
    "two step sizes": (
        ["attack.step_size=1", "attack.relative_step_size=0.5"],
        ["attack.step_size and attack.relative_step_size are both set (1.0 and 0.5). Keep one;"],
    ),
    "step size 0": (["attack.step_size=0"], ["attack.step_size must be greater than 0, got 0."]),
    "momentum without its ascent": (
        ["attack.momentum=0.9"],
        ["attack.momentum does not apply to attack.ascent: fixed, got 0.9. Remove it, or set attack.ascent: momentum."],
    ),
    "momentum when measuring": (
        ["selection.attack.momentum=0.9"],
        ["selection.attack.momentum does not apply to selection.attack.ascent: fixed, got 0.9. Remove it, or set sel"],
    ),
    "same restarts": (
        ["attack.restarts=2", "attack.random_start=false"],
        ["attack.restarts: 2 repeats one and the same attack without a random start. Set attack.random_start: true"],
    ),
    "restarts 0": (["attack.restarts=0"], ["attack.restarts must be at least 1, got 0."]),
    "divergence without a start": (
        ["attack.goal=kl", "attack.random_start=false"],
        ["attack.goal: kl has a zero gradient at the clean input, where this attack starts."],
    ),
    "fgsm on a divergence": (
        ["attack.name=fgsm", "attack.goal=symmetric_kl"],
        ["attack.goal: symmetric_kl has a zero gradient at the clean input, where this attack starts."],
    ),
    "trades without a start": (
        ["objective.name=trades", "attack.name=fgsm"],
        ["objective.name: trades raises a divergence, which has a zero gradient at the clean input, where this"],
    ),
    "r3f with an adversary": (
        ["objective.name=r3f"],
        ["objective.name: r3f needs attack.name: noise, got pgd. Set attack.name: noise."],
    ),
    "objective of another name": (
        ["objective.name=trade"],
        ["objective.name must be one of 'clean', 'adversarial', 'trades', 'mart', 'alum', 'smart', 'r3f', 'freel"],
    ),
    "objective without name": (
        ["objective.beta=3"],
        ["objective.name is missing in the override objective.beta=3. Choose one of clean, adversarial, trades,"],
    ),
    "negative weight": (
        ["objective.name=trades", "objective.beta=-1"],
        ["objective.beta must be at least 0, got -1. (Weight of the divergence.)"],
    ),
    "freelb start": (
        ["objective.name=freelb", "objective.start=1.5"],
        ["objective.start must be at most 1, got 1.5. (Size of the initial noise"],
    ),
    "freelb with fgsm": (
        ["objective.name=freelb", "attack.name=fgsm"],
        ["objective.name: freelb needs attack.name: pgd, got fgsm. Set attack.name: pgd."],
    ),
    "freelb options": (
        [
            "objective.name=freelb",
            "attack.restarts=2",
            "attack.early_stop=true",
            "attack.select=most_damaging",
            "attack.goal=margin",
        ],
        [
            "attack.restarts must be 1 with objective.name: freelb, got 2.",
            "attack.early_stop must be false with objective.name: freelb, got true.",
            "attack.select must be last with objective.name: freelb, got most_damaging.",
            "attack.goal must be cross_entropy with objective.name: freelb, whose ascent uses the gradient of the tr",
        ],
    ),
    "freelb from the clean input": (
        ["objective.name=freelb", "attack.random_start=false"],
        ["attack.random_start must be true with objective.name: freelb, got false. To start at the clean input set o"],
    ),
    "freelb counted twice": (
        ["objective.name=freelb", "objective.clean_term=true", "mixing.policy=pair"],
        ["mixing.policy: pair counts the clean loss of attacked rows twice, because objective.clean_term: true alread"],
    ),
    "warm-up below 0": (["mixing.warmup_steps=-1"], ["mixing.warmup_steps must be at least 0, got -1."]),
    "schedule without kind": (
        ["mixing.ratio_schedule.start=0"],
        ["mixing.ratio_schedule.kind is missing in the override mixing.ratio_schedule.start=0. Choose one of linear,"],
    ),
    "schedule of another kind": (
        ["mixing.ratio_schedule.kind=cosine"],
        ["mixing.ratio_schedule.kind must be one of 'linear', 'step', got 'cosine'."],
    ),
    "half a schedule": (
        ["mixing.ratio_schedule={kind: linear, start: 0, steps: 4}"],
        ["mixing.ratio_schedule.end is missing in the configuration. (Value once the steps are done.)"],
    ),
    "ratio schedule above 1": (
        ["mixing.ratio_schedule={kind: linear, start: 0, end: 2, steps: 4}"],
        ["mixing.ratio_schedule.end must be at most 1, got 2.0."],
    ),
    "radius schedule outside": (
        ["mixing.radius_schedule={kind: step, values: {0: 0, 5: 1.5}}"],
        [
            "mixing.radius_schedule.values.0 must be greater than 0, got 0.0. A radius of 0 is no attack: use mixing.w",
            "mixing.radius_schedule.values.5 must be at most 1, got 1.5.",
        ],
    ),
    "staircase without its first step": (
        ["mixing.ratio_schedule={kind: step, values: {5: 1}}"],
        ["mixing.ratio_schedule.values must say what holds from step 0, got {5: 1.0}. Add 0: ..."],
    ),
    "staircase without steps": (
        ["mixing.ratio_schedule={kind: step, values: {}}"],
        ["mixing.ratio_schedule.values must not be empty, got {}."],
    ),
    "staircase by words": (
        ["mixing.ratio_schedule={kind: step, values: {a: 1}}"],
        ["mixing.ratio_schedule.values: the key 'a' must be a whole number."],
    ),
    "lora rank": (["model.lora.r=0"], ["model.lora.r must be at least 1, got 0. (Rank of each adapter.)"]),
    "lora dropout": (["model.lora.dropout=1"], ["model.lora.dropout must be less than 1, got 1."]),
    "lora targets": (
        ["model.lora.targets=query"],
        ["model.lora.targets must be all-linear or a list of module names, got 'query'."],
    ),
    "no lora targets": (["model.lora.targets=[]"], ["model.lora.targets must be all-linear or a list of module na"]),
    "files without a file": (
        ["data.name=files"],
        [
            "data.train is missing: data.name is files, so name the training file(s). To measure a model of which you "
            "have none, name rows like those that it meets, apart from data.test: recipes/evaluate.py trains on "
            "nothing, and draws from them what a threat's radius and padding are made of. Name data.validation too: "
            "else a share of them chooses the thresholds."
        ],
    ),
    "train as number": (["data.train=5"], ["data.train must be text or a list of texts, got 5. (Training split"]),
    "no train files": (["data.train=[]"], ["data.train must be text or a list of texts, got []. (Training split"]),
    "columns of the Hub": (
        ["data.columns=[text, label]"],
        ["data.columns is for data.name: files, got data.name: builtin:reviews. Remove data.columns."],
    ),
    "columns twice": (["data.columns=[a, a]"], ["data.columns must not name anything twice, got ['a', 'a']."]),
    "text is the label": (
        ["data.text=label"],
        ["data.text, data.text_pair and data.label must be different columns, got data.text: label, data.label: label"],
    ),
    "one class": (["data.labels=[only]"], ["data.labels must name at least 2 classes, got ['only']."]),
    "class as number": (["data.labels=[a, 1]"], ["data.labels[1] must be text, got 1. Put quotes around it. (Class n"]),
    "fraction 1": (["data.validation_fraction=1"], ["data.validation_fraction must be less than 1, got 1."]),
    "fraction 0": (["data.validation_fraction=0"], ["data.validation_fraction must be greater than 0, got 0."]),
    "no test rows": (["data.test_rows=0"], ["data.test_rows must be at least 1, got 0."]),
    "panel key": (["evaluation.attacks={a b: {}}"], ["evaluation.attacks: the key 'a b' may hold only letters, digi"]),
    "panel key as number": (["evaluation.attacks={5: {}}"], ["evaluation.attacks: the key 5 must be text."]),
    "empty panel": (["evaluation.attacks={}"], ["evaluation.attacks must not be empty, got {}."]),
    "radii not ascending": (
        ["evaluation.radii=[0.1, 0.05]"],
        ["evaluation.radii must be in ascending order without repeats, got [0.1, 0.05]."],
    ),
    "radii twice": (["evaluation.radii=[0.1, 0.1]"], ["evaluation.radii must be in ascending order without repeats"]),
    "radii entries": (
        ["evaluation.radii=[0.1, -1, x]"],
        [
            "evaluation.radii[1] must be greater than 0, got -1. (Radii of the robustness curve",
            "evaluation.radii[2] must be a number, got 'x'. (Radii of the robustness curve",
        ],
    ),
    "unknown curve attack": (
        ["evaluation.curve_attack=pgd"],
        ["evaluation.curve_attack must be a key of evaluation.attacks (pgd20, apgd), got pgd."],
    ),
    "baseline": (
        ["baselines=[same_step]"],
        ["baselines[0] must be 'same_steps' or 'equal_cost', got 'same_step'. Did you mean same_steps?"],
    ),
    "baseline twice": (["baselines=[same_steps, same_steps]"], ["baselines must not name anything twice, got ['same"]),
    "tracker": (["tracking.log_with=[tensorbord]"], ["tracking.log_with[0] must be 'aim', 'clearml', 'comet_ml',"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_wrong_value_is_refused_with_the_key_the_value_and_the_remedy(case: str) -> None:
    overrides, starts = REFUSED[case]
    lines = problems(*overrides)
    assert len(lines) == len(starts), lines
    for line, start in zip(lines, starts, strict=True):
        assert line.startswith(start), line


def test_an_unknown_key_names_the_file_the_nearest_key_and_the_valid_ones(tmp_path: Path) -> None:
    assert file_problems(tmp_path, SMALL + "attack: {stesp: 5}\n") == [
        "unknown key attack.stesp in file.yaml: did you mean attack.steps? Valid keys of attack: name, steps, "
        "steps_schedule, step_size, relative_step_size, ascent, momentum, random_start, starts, restarts, early_stop, "
        "select, goal, edits."
    ]


@pytest.mark.parametrize(
    ("override", "key", "meant"),
    [
        ("attack.stesp=5", "attack.stesp", "did you mean attack.steps?"),
        ("atack.steps=5", "atack", "did you mean attack?"),
        ("epochs=3", "epochs", "did you mean training.epochs?"),
        ("training.radius=3", "training.radius", "did you mean threat.radius?"),
        ("model.lora.rnk=3", "model.lora.rnk", "Valid keys of model.lora: r, alpha, dropout, targets."),
        ("model.lora.target=3", "model.lora.target", "did you mean model.lora.targets?"),
        ("selection.attack.step=3", "selection.attack.step", "did you mean selection.attack.steps?"),
        ("evaluation.attack.a.steps=3", "evaluation.attack", "did you mean evaluation.attacks?"),
        ("evaluation.attacks.a.stepss=3", "evaluation.attacks.a.stepss", "did you mean evaluation.attacks.a.steps?"),
        ("zzz=3", "zzz", "Valid top-level keys: task, seed, output, model, data,"),
        ("5=3", "5", "Valid top-level keys: task, seed, output, model, data,"),
    ],
)
def test_an_unknown_key_of_an_override_names_the_override(override: str, key: str, meant: str) -> None:
    (line,) = problems(override)
    assert line.startswith(f"unknown key {key} in the override {override}")
    assert meant in line
    assert "None" not in line


def test_a_key_of_another_objective_or_schedule_names_its_owner() -> None:
    assert problems("objective.name=alum", "objective.beta=3") == [
        "unknown key objective.beta in the override objective.beta=3: it belongs to objective.name: trades. "
        "Valid keys of objective: name, weight, weight_perturbation."
    ]
    (line,) = problems("mixing.ratio_schedule={kind: step, values: {0: 1}, end: 1}")
    assert line.startswith("unknown key mixing.ratio_schedule.end in the override mixing.ratio_schedule={kind: step")
    assert (
        "it belongs to mixing.ratio_schedule.kind: linear. Valid keys of mixing.ratio_schedule: kind, values." in line
    )
    (line,) = problems("objective={name: clean, clean: 1}")
    assert line.startswith("unknown key objective.clean in the override")


def test_all_problems_come_at_once(tmp_path: Path) -> None:
    text = "outptu: x\nmodel: {name: 5}\nattack: {steps: 0, momentum: 2}\nmixing: {ratio: 3}\nobjective: {name: smat}\n"
    lines = file_problems(tmp_path, text, "selection.row=3")
    kinds = get_args(get_args(ObjectiveConfig)[0])
    objectives = ", ".join(f"'{name}'" for kind in kinds for name in get_args(kind.model_fields["name"].annotation))
    assert objectives.startswith("'clean', 'adversarial', 'trades', 'mart'")
    assert [line.split(" (")[0].split(": did")[0] for line in lines] == [
        "output is missing in file.yaml.",
        "model.name must be text, got 5. Put quotes around it.",
        "data.name is missing in file.yaml.",
        "threat needs exactly one of threat.radius",
        "attack.steps must be at least 1, got 0. To train without an attack set objective.name: clean.",
        "attack.momentum does not apply to attack.ascent: fixed, got 2.0. Remove it, or set attack.ascent: momentum.",
        f"objective.name must be one of {objectives}, got 'smat'. Did you mean smart?",
        "mixing.ratio must be at most 1, got 3.",
        "training needs exactly one of training.epochs and training.steps, got neither. Set for example "
        "training.epochs: 1.",
        "unknown key selection.row in the override selection.row=3",
        "unknown key outptu in file.yaml",
    ]
