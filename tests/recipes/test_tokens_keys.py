"""Every key that the configuration of a token classifier has: set in a run that ends well, or refused in a sentence."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_origin

import datasets
import pytest
import torch
import yaml
from pydantic import BaseModel
from safetensors.torch import load_file

from recipes import adv_finetune
from tests.recipes.running import Recipe
from textadv.config.types import ConfigError
from textadv.measuring.results import Results
from textadv.measuring.sections.curve import Curve
from textadv.measuring.sections.masking import Masking
from textadv.report import read_results
from textadv.tasks.file import load_config
from textadv.tasks.tokens.config import TokenRunConfig
from textadv.tasks.tokens.places import places

SMALL = "tests/recipes/small_tokens.yaml"
BRIEF = [
    "data.train_rows=16",
    "data.validation_rows=8",
    "data.test_rows=8",
    "training.steps=2",
    "selection={every: 2, rows: 6, attack: {steps: 1}}",
    "evaluation={rows: 4, attacks: {pgd: {steps: 1}}, masking: null}",
]
Check = Callable[[Path, Results], None]


def under(section: str, **keys: object) -> list[str]:
    """Overrides of these keys of a section, which keeps its others."""
    return [f"{section}.{key}={value}" for key, value in keys.items()]


def logged(output: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (output / "training/hardened/log.jsonl").read_text().splitlines()]


def guarded_and_averaged(output: Path, results: Results) -> None:
    assert [line["step"] for line in logged(output) if "validation_guard_gap" in line] == [0, 1, 2, 3, 4]
    folder = output / "training" / "hardened"
    kept = load_file(folder / "weights" / "last.safetensors")
    raw = load_file(folder / "checkpoints" / "step-00000004" / "weights.safetensors")
    assert any(not torch.equal(value, raw[name]) for name, value in kept.items()), "the mean of steps 2 to 4"


def compared(output: Path, results: Results) -> None:
    assert [model.name for model in results.evaluations] == ["plain", "plain, equal cost", "hardened"]
    assert results.trainings[1].steps > results.trainings[0].steps == 2
    assert len(list((output / "training" / "hardened" / "checkpoints").iterdir())) == 1


def attacked(output: Path, results: Results) -> None:
    assert results.trainings[-1].adversarial_rows > 0


def curved(output: Path, results: Results) -> None:
    model = results.evaluations[-1]
    curve = model.section(Curve)
    assert curve is not None and curve.attack == "apgd" and curve.title == "Robust accuracy of whole rows by radius"
    assert curve.points[0].rate == model["rows/accuracy/clean"].rate and len(curve.points) == 3
    assert model.section(Masking) is None
    assert {f"accuracy/robust/{name}" for name in EVALUATED} <= {measure.id for measure in model.measures}
    values = [model[f"accuracy/robust/{name}"].value for name in EVALUATED]
    assert model["accuracy/worst_case"].value <= min(values) <= model["accuracy/clean"].value


def kept(output: Path, results: Results) -> None:
    tensors = load_file(output / "adversarial" / "hardened" / "pgd.safetensors")
    assert tensors["labels"].shape == tensors["predictions"].shape and float(tensors["delta"].abs().max()) > 0


EVALUATED = {
    "pgd": "{steps: 2, relative_step_size: 0.7, ascent: momentum, momentum: 0.5, restarts: 2, goal: kl}",
    "adam": "{steps: 2, step_size: 0.01, ascent: adam, starts: ball, random_start: false, select: last}",
    "fgsm": "{name: fgsm}",
    "noise": "{name: noise}",
    "apgd": "{name: apgd_ce, steps: 3, restarts: 2}",
    "means": "{name: apgd_ce, steps: 2, samples: 2}",
}
PGD = (
    "steps: 2, ascent: momentum, momentum: 0.5, restarts: 2, starts: spread, select: most_damaging, goal: cross_entropy"
)
ADAM = "ascent: adam, random_start: false, starts: ball, select: last"
RUNS: dict[str, tuple[list[str], Check]] = {
    "loop": (
        [
            *under("training", steps=4, precision="bf16", schedule="cosine", clip_norm="null", weight_decay=0),
            *under("training", warmup_ratio=0.5, liveness_window=9),
            "training.averaging={kind: swa, start: 0.5, every: 1, refresh_batches: 2}",
            "training.guard={every: 1, rows: 4, drop: 0.9, action: rollback, rollbacks: 1}",
            f"training.guard.attack={{name: pgd, relative_step_size: 0.7, {PGD}}}",
            "checkpoint.every=4",
        ],
        guarded_and_averaged,
    ),
    "ema and baselines": (
        [
            "training.averaging={kind: ema, decay: 0.5}",
            f"training.guard={{every: 2, attack: {{steps: 1, step_size: 0.01, {ADAM}}}}}",
            "baselines=[same_steps, equal_cost]",
            "checkpoint={every: 1, keep_last: 1, overwrite: true, resume: false}",
            "tracking={log_with: [], project: words, progress: false}",
        ],
        compared,
    ),
    "mixing": (
        [
            *under("training", epochs=1.5, steps="null"),
            *under("mixing", ratio=0.5, policy="pair", warmup_steps=1),
            "mixing.ratio_schedule={kind: linear, start: 0.25, end: 0.5, steps: 2}",
            "mixing.radius_schedule={kind: step, values: {0: 0.5, 1: 1}}",
            f"selection.attack={{name: pgd, step_size: 0.01, {ADAM}}}",
            "attack={name: pgd, steps_schedule: {0: 1, 1: 2}, relative_step_size: 0.7}",
        ],
        attacked,
    ),
    "other schedules": (
        [
            "mixing.ratio_schedule={kind: step, values: {0: 0.5}}",
            "mixing.radius_schedule={kind: linear, start: 0.5, end: 1, steps: 2}",
            f"attack={{name: pgd, step_size: 0.01, {PGD}}}",
            f"selection.attack={{relative_step_size: 0.7, {PGD}}}",
        ],
        attacked,
    ),
    "freelb": (
        [
            "objective={name: freelb, clean_term: true, hold_dropout: false, start: 0.25, special_tokens: true}",
            "objective.linf_step=largest_entry",
            "threat={norm: linf, per: token, radius: 0.01, relative_radius: null}",
        ],
        attacked,
    ),
    "trades": (
        [
            "objective={name: trades, beta: 2, batch_norm: joint, weight_perturbation: 0.01}",
            *under("threat", space="hidden", layer=0, norm="l1", per="example"),
            "evaluation.keep_adversarial=true",
        ],
        kept,
    ),
    "evaluation": (
        [
            *under("evaluation", rows="null", batch_size=3, radii=[0.1, 0.3], curve_attack="apgd", calibrate="false"),
            *(f"evaluation.attacks.{name}={keys}" for name, keys in EVALUATED.items()),
        ],
        curved,
    ),
    "adapters": (
        [
            "model.lora={r: 2, alpha: 4, dropout: 0.1, targets: [query]}",
            *under("model", gradient_checkpointing="true", dtype="bfloat16", trust_remote_code="false"),
            "attack={random_start: false, starts: ball, ascent: adam}",
            "seed=3",
        ],
        attacked,
    ),
}
EARLY, MARGIN = "{0}.early_stop: true would leave a row at its first", "{0}.goal: margin would raise that of one word"
REFUSED: dict[str, str] = {
    "mixing.adaptive_radius={}": "mixing.adaptive_radius goes by how far a row is from being wrong, and with task: tok",
    "evaluation.masking.queries=5": "evaluation.masking.queries, got 5, is of a probe beside autoattack, and with task",
    "evaluation.minimum_radius={}": "evaluation.minimum_radius is of rows of one class",
    "evaluation.detection={positive: PER}": "evaluation.detection and selection.metric: recall are of rows",
    "selection.metric=recall": "selection.metric: recall is that of evaluation.detection, which is not set.",
    "threat.space=pixels": "threat.relative_radius counts in norms of vectors",
    "data.scheme=bioes": "data.scheme cannot be set for data.name: builtin:places, which has its own tags. Remove it.",
    "data.labels=[O, B-PER]": "data.labels cannot be set for data.name: builtin:places",
    "data.tags=ner_tags": "data.tags cannot be set for data.name: builtin:places",
    **{
        f"{key}.{name}={value}": told.format(key)
        for key in ("attack", "selection.attack", "training.guard.attack", "evaluation.attacks.pgd")
        for name, value, told in (("early_stop", "true", EARLY), ("goal", "margin", MARGIN))
    },
    **{
        f"{key}.steps_schedule={{0: 1}}": f"{key}.steps_schedule is for the attack of training, and this one measures"
        for key in ("selection.attack", "training.guard.attack", "evaluation.attacks.pgd")
    },
}
ELSEWHERE = {
    "model.revision": "tests/models/test_loading.py",
    "data.validation_fraction": "tests/tokens/test_data.py",
    "data.surrogates": "tests/tokens/test_data.py",
    "tracking.log_with": "tests/training/test_tracking.py",
    "data.train": "tests/recipes/test_tokens.py",
    "data.validation": "tests/recipes/test_tokens.py",
    "data.test": "tests/recipes/test_tokens.py",
    "data.tokens": "tests/recipes/test_tokens.py",
}
HUB = ["data.tags=ner_tags", "data.labels=null", "data.config=default"]


def keys_of(schema: type[BaseModel], above: str = "") -> Iterator[str]:
    """The dotted keys of a section that hold no section; * stands for a name of the user's choice."""
    for key, info in schema.model_fields.items():
        parts = list(sections(info.annotation))
        if not parts:
            yield above + key
        for part in parts:
            yield from keys_of(part, f"{above}{key}.{'*.' if free(info.annotation) else ''}")


