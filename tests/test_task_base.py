"""Which model tells gibberish from fluent text: the one that training started from, the same for all of them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests import chat_run
from textadv.config import ConfigError
from textadv.config_chat import ChatRunConfig
from textadv.evaluation.judges import REFUSAL_LISTS, ClassifierJudge
from textadv.evaluation.llm_judge import LlmJudge
from textadv.models import Lora, load_causal
from textadv.task_base import KEY, common_base, deciding, trained_base


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_run.save_untaught(tmp_path_factory.mktemp("base") / "model", "llama")


@pytest.fixture(scope="module")
def adapter(model: Path) -> Path:
    loaded = load_causal(str(model), lora=Lora(r=2, alpha=4))
    folder = model.parent / "adapter"
    loaded.model.save_pretrained(folder)  # type: ignore[operator]
    loaded.tokenizer.save_pretrained(folder)
    return folder


def config(model: Path, base: str | None = None, lora: bool = True) -> ChatRunConfig:
    told = chat_run.settings(model.parent, model)
    told["evaluation"] = {"base_model": base}
    if not lora:
        told["model"] = {"name": str(model), "lora": None}
    return ChatRunConfig.model_validate(told)


def test_a_training_run_knows_its_base(model: Path, adapter: Path) -> None:
    assert trained_base(config(model)) is None, "with an adapter it is the model without it"
    whole = trained_base(config(model, lora=False))
    assert whole is not None and whole.name == str(model) and not whole.adapted
    assert not any(weight.requires_grad for weight in whole.model.parameters())
    assert trained_base(config(adapter, lora=False)) is None, "an adapter that is trained on"
    named = trained_base(config(adapter, str(model)))
    assert named is not None and named.name == str(model)


def test_all_models_of_a_comparison_have_one_base(model: Path, adapter: Path) -> None:
    other = str(model.parent / "merged")
    assert common_base(config(model), [str(adapter)]) == (None, ()), "it is its own base"
    found, told = common_base(config(model), [other, str(adapter)])
    assert found is not None and found.name == str(model) and told == ()
    named, told = common_base(config(model, str(model)), [other])
    assert named is not None and named.name == str(model) and told == ()


def test_without_a_base_what_is_missing_and_not_measured_is_said(model: Path) -> None:
    found, (told,) = common_base(config(model), [str(model), str(model.parent / "merged")])
    assert found is None
    assert told.startswith(f"{KEY} is not set, and no --model is an adapter")
    assert "gibberish is not looked for" in told and f"Set {KEY} to the model that training started from." in told


def test_a_base_that_cannot_be_used_is_told_by_its_key(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{KEY}: .*nowhere"):
        trained_base(config(model, str(tmp_path / "nowhere")))


def test_the_judge_that_decides() -> None:
    listed = REFUSAL_LISTS["declines"]
    classifier, llm = object.__new__(ClassifierJudge), object.__new__(LlmJudge)
    assert deciding([]) is deciding([listed]) is None
    assert deciding([listed, classifier]) is classifier and deciding([classifier, llm]) is llm
