"""An interrupted evaluation goes on where it stopped: nothing is attacked twice, and the numbers are the same."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from tests.measuring.linear import ball_threat
from tests.measuring.test_cascade import BALL, curved, small
from tests.oracles import FixedRows, image_rows, tiny_models
from tests.processes import worked
from tests.seen import evaluate
from textadv.attacks import L1, Eot, Linf, Square, ThreatModel, Transfer, apgd_ce, pgd
from textadv.measuring import Alarm, Finished, attack_rows
from textadv.measuring import identity as module
from textadv.measuring.accuracy import attacking
from textadv.measuring.accuracy.record import Classified
from textadv.measuring.identity import UndescribedError, described, row_digest
from textadv.models import as_classifier
from textadv.values import processes
from textadv.values.digests import weights_hash
from textadv.values.randomness import seeded_scope
from textadv.values.spaces import Pixels

# Batches of 10 of 24 rows: 3 for the first stage, then fewer.
BATCH = 10


def measured(folder: Path | None, batch_size: int = BATCH, said: list[str] | None = None) -> Classified:
    model, rows = curved()
    threat = ball_threat(BALL)
    attacks = {"aa": small(), "pgd": pgd(threat, steps=3, early_stop=True, select="most_damaging")}
    finished = None if folder is None else Finished(folder, ("weights",))
    say = (lambda line: None) if said is None else said.append
    options = {"radii": [0.2, 0.8], "curve_attack": "pgd", "alarm": Alarm(rows=8, queries=10)}
    return evaluate(model, rows, attacks, threat, batch_size=batch_size, finished=finished, say=say, **options)


def die_at_batch(folder: str, last: str) -> None:
    """Measures until the batch after so many begins, and ends the process without any clean-up."""
    attacked, begun = attacking._attacked, []

    def mortal(*arguments: Any) -> Any:
        if arguments[2]:
            if len(begun) == int(last):
                os._exit(9)
            begun.append(arguments[2])
        return attacked(*arguments)

    attacking._attacked = mortal
    measured(Path(folder))


def without_seconds(found: Classified) -> Classified:
    def timeless(attack: Any) -> Any:
        return replace(attack, seconds=0.0, cascade=tuple(replace(stage, seconds=0.0) for stage in attack.cascade))

    return replace(found, attacks=tuple(map(timeless, found.attacks)))


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Every row that is attacked, with the attack."""
    seen: list[tuple[str, int]] = []
    inner = attacking._attacked

    def watched(*arguments: Any) -> Any:
        seen.extend((f"{arguments[3]} {arguments[5]:g}", position) for position in arguments[2])
        return inner(*arguments)

    monkeypatch.setattr(attacking, "_attacked", watched)
    return seen


@pytest.mark.parametrize("batches", [4, 9])
def test_a_killed_evaluation_goes_on_where_it_stopped(tmp_path: Path, begun: list[Any], batches: int) -> None:
    ended = worked(die_at_batch, tmp_path / "state", batches)
    assert ended.returncode == 9, ended.stdout
    plain = measured(None)
    in_all = len(begun)
    begun.clear()
    said: list[str] = []
    resumed = measured(tmp_path / "state", said=said)
    written = [line for path in (tmp_path / "state").iterdir() for line in path.read_text().splitlines()]
    assert in_all - 40 - 10 * batches <= len(begun) < in_all - 10
    assert len(set(begun)) == len(begun)
    assert len(written) > batches
    assert without_seconds(resumed) == without_seconds(plain)
    assert any("rows read back, having been attacked before" in line for line in said)
    begun.clear()
    assert without_seconds(measured(tmp_path / "state")) == without_seconds(plain)
    assert begun == []
    assert measured(tmp_path / "state").attacks[0].seconds > 0


def test_rows_are_read_back_in_batches_of_another_size(tmp_path: Path, begun: list[Any]) -> None:
    first = measured(tmp_path)
    begun.clear()
    assert without_seconds(measured(tmp_path, batch_size=7)) == without_seconds(first)
    assert begun == []