def sections(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from sections(part)


def free(annotation: Any) -> bool:
    return get_origin(annotation) is dict or any(map(free, get_args(annotation)))


def set_by(values: object, above: str) -> Iterator[str]:
    """The dotted keys that a file or an override sets, those of sections too."""
    yield above
    if isinstance(values, Mapping):
        for key, value in values.items():
            name = "*" if above == "evaluation.attacks" else str(key)
            yield from set_by(value, f"{above}.{name}" if above else name)


def of_override(text: str) -> Iterator[str]:
    path, _, value = text.partition("=")
    parts = path.split(".")
    if parts[:2] == ["evaluation", "attacks"] and len(parts) > 2:
        parts[2] = "*"
    yield from set_by(yaml.safe_load(value), ".".join(parts))


def test_every_key_stands_in_a_table() -> None:
    given = [*BRIEF, *HUB, *(override for overrides, _ in RUNS.values() for override in overrides), *REFUSED]
    named = {*set_by(yaml.safe_load(Path(SMALL).read_text()), ""), *ELSEWHERE}
    named |= {key for override in given for key in of_override(override)}
    refused = ("evaluation.minimum_radius.", "evaluation.detection.", "mixing.adaptive_radius.")
    lacking = {key for key in keys_of(TokenRunConfig) if key not in named and not key.startswith(refused)}
    assert not lacking
    assert all(Path(file).is_file() for file in ELSEWHERE.values())


@pytest.mark.parametrize("name", RUNS)
def test_it_works(name: str, tmp_path: Path, recipe: Recipe) -> None:
    overrides, check = RUNS[name]
    ended = recipe(adv_finetune, SMALL, *BRIEF, *overrides, f"output={tmp_path}")
    assert ended.code == 0, ended.error
    check(tmp_path, read_results(tmp_path))


@pytest.mark.parametrize("override", REFUSED)
def test_it_is_refused(override: str) -> None:
    extra = ["training.guard={every: 1}"] if override.startswith("training.guard.") else []
    with pytest.raises(ConfigError) as caught:
        load_config(SMALL, [*extra, override])
    assert caught.value.lines[0].startswith(REFUSED[override])


@pytest.mark.parametrize("kind", ["saved", "folder"])
def test_data_sets_of_the_hub_are_read_with_the_names_of_their_classes(
    kind: str, tmp_path: Path, recipe: Recipe
) -> None:
    """The classes are numbers in the columns of such a data set, and their names stand in its features."""
    known = places()
    names = ["I-LOC", "O", *(name for name in known.labels if name not in ("O", "I-LOC"))]
    features = datasets.Features(
        {"tokens": datasets.List(datasets.Value("string")), "ner_tags": datasets.List(datasets.ClassLabel(names=names))}
    )
    found = datasets.DatasetDict()
    for role, part in known.named.items():
        tags = [[names.index(known.labels[tag]) for tag in row] for row in part.tags[:20]]
        columns = {"tokens": [list(row) for row in part.words[:20]], "ner_tags": tags}
        found[role] = datasets.Dataset.from_dict(columns, features=features)
    folder = tmp_path / "set"
    if kind == "saved":
        found.save_to_disk(folder)
    else:
        folder.mkdir()
        for role, rows in found.items():
            rows.to_parquet(folder / f"{role}.parquet")
    extra = HUB if kind == "folder" else HUB[:1]
    ended = recipe(adv_finetune, SMALL, *BRIEF, *extra, f"data.name={folder}", f"output={tmp_path / 'run'}")
    assert ended.code == 0, ended.error
    model = json.loads((tmp_path / "run" / "merged" / "config.json").read_text())
    assert [model["id2label"][str(number)] for number in range(len(names))] == names
    assert read_results(tmp_path / "run").evaluations[-1]["spans/clean"].total > 0
    ended = recipe(adv_finetune, SMALL, *BRIEF, f"data.name={folder}", f"output={tmp_path / 'run'}")
    assert ended.code == 1 and "data.tags" in ended.error and "ner_tags" in ended.error
