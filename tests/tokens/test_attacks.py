"""Attacks on models that label words: the optimum of a linear one, and four architectures through the loader."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForTokenClassification, PreTrainedTokenizerBase

from tests.oracles import TEXT_CONFIGS, BagOfEmbeddings, FixedRows, token_rows
from tests.tokens.tokenizers import FAMILIES, of_family
from textadv.attacks import L2, Attack, Linf, Noise, ThreatModel, Untargeted, apgd_ce, pgd
from textadv.config.adversary import AttackConfig
from textadv.measuring import evaluate, scores
from textadv.measuring.accuracy.attacking import attack_rows
from textadv.measuring.accuracy.masking import Alarm, Ran, masking_flags
from textadv.models import Lora, forward, load_classifier
from textadv.models.heads import OF_TOKENS
from textadv.models.loading import LoadedModel
from textadv.tasks.tokens.config import TokenEvaluationConfig
from textadv.tasks.tokens.rows import TaggedRows, encode_tagged
from textadv.tasks.tokens.tagged import Tagged
from textadv.values.batch import IGNORED, Batch
from textadv.values.decisions import Label, listed
from textadv.values.losses import margin
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Embeddings, Hidden

LABELS = ("O", "B-PER", "I-PER")


class LinearTagger(BagOfEmbeddings):
    """logits at a position = importance(token) * W e(token) + b: each word's margin has an optimum of its own."""

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        weight = self.importance[input_ids] * attention_mask
        return (self.embeddings(input_ids) * weight.unsqueeze(-1)) @ self.head.T + self.bias


class WordRows(FixedRows):
    """A batch of rows of several labels as a data set."""

    @property
    def labels(self) -> tuple[Label, ...]:  # type: ignore[override]
        return tuple(tuple(row[row != IGNORED].tolist()) for row in self.whole.labels)


def linear(dtype: torch.dtype = torch.float64) -> tuple[LinearTagger, Batch]:
    """A model of two classes, and rows whose every second word has the label that the model gives it."""
    model = LinearTagger(dtype=dtype)
    batch = token_rows([9, 6, 7])
    said = model(**batch.inputs).argmax(dim=2)
    labelled = batch.editable & (torch.arange(9) % 2 == 0)
    return model, replace(batch, labels=said.masked_fill(~labelled, IGNORED))


def rising(model: LinearTagger, batch: Batch, row: int, place: int) -> Tensor:
    """The gradient of the word's margin, other logit minus label's, with respect to its embedding."""
    label = int(batch.labels[row, place])
    weight = model.importance[batch.inputs["input_ids"][row, place]]
    return ((model.head[1 - label] - model.head[label]) * weight).detach()


@pytest.mark.parametrize(("ball", "order"), [(L2(0.3), 2.0), (Linf(0.3), 1.0)], ids=["l2", "linf"])
def test_every_words_margin_rises_by_what_theory_says_and_no_other_token_moves(ball: L2, order: float) -> None:
    model, batch = linear()
    found = pgd(ThreatModel(Embeddings(), ball), steps=8, select="most_damaging", random_start=False)(model, batch)
    before, after = forward(model, batch).detach(), forward(model, found.batch).detach()
    for row, place in (batch.labels != IGNORED).nonzero().tolist():
        label = int(batch.labels[row, place])
        direction = rising(model, batch, row, place)
        rise = 0.3 * torch.linalg.vector_norm(direction, order)
        gained = [x[row, place, 1 - label] - x[row, place, label] for x in (before, after)]
        assert float(gained[1] - gained[0]) == pytest.approx(float(rise), rel=1e-9)
    delta = found.perturbation.delta
    assert not delta[batch.labels == IGNORED].any(), "only the word's own token moves its logits"


def breaking(model: LinearTagger, batch: Batch) -> list[float]:
    """The radius at which theory says that each word breaks: its lead over the norm of its gradient."""
    clean = forward(model, batch).detach()
    found = []
    for row, place in (batch.labels != IGNORED).nonzero().tolist():
        label = int(batch.labels[row, place])
        lead = clean[row, place, label] - clean[row, place, 1 - label]
        found.append(float(lead / rising(model, batch, row, place).norm()))
    return found