def test_half_a_line_is_attacked_again_and_swallows_nothing(tmp_path: Path, begun: list[Any]) -> None:
    model, rows = curved()
    threat, attack = ball_threat(BALL), pgd(ball_threat(BALL), steps=2)

    def hits() -> Any:
        ledger = Finished(tmp_path, ("w",)).ledger(attack, threat)
        return attack_rows(model, rows, range(24), attack, BATCH, threat=threat, ledger=ledger)

    whole = hits()
    (path,) = tmp_path.iterdir()
    lines = path.read_text().splitlines()
    path.write_text(lines[0] + "\n" + lines[1][: len(lines[1]) // 2])
    begun.clear()
    assert hits() == whole
    assert len(begun) == 14
    begun.clear()
    assert hits() == whole and begun == []


HARMS: dict[str, Callable[[bytes], bytes]] = {
    "another class": lambda line: line.replace(b"[1, ", b"[99, ", 1).replace(b"[0, ", b"[99, ", 1),
    "null": lambda line: b"null",
    "no row": lambda line: b'{"attack": "", "seconds": 0, "rows": {"a": [1]}}',
    "text for a number": lambda line: line.replace(b'"seconds": ', b'"seconds": "1", "s": ', 1),
    "not UTF-8": lambda line: b"\xff" + line[1:],
    "deep": lambda line: b"[" * 100_000,
}


@pytest.mark.parametrize("harm", HARMS)
def test_a_stored_row_that_is_not_as_it_was_written_is_attacked_again(
    tmp_path: Path, begun: list[Any], harm: str
) -> None:
    plain = measured(tmp_path)
    file = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    lines = file.read_bytes().splitlines()
    harmed = HARMS[harm](lines[0])
    assert harmed != lines[0]
    file.write_bytes(b"\n".join([harmed, *lines[1:]]) + b"\n")
    begun.clear()
    said: list[str] = []
    assert without_seconds(measured(tmp_path, said=said)) == without_seconds(plain)
    assert 0 < len(begun) <= BATCH
    (told,) = [line for line in said if "stored lines" in line]
    assert told.startswith("note: ") and f"1 of {len(lines)} stored lines of attacked rows are not as" in told


def test_a_line_that_stands_twice_counts_once(tmp_path: Path) -> None:
    measured(tmp_path)
    file = max(tmp_path.iterdir(), key=lambda path: path.stat().st_size)
    lines = file.read_bytes()
    file.write_bytes(lines * 2)
    pipe = tmp_path / "pipe.0.jsonl"
    os.mkfifo(pipe)
    said: list[str] = []
    measured(tmp_path, said=said)
    count = lines.count(b"\n")
    assert any(f"{count} of {2 * count} stored lines of attacked rows" in line for line in said)
    assert file.read_bytes() == lines and pipe.is_file()


def test_a_line_of_another_attack_tells_nothing(tmp_path: Path, begun: list[Any]) -> None:
    model, rows = curved()
    threat = ball_threat(BALL)
    weak, strong = pgd(threat, steps=1), pgd(threat, steps=4)

    def hits(attack: Any) -> Any:
        ledger = Finished(tmp_path, ("w",)).ledger(attack, threat)
        return attack_rows(model, rows, range(24), attack, BATCH, threat=threat, ledger=ledger)

    hits(weak)
    (other,) = tmp_path.iterdir()
    whole = hits(strong)
    (path,) = {*tmp_path.iterdir()} - {other}
    path.write_bytes(other.read_bytes())
    begun.clear()
    assert hits(strong) == whole and len(begun) == 24
    path.write_bytes(other.read_bytes())
    (told,) = Finished(tmp_path, ("w",)).repaired()
    assert "stored lines of attacked rows are not as this version writes them" in told and not path.read_bytes()


def test_nothing_is_read_back_for_other_weights_attacks_balls_radii_or_rows(tmp_path: Path, begun: list[Any]) -> None:
    model, rows = curved()
    threat, attack = ball_threat(BALL), pgd(ball_threat(BALL), steps=2)

    def attacked(change: Callable[[dict[str, Any]], None] = lambda given: None) -> int:
        given = {"origin": ("w",), "attack": attack, "threat": threat, "scale": 1.0, "rows": rows}
        change(given)
        ledger = Finished(tmp_path, given["origin"]).ledger(given["attack"], given["threat"], given["scale"])
        begun.clear()
        options = {"threat": given["threat"], "ledger": ledger}
        attack_rows(model, given["rows"], range(24), given["attack"], BATCH, given["scale"], **options)
        return len(begun)

    assert attacked() == 24
    assert attacked() == 0
    assert attacked(lambda given: given.update(origin=("other",))) == 24
    assert attacked(lambda given: given.update(attack=replace(attack, seed=1))) == 24
    assert attacked(lambda given: given.update(attack=replace(attack, threat=ball_threat(Linf(0.1))))) == 24
    assert attacked(lambda given: given.update(scale=0.5)) == 24
    tokens = rows.whole.inputs["input_ids"].clone()
    tokens[3, 1] = 3 + (tokens[3, 1] - 2) % 60
    inputs = dict(rows.whole.inputs) | {"input_ids": tokens}
    other = replace(rows, whole=replace(rows.whole, inputs=inputs))
    assert attacked(lambda given: given.update(rows=other)) == 1
    assert attacked() == 0


def test_a_row_is_known_by_its_content_and_not_by_its_neighbours() -> None:
    _, rows = curved()
    shuffled = replace(rows, whole=rows.whole.rows(torch.tensor([5, 3, 1])))
    assert row_digest(rows, 3) == row_digest(shuffled, 1) != row_digest(rows, 5)


def test_attacks_are_described_by_all_that_they_are_made_of() -> None:
    threat = ball_threat(BALL)
    linear = nn.Linear(2, 2)
    models = [linear, nn.Linear(2, 2), as_classifier(linear), as_classifier(linear, [0.5])]
    models += [nn.Sequential(linear, nn.ReLU()), nn.Sequential(linear, nn.GELU())]
    same = [pgd(threat, steps=3), pgd(ball_threat(BALL), steps=3)]
    different = [*same[:1], pgd(threat, steps=3, seed=1), apgd_ce(threat), Eot(apgd_ce(threat), 3), Square(threat, 3)]
    different += [apgd_ce(ball_threat(ball)) for ball in (Linf(0.8), L1(0.8))]
    different += [Transfer(model, same[0], threat, "name") for model in models]
    assert described(same[0]) == described(same[1])
    assert described(different[-1]) == described(replace(different[-1], surrogate=deepcopy(models[-1])))
    assert len({described(attack) for attack in different}) == len(different)
    assert "0x" not in described(small())


def test_a_model_is_known_by_more_than_its_weights(tmp_path: Path) -> None:
    """What `weights_hash` leaves out: the normalisation, LoRA's alpha, the configuration, a function."""
    network = nn.Conv2d(1, 2, 3)
    strided = nn.Conv2d(1, 2, 3, stride=2)
    strided.load_state_dict(network.state_dict())
    bert = tiny_models()["bert"]()
    other_config = deepcopy(bert)
    other_config.config.layer_norm_eps = 1e-3

    def lora(alpha: int) -> nn.Module:
        with seeded_scope(0):
            return get_peft_model(deepcopy(bert), LoraConfig(r=2, lora_alpha=alpha, target_modules=["query"]))

    models = [as_classifier(network, [mean], [std]) for mean, std in ((0.0, 1.0), (0.0, 2.0), (0.5, 1.0))]
    models += [network, strided, bert, other_config, lora(4), lora(8)]
    assert weights_hash(models[0]) == weights_hash(models[1]) and weights_hash(models[-2]) == weights_hash(models[-1])
    assert len({Finished.of(tmp_path, model).origin for model in models}) == len(models)
    for model in models:
        assert Finished.of(tmp_path, deepcopy(model)) == Finished.of(tmp_path, model)
    assert Finished.of(tmp_path, lora(4)) == Finished.of(tmp_path, models[-2])


def test_a_model_with_another_normalisation_is_attacked_anew(tmp_path: Path, begun: list[Any]) -> None:
    """Two models of the same weights, evaluated into one folder one after the other."""
    batch = image_rows(6, size=4)
    rows = FixedRows(replace(batch, labels=torch.zeros_like(batch.labels)))
    threat = ThreatModel(Pixels(), Linf(0.1, per="example"))
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    network[1].bias.data[0] = 30.0
    for model in (as_classifier(network, [0.0], [1.0]), as_classifier(network, [0.5], [0.1])):
        begun.clear()
        for _ in range(2):
            evaluate(model, rows, {"pgd": pgd(threat, steps=1)}, threat, finished=Finished.of(tmp_path, model))
        assert len(begun) == len(set(begun)) > 0


def test_rows_of_other_code_are_not_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def key() -> str:
        ledger = Finished(tmp_path, ("w",)).ledger(pgd(ball_threat(BALL)))
        assert ledger is not None
        return ledger.path.name

    ours = [key()]
    monkeypatch.setattr(torch, "__version__", "0.0")
    ours.append(key())
    monkeypatch.setattr(module, "_code", lambda: "another commit")
    ours.append(key())
    assert len(set(ours)) == 3


@dataclass(frozen=True)
class Holding:
    """Something that holds a function."""

    function: Callable[[], None]


def test_what_cannot_be_described_is_not_kept(tmp_path: Path) -> None:
    for odd in (Holding(lambda: None), Holding(int), Holding([].append), {1, 2}):
        with pytest.raises(UndescribedError):
            described(odd)
        assert Finished(tmp_path, ()).ledger(odd) is None
    assert described(Holding(test_what_cannot_be_described_is_not_kept))


def test_an_attack_that_left_its_ball_is_not_kept(tmp_path: Path) -> None:
    model, rows = curved()
    wide, narrow = ball_threat(BALL), ball_threat(replace(BALL, radius=0.1))
    ledger = Finished(tmp_path, ()).ledger(pgd(wide), narrow)
    with pytest.raises(RuntimeError, match="left its threat model"):
        attack_rows(model, rows, range(10), pgd(wide), threat=narrow, ledger=ledger)
    assert list(tmp_path.iterdir()) == []


def test_processes_that_describe_a_model_differently_keep_its_rows_under_one_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after an export, which the first process alone writes and which leaves words in the model's settings."""
    told: list[Any] = []
    monkeypatch.setattr(module.torch.distributed, "is_initialized", lambda: True)
    paths = []
    for rank, name in enumerate(("saved", "not saved")):
        monkeypatch.setattr(module.torch.distributed, "get_rank", lambda rank=rank: rank)
        # The second process gets what the first one gathered.
        gathered = (lambda items: told.append(items) or items) if rank == 0 else (lambda items: told.pop(0))
        monkeypatch.setattr(processes, "gather_object", gathered)
        ledger = Finished(tmp_path, (name,)).ledger(pgd(ball_threat(BALL), steps=3))
        assert ledger is not None
        paths.append(ledger.path.name)
    assert paths[0].removesuffix(".0.jsonl") == paths[1].removesuffix(".1.jsonl")


def test_stored_rows_that_cannot_be_listed_are_not_taken_for_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured(tmp_path)

    def refusing(path: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

    monkeypatch.setattr(os, "listdir", refusing)
    with pytest.raises(PermissionError):
        measured(tmp_path)
