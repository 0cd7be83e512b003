"""The configuration of an image run: defaults, its own rules, and what it shares with that of a text run."""

from __future__ import annotations

import json

import pytest
import yaml

from tests.config_sample import SMALL_IMAGE
from tests.config_sample import image_problems as problems
from tests.config_sample import small_image as small
from textadv.config.adversary import AttackConfig
from textadv.config.types import ConfigError
from textadv.tasks.chat.config import ChatRunConfig
from textadv.tasks.file import config_difference, dump_config, json_schema, parse_config
from textadv.tasks.images.config import ImageRunConfig
from textadv.tasks.registry import DEFAULT, PACKAGES, schema
from textadv.tasks.text.config import RunConfig
from textadv.tasks.tokens.config import TokenRunConfig


def test_defaults_are_those_of_images() -> None:
    run = small()
    assert (run.threat.space, run.threat.per, run.threat.norm) == ("pixels", "example", "linf")
    assert run.threat.radius == 8 / 255
    assert run.model.lora is None and run.attack == AttackConfig()
    assert (run.data.channels, run.data.image_size, run.data.validation_fraction) == (None, None, 0.1)
    assert small("threat={space: hidden, layer: 2, radius: 1}").threat.per == "token"


def test_a_radius_in_pixels_needs_its_norm() -> None:
    raw = yaml.safe_load(SMALL_IMAGE)
    del raw["threat"]["norm"]
    with pytest.raises(ConfigError, match="threat.norm is missing: .* Set threat.norm: linf, l2 or l1."):
        parse_config(raw, ())


def test_the_task_chooses_the_schema() -> None:
    found = {name: schema(name) for name in PACKAGES}
    own = {"classification": RunConfig, "images": ImageRunConfig, "chat": ChatRunConfig, "tokens": TokenRunConfig}
    assert found.items() >= own.items() and len(set(found.values())) == len(PACKAGES)
    assert schema(DEFAULT) is RunConfig
    for task in ("pictures", "[images]", "null"):
        assert problems(f"task={task}")[0].startswith(f"task must be one of {', '.join(PACKAGES)}, got ")


def test_it_is_written_and_read_back_equal_and_differences_are_named() -> None:
    run = small("data={name: files, path: a.npz, keys: {train: [a, b]}}")
    assert parse_config(yaml.safe_load(dump_config(run))) == run
    assert config_difference(small(), small("threat.radius=4/255", "data.channels=3")) == [
        "data.channels: null -> 3",
        f"threat.radius: {8 / 255} -> {4 / 255}",
    ]


@pytest.mark.parametrize(
    ("override", "line"),
    [
        ("threat.radius=0", "threat.radius must be greater than 0, got 0."),
        ("threat.radius=-0.1", "threat.radius must be greater than 0, got -0.1."),
        ("threat.radius=0/255", "threat.radius must be greater than 0, got '0/255'."),
        ("threat.radius=8", "threat.radius: 8 in pixels of 0 to 1 allows every image. Write 8/255"),
        ("threat.per=token", "threat.per: token has no meaning for threat.space: pixels."),
        ("threat={relative_radius: 0.1}", "threat.relative_radius counts in norms of vectors"),
        ("threat={space: embeddings, radius: 1}", "threat.space: embeddings needs words, and task: images has none."),
        ("data={name: files}", "data.path is missing: data.name is files"),
        ("data={name: some/set, path: a.npz}", "data.path is for data.name: files, got data.name: some/set."),
        ("data.train=a", "data.train cannot be set for data.name: builtin:shapes"),
        ("data.labels=[a, b]", "data.labels cannot be set for data.name: builtin:shapes"),
        ("data.label_offset=1", "data.label_offset cannot be set for data.name: builtin:shapes"),
        ("data.unlabelled=drop", "data.unlabelled cannot be set for data.name: builtin:shapes"),
        ("data.unlabelled=keep", "data.unlabelled must be 'error' or 'drop', got 'keep'."),
        ("data.keys={train: [a, b]}", "data.keys cannot be set for data.name: builtin:shapes"),
        ("data.image=img", "data.image cannot be set for data.name: builtin:shapes"),
        ("data.validation_fraction=0.2", "data.validation_fraction cannot be set for data.name: builtin:shapes"),
        ("data.channels=2", "data.channels must be"),
        ("data={name: files, path: a.npz, keys: {train: [a]}}", "data.keys.train must name two arrays"),
        ("data={name: files, path: a.npz, keys: {tran: [a, b]}}", "data.keys: the key 'tran' must be"),
        ("data.labels=[a]", "data.labels must name at least 2 classes"),
        ("data.max_length=3", "unknown key data.max_length"),
        ("model.gradient_checkpointing=true", "unknown key model.gradient_checkpointing"),
        ("objective.name=r3f", "objective.name: r3f needs attack.name: noise"),
        ("mixing={policy: pair}", ""),
    ],
)
def test_what_is_refused(override: str, line: str) -> None:
    if not line:
        assert small(override).mixing.policy == "pair"
        return
    assert any(found.startswith(line) for found in problems(override)), problems(override)


