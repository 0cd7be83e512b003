"""Attacks in stages on a data set: what each leaves and costs, and that together they do what the attack does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.measuring.linear import bag, ball_threat, labelled_rows
from tests.misleading import Noisy
from tests.oracles import CurvedBag, FixedRows, rightly_labelled, token_rows
from tests.seen import evaluate
from textadv.attacks import L2, AutoAttack, Eot, apgd_ce, autoattack, pgd
from textadv.measuring import Finished, attack_rows
from textadv.measuring import ledger as ledgers
from textadv.measuring.accuracy.attacking import samples_of
from textadv.measuring.accuracy.cascade import merged, run_stages
from textadv.measuring.accuracy.record import Classified

BALL = L2(0.8, per="example")


def small(version: str = "standard") -> AutoAttack:
    return autoattack(ball_threat(BALL), 3, version=version, steps=6, queries=30)


def curved(count: int = 24) -> tuple[CurvedBag, FixedRows]:
    model = CurvedBag().eval()
    return model, FixedRows(rightly_labelled(model, token_rows([5 + row % 5 for row in range(count)], classes=3)))


def run(batch_size: int = 64, said: list[str] | None = None) -> Classified:
    model, rows = curved()
    say = (lambda line: None) if said is None else said.append
    return evaluate(model, rows, {"aa": small()}, ball_threat(BALL), batch_size=batch_size, say=say)


def test_the_cascade_is_what_the_attack_itself_does() -> None:
    model, rows = curved()
    found, alone = run(), small()(model, rows.whole)
    (attack,) = found.attacks
    assert attack.robust.count == int((~alone.success).sum()) == found.worst_case.count
    assert 0 < attack.robust.count < 24
    assert [stage.name for stage in attack.cascade] == ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    left = [stage.robust.count for stage in attack.cascade]
    assert left == sorted(left, reverse=True) and left[-1] == attack.robust.count and left[0] < 24
    assert 24 - left[0] == attack.cascade[0].broken
    broken = [row.id for row in found.rows_detail if row.predictions["aa"] != row.label]
    assert broken == rows.whole.ids[alone.success].tolist()


def test_the_cost_of_an_attack_is_that_of_its_stages_on_the_rows_that_were_left() -> None:
    model, rows = curved()
    (attack,) = run().attacks
    alone = small()(model, rows.whole).cost
    assert attack.backwards == sum(stage.backwards for stage in attack.cascade) == int(alone.backwards.sum())
    assert attack.forwards == sum(stage.forwards for stage in attack.cascade)
    given = [24, *(stage.robust.count for stage in attack.cascade[:-1])]
    assert attack.forwards == int((alone.forwards + alone.queries).sum()) + sum(given)
    square = attack.cascade[-1]
    assert square.backwards == 0 and square.queries == square.forwards <= given[-1] * 32
    assert attack.seconds == pytest.approx(sum(stage.seconds for stage in attack.cascade))


def test_it_is_printed_stage_by_stage() -> None:
    said: list[str] = []
    found = run(said=said)
    left = [stage.robust.count for stage in found.attacks[0].cascade]
    told = [line.rsplit(", in", 1)[0] for line in said]
    names = ["APGD-CE", "APGD-T", "FAB-T", "Square"]
    assert told[1:] == [f"model: aa, {name} leaves {count} right" for name, count in zip(names, left, strict=True)]


def test_it_does_not_depend_on_the_batch_size() -> None:
    whole, parts = run(), run(batch_size=5)
    assert whole.rows_detail == parts.rows_detail
    for one, other in zip(whole.attacks[0].cascade, parts.attacks[0].cascade, strict=True):
        assert (one.robust, one.forwards, one.backwards) == (other.robust, other.forwards, other.backwards)


def test_the_worst_case_has_a_meaning() -> None:
    found = run()
    assert found.worst_case_meaning.startswith("AutoAttack standard, rows that stay right after each of APGD-CE, ")
    assert "L2 ball per example, radius 0.8" in found.worst_case_meaning
    model, rows = curved()
    threat = ball_threat(BALL)
    both = evaluate(model, rows, {"aa": small("fast"), "pgd": pgd(threat, steps=2)}, threat)
    assert both.worst_case_meaning.startswith("Rows that stay right under each of aa, pgd: an upper bound")
    assert [bool(attack.cascade) for attack in both.attacks] == [True, False]


def test_a_stage_without_rows_left_has_no_cost() -> None:
    model = bag()
    rows, threat = labelled_rows(model, wrong=0, count=6), ball_threat(L2(50.0, per="example"))
    stages = run_stages(model, rows, range(6), "aa", autoattack(threat, 2, steps=6, queries=5), threat=threat)
    assert [len(stage.hits) for stage in stages] == [6, 0, 0, 0]
    assert sorted(merged(stages)) == list(range(6))


def test_predictions_of_a_random_model_are_means_and_are_the_same_at_every_call() -> None:
    model, rows = Noisy().eval(), labelled_rows(bag(), wrong=0)
    threat = ball_threat(L2(0.3))
    attack = autoattack(threat, 2, version="rand", steps=3, samples=5)
    assert samples_of(attack) == samples_of(Eot(apgd_ce(threat), 5)) == 5 and samples_of(apgd_ce(threat)) == 1
    before = torch.get_rng_state()
    first, second = (evaluate(model, rows, {"aa": attack}, threat, positions=range(20)) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert first.rows_detail == second.rows_detail
    assert first.attacks[0].cascade[0].queries >= 20 * 5
    hits = attack_rows(model, rows, range(20), attack, threat=threat)
    assert sum(hit.prediction == rows.labels[hit.position] for hit in hits) == first.worst_case.count


def test_of_rows_read_back_only_their_share_of_the_seconds_counts(tmp_path: Path) -> None:
    model, rows = curved()
    threat = ball_threat(BALL)
    attack = {"pgd": pgd(threat, steps=2)}
    evaluate(model, rows, attack, threat, batch_size=6, finished=Finished(tmp_path, ()))
    (path,) = tmp_path.iterdir()
    lines, _ = ledgers.read(path)
    path.unlink()
    ledgers.keep(path, [line | {"seconds": 100.0} for line in lines])
    part = evaluate(model, rows, attack, threat, positions=range(6), finished=Finished(tmp_path, ()))
    assert len(lines) == 4
    assert part.attacks[0].seconds == pytest.approx(100.0, abs=5.0)
