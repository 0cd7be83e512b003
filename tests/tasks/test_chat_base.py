"""Which model tells gibberish from fluent text: the one that training started from, the same for all of them."""

from __future__ import annotations

import math
import shutil
from pathlib import Path

import pytest

from tests import chat_run
from textadv.config.types import ConfigError
from textadv.measuring.judges.llm_judge import LlmJudge
from textadv.measuring.judges.verdicts import REFUSAL_LISTS, ClassifierJudge
from textadv.measuring.safety.fluency import Base, Written
from textadv.models import Lora, load_causal
from textadv.tasks.chat.base import KEY, common_base, deciding, trained_base, unread_notes
from textadv.tasks.chat.config import ChatRunConfig


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
    assert "gibberish is not looked for" in told and f"Set {KEY} to the model that training started from;" in told
    assert told.endswith("for a model that was not trained here (a base or foreign one), to that model itself.")


def test_a_base_that_cannot_be_used_is_told_by_its_key(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"{KEY}: .*nowhere"):
        trained_base(config(model, str(tmp_path / "nowhere")))


def test_a_base_that_cannot_score_good_answers_is_told_before_training(model: Path, tmp_path: Path) -> None:
    """Its template takes no system turn, its context is too short, or its likelihoods are no numbers."""
    asked = [{"role": "user", "content": "How are you?"}]
    plain = Written(asked, "", "Very well, and you?")
    system = Written([{"role": "system", "content": "Be kind."}, *asked], "", "Very well, and you?")
    folder = tmp_path / "base"
    shutil.copytree(model, folder)
    template = folder / "chat_template.jinja"
    refuses = (
        "{% for m in messages %}{% if m.role == 'system' %}{{ raise_exception('no system') }}{% endif %}{% endfor %}"
    )
    template.write_text(refuses + template.read_text(encoding="utf-8"), encoding="utf-8")
    with pytest.raises(ConfigError, match=f"{KEY}: .*none of 2 good answers can be scored.*no system.*Set {KEY} to"):
        trained_base(config(model, str(folder)), [system, system])
    with pytest.raises(ConfigError, match=f"{KEY}: .*cannot tell gibberish"):
        common_base(config(model, str(folder)), [str(model)], [system])
    found = trained_base(config(model, str(folder)), [system, plain])
    (told, other) = unread_notes(found, [system, plain], [system.asked, asked])
    assert "cannot score 1 of 2 good answers" in told and "no system" in told and f"set {KEY} to" in told
    assert "cannot score 1 of 2 behaviours" in other and "not looked at for gibberish" in other
    assert unread_notes(found, [plain], [asked]) == unread_notes(None, [system], [asked]) == ()
    long = Written([{"role": "user", "content": "moon " * 5000}], "", "Very well.")
    with pytest.raises(ConfigError, match="none of 1 good answers can be scored.* positions"):
        trained_base(config(model, str(model)), [long])


def test_a_base_without_any_finite_likelihood_is_told(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Base, "nll", lambda self, written, leave=0: [math.inf] * len(written))
    plain = Written([{"role": "user", "content": "How are you?"}], "", "Very well, and you?")
    with pytest.raises(ConfigError, match="of 3 good answers no likelihood is a finite number"):
        trained_base(config(model, str(model)), [plain] * 3)


def test_the_judge_that_decides() -> None:
    listed = REFUSAL_LISTS["declines"]
    classifier, llm = object.__new__(ClassifierJudge), object.__new__(LlmJudge)
    assert deciding([]) is deciding([listed]) is None
    assert deciding([listed, classifier]) is classifier and deciding([classifier, llm]) is llm
