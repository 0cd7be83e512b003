"""The card beside a trained model says what it is, and nothing of a form that nobody filled in."""

from __future__ import annotations

from pathlib import Path

from tests.processes import ROOT
from textadv.measuring import Training
from textadv.runs.described import described, sources
from textadv.runs.exporting import write_card
from textadv.tasks.file import load_config

SMALL = str(ROOT / "tests/recipes/small.yaml")
PEFT = "---\nbase_model: lab\nlibrary_name: peft\n---\n\n" + (
    "# Model Card for Model ID\n\n- **License:** [More Information Needed]\n"
)


def test_the_form_of_peft_gives_way_to_what_is_known_and_its_head_stays(tmp_path: Path) -> None:
    card = tmp_path / "README.md"
    card.write_text(PEFT, encoding="utf-8")
    write_card(tmp_path, "# hardened\n\nfacts\n")
    assert card.read_text(encoding="utf-8") == (
        "---\nbase_model: lab\nlibrary_name: peft\n---\n\n# hardened\n\nfacts\n"
    )
    card.unlink()
    write_card(tmp_path, "# hardened\n")
    assert card.read_text(encoding="utf-8") == "# hardened\n", "a merged model has a card as well"


def test_what_it_was_trained_on_and_with() -> None:
    data = ["data.name=files", "data.train=[a.csv, b.csv]", "data.test=t.csv", "data.labels=[no, yes]"]
    detection = "evaluation.detection={positive: yes, false_positives: [0.05]}"
    config = load_config(SMALL, ["output=runs/x", *data, detection.replace("yes", "'yes'")])
    training = Training("hardened", "adversarial", 50, 400, 200, 1, 1, 1.0, "robust-best", 40, None, None)
    told = described(config, training, "L2 ball per token, radius 0.2", attacked=True)
    for part in (
        "# hardened\n",
        f"- base model: `{config.model.name}`\n",
        "- trained on, as configured: `data.train`: a.csv, b.csv\n",
        "- objective: adversarial, 50 optimizer steps\n- selected checkpoint: robust-best, of step 40\n",
        "- rows attacked in training: within L2 ball per token, radius 0.2\n",
        "with the thresholds of class yes",
    ):
        assert part in told, part
    plain = described(config, training, "L2 ball", attacked=False)
    assert "- rows attacked in training: none: a plain fine-tune" in plain and "L2 ball" not in plain


def test_sources_of_streams_stand_under_their_keys() -> None:
    data = {"adversarial": {"name": "files", "train": "a.jsonl"}, "utility": {"name": "lab/hub", "train": None}, "x": 3}
    assert [*sources(data)] == ["`data.adversarial.train`: a.jsonl", "`data.utility.name`: lab/hub"]