def test_built_in_networks_have_neither_adapters_nor_blocks() -> None:
    name = "model.name=builtin:small-cnn"
    assert problems(name, "model.lora={r: 4}") == [
        "model.lora: builtin:small-cnn is trained whole. Set model.lora: null."
    ]
    (line,) = problems(name, "threat={space: hidden, layer: 0, radius: 1}")
    assert line.startswith("threat.space: hidden needs transformer blocks, got model.name: builtin:small-cnn.")


def test_the_schema_for_editors_knows_it() -> None:
    schema = json.loads(json.dumps(json_schema()))
    images = schema["$defs"]["ImageRunConfig"]
    assert images["properties"]["task"]["const"] == "images"
    assert set(images["required"]) == {"task", "output", "model", "data", "threat", "training"}
    radius = schema["$defs"]["ThreatConfig"]["properties"]["radius"]
    assert {"type": "string", "pattern": "/"} in [*radius["anyOf"], *radius["anyOf"][0].get("anyOf", [])]


def test_split_norms_need_attacked_rows_at_some_step() -> None:
    split = "model={name: builtin:small-resnet, split_norm: adversarial}"
    later = "mixing={ratio: 0, ratio_schedule: {kind: step, values: {0: 0, 2: 0.5}}}"
    assert small(split, later).model.split_norm == "adversarial"
    for nothing in ("mixing.ratio=0", "objective.name=clean"):
        assert problems(split, nothing)[0].startswith("model.split_norm keeps batch norms for attacked rows"), nothing


@pytest.mark.parametrize(
    ("more", "fine"),
    [
        ([], False),
        (["mixing.policy=pair"], True),
        (["mixing.warmup_steps=3"], True),
        (["mixing.ratio_schedule={kind: step, values: {0: 1, 4: 0.5}}"], True),
        (["mixing.ratio_schedule={kind: step, values: {0: 1, 4: 1}}"], False),
        (["objective.name=trades"], True),
        (["objective.name=mart"], True),
        (["objective.name=freelb"], False),
        (["objective={name: freelb, clean_term: true}"], True),
    ],
)
def test_split_norms_need_clean_rows_at_some_step(more: list[str], fine: bool) -> None:
    given = ["model={name: builtin:small-resnet, split_norm: clean}", "mixing.ratio=1", *more]
    if fine:
        assert small(*given).model.split_norm == "clean"
        return
    (line,) = problems(*given)
    assert line.startswith("model.split_norm keeps batch norms for clean rows, and this run passes none")


def test_averaged_weights_do_not_go_with_the_norms_of_attacked_rows() -> None:
    """Their statistics could only be computed anew under attack."""
    split = "model={name: builtin:small-resnet, split_norm: %s}"
    assert small(split % "clean", "training.averaging={}").training.averaging is not None
    (line,) = problems(split % "adversarial", "training.averaging={}")
    assert line.startswith("training.averaging computes statistics for averaged weights on clean rows")


def test_images_have_no_benign_files_to_choose_a_threshold_on() -> None:
    (line,) = problems("evaluation.detection={positive: cross, on: both}")
    assert line.startswith("evaluation.detection.on: both needs files of benign rows beside the splits")
    assert small("evaluation.detection={positive: cross}").evaluation.detection is not None
