"""The metrics for `evaluate`: counts by hand, rows in parts, and loading by path without a network."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path

import evaluate
import pytest

from textadv.measuring.metrics import AttackSuccessRate, RobustAccuracy, metric_path

# Rows: right and kept, right and broken, right and broken, wrong and stays wrong, right and kept.
REFERENCES = [0, 1, 2, 1, 2]
CLEAN = [0, 1, 2, 0, 2]
ATTACKED = [0, 0, 1, 0, 2]


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """evaluate writes Arrow files and copies of metric modules: not into the user's home."""
    monkeypatch.setattr(evaluate.config, "HF_METRICS_CACHE", str(tmp_path / "metrics"))
    monkeypatch.setattr(evaluate.config, "HF_MODULES_CACHE", str(tmp_path / "modules"))


def test_robust_accuracy_counts_all_rows() -> None:
    """2 of 5 right: Wilson interval 11.8 % to 76.9 %."""
    result = RobustAccuracy().compute(predictions=ATTACKED, references=REFERENCES)
    assert (result["count"], result["total"], result["rate"]) == (2, 5, 0.4)
    assert (round(result["low"], 3), round(result["high"], 3)) == (0.118, 0.769)


def test_attack_success_leaves_out_rows_that_were_wrong_before() -> None:
    """4 rows right without the attack, 2 of them broken: Wilson interval 15.0 % to 85.0 %."""
    result = AttackSuccessRate().compute(predictions=ATTACKED, references=REFERENCES, clean_predictions=CLEAN)
    assert (result["count"], result["total"], result["rate"]) == (2, 4, 0.5)
    assert (round(result["low"], 3), round(result["high"], 3)) == (0.150, 0.850)


def test_no_row_gives_nan_and_zero_counts() -> None:
    empty = RobustAccuracy().compute(predictions=[], references=[])
    assert math.isnan(empty["rate"])
    assert (empty["count"], empty["total"], empty["low"], empty["high"]) == (0, 0, 0.0, 1.0)


@pytest.mark.parametrize("clean", [[], [1, 0]])
def test_success_without_a_row_to_break_is_nan(clean: list[int]) -> None:
    references = [0, 1][: len(clean)]
    result = AttackSuccessRate().compute(predictions=clean, references=references, clean_predictions=clean)
    assert math.isnan(result["rate"])
    assert (result["count"], result["total"]) == (0, 0)


def test_rows_added_in_parts_count_together() -> None:
    metric = RobustAccuracy()
    metric.add_batch(predictions=ATTACKED[:2], references=REFERENCES[:2])
    metric.add(prediction=ATTACKED[2], reference=REFERENCES[2])
    assert metric.compute()["rate"] == pytest.approx(1 / 3)


def test_unequal_lengths_are_refused() -> None:
    with pytest.raises(ValueError, match="references"):
        RobustAccuracy().compute(predictions=[0, 1], references=[0])


def test_unknown_metric_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="attack_success_rate, robust_accuracy"):
        metric_path("accuracy")


LOAD = """
import sys
import evaluate
robust = evaluate.load(sys.argv[1]).compute(predictions=[0, 1], references=[0, 0])
success = evaluate.load(sys.argv[2]).compute(predictions=[0, 1], references=[0, 0], clean_predictions=[0, 0])
print(robust["rate"], robust["total"], success["rate"], success["total"])
"""


@pytest.mark.parametrize("suffix", ["", "/{name}.py"])
def test_load_by_path_works_offline_from_any_folder(suffix: str, tmp_path: Path) -> None:
    places = [metric_path(name) + suffix.format(name=name) for name in ("robust_accuracy", "attack_success_rate")]
    # The package need not be installed where the tests run from a checkout.
    source = str(Path(metric_path("robust_accuracy")).parents[3])
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "home"), "PYTHONPATH": source}
    done = subprocess.run(
        [sys.executable, "-c", LOAD, *places],
        env=environment,
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["0.5", "2", "0.5", "2"]


def test_the_package_itself_does_not_import_evaluate() -> None:
    script = "import sys, textadv; sys.exit('evaluate' in sys.modules)"
    source = Path(metric_path("robust_accuracy")).parents[3]
    assert subprocess.run([sys.executable, "-c", script], cwd=source, timeout=120).returncode == 0
