"""A real pretrained encoder, MiniLM-L6, through loading, attack and one training step; skipped without its weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from textadv.attacks import L2, Noise, ThreatModel, pgd
from textadv.data import EncodedRows, encode, reviews
from textadv.models import LoadedModel, Lora, load_classifier
from textadv.objectives import Adversarial, hardening
from textadv.objectives.terms import Moment
from textadv.training.accumulation import accumulate
from textadv.training.mixing import Constant, Mixing
from textadv.values.spaces import Embeddings


@pytest.fixture(scope="module")
def loaded(minilm: Path) -> LoadedModel:
    return load_classifier(str(minilm), ("negative", "positive"), lora=Lora())


@pytest.fixture(scope="module")
def rows(loaded: LoadedModel) -> EncodedRows:
    return encode(reviews().train.select(range(8)), loaded.tokenizer, 64)


def test_the_head_is_new_and_the_embeddings_are_frozen(loaded: LoadedModel) -> None:
    assert loaded.initialised == ("classifier.bias", "classifier.weight")
    assert not loaded.model.get_input_embeddings().weight.requires_grad


def test_a_relative_radius_counts_in_the_mean_norm_of_the_vocabulary(loaded: LoadedModel) -> None:
    threat = ThreatModel(Embeddings(), L2(relative_radius=0.05)).resolved(loaded.model)
    norms = loaded.model.get_input_embeddings().weight.norm(dim=1)
    assert threat.ball.radius == pytest.approx(0.05 * norms.mean().item(), rel=1e-5)


def test_pgd_climbs_on_every_row_and_beats_noise(loaded: LoadedModel, rows: EncodedRows) -> None:
    threat = ThreatModel(Embeddings(), L2(relative_radius=0.1)).resolved(loaded.model)
    batch = rows.batch(range(8))
    climbed = pgd(threat, steps=3)(loaded.model, batch)
    noise = Noise(threat)(loaded.model, batch)
    assert (climbed.outcome.loss_gain > 0).all()
    assert climbed.outcome.loss_gain.mean() > 5 * noise.outcome.loss_gain.abs().mean()
    assert (climbed.gauge <= 1).all()


def test_one_step_of_training_reaches_every_adapter(loaded: LoadedModel, rows: EncodedRows) -> None:
    threat = ThreatModel(Embeddings(), L2(relative_radius=0.05)).resolved(loaded.model)
    mixing = Mixing(Constant(0.25))
    groups = mixing.groups(0, rows.lengths, 4)
    loaded.model.train()
    report = accumulate(
        loaded.model, hardening(Adversarial(pgd(threat, steps=2))), rows, range(8), groups, Moment(0, measure=True)
    )
    touched = {name: value.grad for name, value in loaded.model.named_parameters() if value.requires_grad}
    assert touched and all(grad is not None for grad in touched.values())
    assert all(grad.abs().sum() > 0 for name, grad in touched.items() if "lora_B" in name)
    assert report.adversarial_rows == 2
    assert torch.isfinite(report.total_loss)
    loaded.model.zero_grad()
