"""Adversarial rows that an evaluation keeps: they are what the attacks found, also after an interruption."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import nn

from tests.attacks.every import PixelsAlone
from tests.measuring.linear import Counted, bag, ball_threat, labelled_rows
from tests.oracles import FixedRows
from tests.seen import evaluate
from tests.support.places import PLACES
from textadv.attacks import L2, Linf, ThreatModel, autoattack, fgsm, pgd
from textadv.data import ImageRows
from textadv.measuring import Finished, identity
from textadv.models import as_classifier, evaluating, forward
from textadv.values.batch import Batch
from textadv.values.spaces import Hidden, Pixels

THREAT = ThreatModel(Pixels(), Linf(0.03, per="example"))


def images(count: int = 9) -> tuple[nn.Module, ImageRows]:
    """A model and rows, two of them labelled wrongly."""
    model = as_classifier(PixelsAlone())
    x = torch.rand((count, 3, 4, 4), generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        y = model(x).argmax(dim=1)
    y[:2] = (y[:2] + 1) % 3
    return model, ImageRows(x, y, range(30, 30 + count))


def kept(folder: Path, name: str) -> dict[str, torch.Tensor]:
    return load_file(folder / f"{name}.safetensors")


def test_images_are_kept_in_order_and_break_what_the_results_say(tmp_path: Path) -> None:
    model, rows = images()
    attacks = {"pgd": pgd(THREAT, steps=3), "all of them": autoattack(THREAT, classes=3, steps=4, queries=10)}
    found = evaluate(model, rows, attacks, THREAT, batch_size=4, keep_adversarial=tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == ["all_of_them.safetensors", "pgd.safetensors"]
    for name, file in (("pgd", "pgd"), ("all of them", "all_of_them")):
        there = kept(tmp_path / "kept", file)
        assert there["ids"].tolist() == list(range(32, 39)) and there["labels"].tolist() == list(rows.labels[2:])
        with torch.no_grad():
            again = model(there["pixel_values"]).argmax(dim=1)
        assert torch.equal(again, there["predictions"])
        said = {row.id: row.predictions[name] for row in found.rows_detail}
        assert again.tolist() == [said[id_] for id_ in there["ids"].tolist()]
        delta = there["pixel_values"] - rows.pixels[2:]
        assert float(delta.abs().max()) <= 0.03 + 1e-7 and torch.allclose(THREAT.ball.gauge(delta), there["gauge"])
    assert (kept(tmp_path / "kept", "pgd")["predictions"] != torch.tensor(rows.labels[2:])).any()
    with safe_open(tmp_path / "kept" / "pgd.safetensors", "pt") as file:
        assert file.metadata() == {"attack": str(attacks["pgd"]), "threat": str(THREAT)}


def test_texts_are_kept_as_tokens_and_what_is_added_to_each(tmp_path: Path) -> None:
    model = bag()
    rows = labelled_rows(model, count=20)
    threat = ball_threat(L2(0.6))
    evaluate(model, rows, {"pgd": pgd(threat, steps=3)}, threat, batch_size=3, keep_adversarial=tmp_path)
    there = kept(tmp_path, "pgd")
    lengths = rows.whole.inputs["attention_mask"].sum(dim=1)[7:]
    assert there["attention_mask"].sum(dim=1).tolist() == lengths.tolist()
    assert there["delta"].shape == (13, int(lengths.max()), 8)
    with torch.no_grad():
        assert torch.equal(forward(model, rebuilt(there, threat)).argmax(dim=1), there["predictions"])
    assert not there["delta"][~there["attention_mask"].bool()].any()


def rebuilt(there: dict[str, torch.Tensor], threat: ThreatModel) -> Batch:
    """A perturbed batch made from what was kept alone."""
    inputs = {name: there[name] for name in ("input_ids", "attention_mask")}
    editable = inputs["attention_mask"].bool()
    batch = Batch(inputs, there["labels"], editable, there["ids"], torch.zeros_like(there["ids"]))
    return batch.perturbed(threat.space, there["delta"])


@pytest.mark.parametrize("name", ["text: hidden", "text: several", "image: hidden"])
def test_what_is_added_inside_the_model_is_kept_as_well(name: str, tmp_path: Path) -> None:
    place = PLACES[name]
    model, batch, _ = place.subject(0)
    threat = place.threat("l2")
    evaluate(model, FixedRows(batch), {"fgsm": fgsm(threat)}, threat, keep_adversarial=tmp_path)
    there = kept(tmp_path, "fgsm")
    moved = batch.perturbed(place.space, there["delta"]) if "image" in name else rebuilt(there, threat)
    with evaluating(model), torch.no_grad():
        assert torch.equal(forward(model, moved).argmax(dim=1), there["predictions"])
    assert bool(there["delta"].any()) and isinstance(place.space, Hidden) == (there["delta"].dim() == 3)


class Stopping:
    """An attack that stops the evaluation at its n-th batch, as a user or a machine does."""

    def __init__(self, attack: Any, batches: int) -> None:
        self.attack, self.left = attack, batches

    def __call__(self, model: Any, batch: Any, *, radius_scale: Any = 1.0) -> Any:
        self.left -= 1
        if self.left < 0:
            raise KeyboardInterrupt
        return self.attack(model, batch, radius_scale=radius_scale)


def test_an_interrupted_evaluation_keeps_what_an_uninterrupted_one_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = images()
    monkeypatch.setattr(identity, "described", lambda value: str(type(value)) if isinstance(value, nn.Module) else "x")
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    plain: dict[str, Any] = {"threat": THREAT, "batch_size": 2}
    first = evaluate(model, rows, {"pgd": pgd(THREAT, steps=3)}, keep_adversarial=whole, **plain)
    ledger = Finished(tmp_path / "ledger", ("model",))
    with pytest.raises(KeyboardInterrupt):
        stopping = {"pgd": Stopping(pgd(THREAT, steps=3), 2)}
        evaluate(model, rows, stopping, keep_adversarial=parts, finished=ledger, **plain)
    assert not (parts / "pgd.safetensors").exists()
    counted = Counted(pgd(THREAT, steps=3))
    again = evaluate(model, rows, {"pgd": counted}, keep_adversarial=parts, finished=ledger, **plain)
    assert len(counted.ids(1.0)) == 3 and again.worst_case == first.worst_case
    one, other = kept(whole, "pgd"), kept(parts, "pgd")
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_rows_finished_without_being_kept_are_attacked_again(tmp_path: Path) -> None:
    model, rows = images()
    ledger = Finished.of(tmp_path / "ledger", model)
    attack = pgd(THREAT, steps=3)
    evaluate(model, rows, {"pgd": attack}, THREAT, finished=ledger)
    said: list[str] = []
    evaluate(model, rows, {"pgd": attack}, THREAT, finished=ledger, keep_adversarial=tmp_path / "a", say=said.append)
    assert not any("read back" in line for line in said) and any("7 adversarial rows in" in line for line in said)
    said.clear()
    evaluate(model, rows, {"pgd": attack}, THREAT, finished=ledger, keep_adversarial=tmp_path / "b", say=said.append)
    assert any("7 rows read back" in line for line in said)
    one, other = kept(tmp_path / "a", "pgd"), kept(tmp_path / "b", "pgd")
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_no_row_to_attack_gives_an_empty_file_and_unwritable_folders_are_told_first(tmp_path: Path) -> None:
    model, rows = images(2)
    evaluate(model, rows, {"pgd": pgd(THREAT, steps=2)}, THREAT, keep_adversarial=tmp_path / "none")
    assert kept(tmp_path / "none", "pgd")["ids"].tolist() == []
    (tmp_path / "file").write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match="keep_adversarial .*file cannot be written"):
        evaluate(model, rows, {"pgd": pgd(THREAT, steps=2)}, THREAT, keep_adversarial=tmp_path / "file")
    attacks = {"a/b": pgd(THREAT, steps=2), "a b": fgsm(THREAT)}
    with pytest.raises(ValueError, match="Attacks named a/b, a b would share the file"):
        evaluate(model, rows, attacks, THREAT, keep_adversarial=tmp_path / "shared")