def test_accuracy_of_words_is_that_of_the_closed_form() -> None:
    """A word is broken exactly where its margin is smaller than the radius times the norm of its gradient."""
    model, batch = linear()
    radii = breaking(model, batch)
    middle = sorted(radii)[len(radii) // 2 - 1 : len(radii) // 2 + 1]
    threat = ThreatModel(Embeddings(), L2(sum(middle) / 2))
    expected = [radius > sum(middle) / 2 for radius in radii]
    attack = pgd(threat, steps=8, select="most_damaging", random_start=False)
    rows = WordRows(batch)
    hits = attack_rows(model, rows, range(3), attack, threat=threat)
    pairs = [(listed(hit.prediction), listed(rows.labels[hit.position])) for hit in hits]
    held = [one == own for found, labels in pairs for one, own in zip(found, labels, strict=True)]
    assert held == expected and 0 < sum(expected) < len(expected)
    assert scores(model, rows, range(3), attack).robust == sum(expected) / len(expected)
    found = evaluate(model, rows, {"pgd": attack}, threat)
    assert found["accuracy/worst_case"].rate.count == sum(one == labels for one, labels in pairs)
    alone = [attack_rows(model, rows, [place], attack, threat=threat)[0].prediction for place in range(3)]
    assert alone == [hit.prediction for hit in hits], "a row's words do not depend on other rows"


def saved(folder: Path, family: str) -> Path:
    """A tiny model of this architecture without a head, with a tokenizer of its family."""
    config, tokenizer = TEXT_CONFIGS[family](), of_family(family)
    config.vocab_size, config.pad_token_id, config.num_labels = len(tokenizer), tokenizer.pad_token_id, 2
    with seeded_scope(0):
        model: nn.Module = AutoModelForTokenClassification.from_config(config)
    getattr(model, model.base_model_prefix).save_pretrained(folder)  # type: ignore[arg-type, operator]
    tokenizer.save_pretrained(folder)
    return folder


def rows_for(tokenizer: PreTrainedTokenizerBase) -> TaggedRows:
    words = (("Mira", "went", "to", "Orlo"), ("an", "unhappy", "dog"), ("Vel", "Tanner", "lives", "in", "Dorona", "."))
    tags = ((1, 0, 0, 1), (0, 0, 0), (1, 2, 0, 0, 1, 0))
    return encode_tagged(Tagged(words, tags, (5, 6, 7)), tokenizer, 32)


@pytest.fixture(params=FAMILIES)
def loaded(request: pytest.FixtureRequest, tmp_path: Path) -> LoadedModel:
    """A model of each architecture, loaded with a new head and adapters."""
    return load_classifier(str(saved(tmp_path, request.param)), LABELS, head=OF_TOKENS, lora=Lora(r=2))


@pytest.mark.parametrize("space", [Embeddings(), Hidden(0)], ids=str)
def test_four_architectures_are_attacked_within_bounds_and_left_as_they_were(
    loaded: LoadedModel, space: Embeddings | Hidden
) -> None:
    model, rows = loaded.model, rows_for(loaded.tokenizer)
    batch = rows.batch([0, 1, 2])
    threat = ThreatModel(space, L2(0.5))
    weights = [value.clone() for value in model.parameters()]
    found = pgd(threat, steps=3, select="most_damaging")(model, batch)
    delta = found.perturbation.delta
    assert not delta[~batch.editable].any() and float(threat.ball.gauge(delta).max()) <= 1 + 1e-6
    assert found.measured is not None and bool((found.measured.loss_gain > 0).all())
    assert all(torch.equal(one, other) for one, other in zip(weights, model.parameters(), strict=True))
    assert all(value.grad is None for value in model.parameters())
    alone = pgd(threat, steps=3, select="most_damaging")(model, rows.batch([1]))
    width = alone.perturbation.delta.shape[1]
    assert torch.allclose(alone.perturbation.delta[0], delta[1, :width], atol=2e-4)


PANEL: dict[str, dict[str, object]] = {
    "pgd": {},
    "momentum": {"ascent": "momentum"},
    "adam": {"ascent": "adam"},
    "kl": {"goal": "kl"},
    "fgsm": {"name": "fgsm"},
    "r_fgsm": {"name": "r_fgsm"},
    "virtual_adversarial": {"name": "virtual_adversarial", "steps": 2},
    "noise": {"name": "noise"},
    "apgd_ce": {"name": "apgd_ce", "steps": 5},
}


@pytest.mark.parametrize("name", PANEL)
def test_every_attack_of_a_panel_runs_and_none_stops_at_the_first_wrong_word(name: str) -> None:
    model, batch = linear(torch.float32)
    threat = ThreatModel(Embeddings(), L2(0.6))
    attack = TokenEvaluationConfig.model_validate({"attacks": {name: PANEL[name]}}).panel(threat, 0, 2)[name]
    assert not getattr(attack, "early_stop", False)
    hits = attack_rows(model, WordRows(batch), range(3), attack, threat=threat)
    assert all(len(listed(hit.prediction)) == len(listed(WordRows(batch).labels[hit.position])) for hit in hits)


def test_an_attack_breaks_every_word_that_it_can_and_stopping_early_does_not() -> None:
    """So stopping at the first wrong word would make words look robust, and no attack that measures here does it, nor
    raises the margin of a row, which is that of one word."""
    model, batch = linear(torch.float32)
    threat, rows = ThreatModel(Embeddings(), L2(1.05 * max(breaking(model, batch)))), WordRows(batch)

    def held(attack: Attack) -> float:
        found = scores(model, rows, range(3), attack).robust
        assert found is not None
        return found

    small = pgd(threat, steps=30, relative_step_size=0.05, select="most_damaging", random_start=False)
    assert held(small) == held(apgd_ce(threat, steps=20, early_stop=False)) == 0
    assert held(replace(small, early_stop=True)) > 0 and held(Noise(threat)) > 0
    assert held(replace(small, goal=Untargeted(margin))) > 0


def test_the_masking_alarm_names_no_attack_that_words_do_not_have() -> None:
    model, batch = linear(torch.float32)
    with torch.no_grad():
        model.importance.zero_()
    threat = ThreatModel(Embeddings(), L2(0.5))
    flags = masking_flags(model, WordRows(batch), {"noise": Ran(Noise(threat), [])}, [0, 1, 2], 3, threat, Alarm())
    (flag,) = [flag for flag in flags if flag.state == "ring"]
    assert flag.name == "zero gradient" and flag.told.endswith("Do not read what attacks leave as robustness.")


def test_stopping_early_is_no_default() -> None:
    found = TokenEvaluationConfig.model_validate({"attacks": {"a": {}, "b": {"name": "apgd_ce"}}})
    assert isinstance(found.attacks["a"], AttackConfig) and not found.attacks["a"].early_stop
    assert found.attacks["a"].select == "most_damaging" and not found.against(3, None).early_stop
