"""Recipes in real processes on hostile rows, labels, answers and names: nothing of it acts on a terminal or a page."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import yaml
from PIL import Image

from recipes import adv_finetune, attack, evaluate
from tests import chat_run, folders
from tests.processes import ROOT, environment
from tests.recipes.running import SMALL, review_rows
from tests.vision import SIDE, saved, tiny
from textadv.values.host.printable import acts

TITLE, RED, C1, LINK = "\x1b]0;title\x07", "\x1b[31m", "\x9b31m", "\x1b]8;;http://x\x1b\\"
TURNS = "\u202e\u2066\u200f\u061c"
HIDDEN = "\u200b\u2060\ufeff\U000e0041"
NAME = f"f{RED}{C1}{TITLE}{TURNS}{HIDDEN}\r\x08\x7f\u2028g"
"""What may be the name of a file or a folder."""
TEXT = NAME + LINK + "\x00\x85\x0c\n"
LABELS = (f"good{TEXT}", f"bad{TEXT}")
WORDS = (f"{RED}red", f"{TITLE}", f"{TURNS}turned", f"{C1}", "\x00zero", "\rover")
PAGES = (".md", ".html", ".svg", ".yaml", ".json", ".jsonl", ".txt")


def told(*command: object, code: int = 0) -> str:
    """What the command printed, both streams; none of it acts."""
    words = [sys.executable, *map(str, command)]
    done = subprocess.run(words, cwd=ROOT, env=environment(), capture_output=True, timeout=600, check=False)
    shown = [stream.decode("utf-8") for stream in (done.stdout, done.stderr)]
    assert done.returncode == code, ascii("\n".join(shown))[-3000:]
    for text in shown:
        require_harmless(text)
    assert "Traceback" not in shown[1]
    return "\n".join(shown)


def require_harmless(text: str) -> None:
    for line in text.split("\n"):
        assert not any(acts(letter) for letter in line.replace("\t", "")), ascii(line)


def require_harmless_pages(folder: Path) -> None:
    """Every text that a run left, those for programs too."""
    pages = [path for path in folder.rglob("*") if path.suffix in PAGES and "tokenizer" not in path.name]
    assert {"report.md", "report.html", "results.json"} <= {path.name for path in pages}
    for path in pages:
        require_harmless(path.read_text(encoding="utf-8"))


def override(key: str, path: Path) -> str:
    """key=value with the path as YAML writes it, on one line."""
    return f"{key}={yaml.safe_dump(str(path), width=10_000).splitlines()[0]}"


# ---- texts


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """A classifier of hostile labels and tokens in a hostile folder, and the arguments with its rows."""
    folder = tmp_path_factory.mktemp("texts") / NAME
    tokens = folders.tokenizer()
    tokens.add_tokens(list(WORDS))
    model = folders.bert_classifier(folder / "model", LABELS, vocab_size=len(tokens))
    tokens.save_pretrained(model)
    names = {row["label"] for row in review_rows(48)}
    labels = dict(zip(sorted(names), reversed(LABELS), strict=True))
    paths = {}
    for split, first in (("train", 0), ("validation", 24), ("test", 36)):
        paths[split] = folder / f"{split}{NAME}.jsonl"
        rows = review_rows(48)[first : first + 24]
        hostile = [
            {"text": f"{WORDS[n % len(WORDS)]} {row['text']} {TEXT}", "label": labels[row["label"]]}
            for n, row in enumerate(rows[:12])
        ]
        chat_run.write_rows(paths[split], hostile)
    data = yaml.safe_dump({"name": "files", "max_length": 48} | {key: str(path) for key, path in paths.items()})
    small = yaml.safe_load((ROOT / SMALL).read_text()) | {"data": yaml.safe_load(data)}
    config = folder / f"{NAME}.yaml"
    config.write_text(yaml.safe_dump(small))
    return model, [str(config), "selection.rows=4", "evaluation.rows=6"]


def test_attack_on_texts(texts: tuple[Path, list[str]]) -> None:
    model, arguments = texts
    shown = told("recipes/attack.py", *arguments, "--model", model, "--rows", "6")
    assert "(6 rows shown)" in shown and shown.count("label good") + shown.count("label bad") == 6
    assert r"\x1b[31mred" in shown and r"f\x1b[31m\x9b31m\x1b]0;title\x07\u202e" in shown and r"\x00zero" in shown


@pytest.mark.slow
def test_training_and_evaluation_on_texts(texts: tuple[Path, list[str]], tmp_path: Path) -> None:
    model, arguments = texts
    output = tmp_path / NAME
    longer = ["tracking.progress=true", "baselines=[same_steps]", "evaluation.radii=[0.1, 0.2]"]
    told("recipes/adv_finetune.py", *arguments, *longer, override("output", output), override("model.name", model))
    require_harmless_pages(output)
    both = ["--model", model, "--model", output / "merged"]
    shown = told("recipes/evaluate.py", *arguments, *both, "--output", tmp_path / f"second{NAME}")
    assert r"second\x1b" not in shown and r"secondf\x1b[31m" in shown
    require_harmless_pages(tmp_path / f"second{NAME}")


# ---- images


@pytest.mark.slow
def test_images(tmp_path: Path) -> None:
    """The names of folders are those of classes."""
    root = tmp_path / f"images{NAME}"
    for split in ("train", "test"):
        for place, name in enumerate((f"a{NAME}", f"b{NAME}")):
            (root / split / name).mkdir(parents=True)
            for number in range(6):
                pixels = np.full((SIDE, SIDE, 3), 40 * number + 9 * place, np.uint8)
                Image.fromarray(pixels).save(root / split / name / f"{number}{NAME}.png")
    model = tiny("resnet", classes=2)
    model.config.id2label = {0: f"a{NAME}", 1: f"b{NAME}"}
    model.config.label2id = {name: n for n, name in model.config.id2label.items()}
    folder = saved(model, tmp_path / f"model{NAME}")
    settings = yaml.safe_load((ROOT / "tests/recipes/small_images.yaml").read_text())
    settings |= {"data": {"name": "files", "path": str(root), "channels": 3, "validation_fraction": 0.5}}
    settings["evaluation"] |= {"rows": 4}
    settings["selection"] |= {"rows": 4}
    settings["training"] |= {"batch_size": 4}
    config = tmp_path / f"{NAME}.yaml"
    config.write_text(yaml.safe_dump(settings))

    picture = tmp_path / f"shown{NAME}" / f"a{NAME}.png"
    shown = told("recipes/attack.py", config, "--model", folder, "--rows", "3", "--picture", picture)
    assert picture.is_file() and r"label af\x1b[31m" in shown and r"label bf\x1b[31m" in shown
    output = tmp_path / f"run{NAME}"
    told("recipes/adv_finetune.py", config, override("output", output), override("model.name", folder))
    require_harmless_pages(output)
    told("recipes/evaluate.py", config, "--model", output / "merged", "--output", tmp_path / f"second{NAME}")
    require_harmless_pages(tmp_path / f"second{NAME}")


# ---- chats


def hostile_chats(folder: Path) -> Path:
    """Streams of hostile prompts and a model that says hostile things to them; the configuration."""
    data = chat_run.data()
    for name, rows in data.items():
        changed = [
            {key: f"{value}{TEXT}" if key in ("prompt", "target", "response") else value for key, value in row.items()}
            for row in rows
        ]
        chat_run.write_rows(folder / f"{name}.jsonl", rows if name.endswith("s_test") else changed)
    sayings = [
        (f"{text}{TEXT}", chat_run.REFUSAL if text.startswith(chat_run.REFUSED) else f"Sure{RED}{TITLE}{TURNS}\x00\r.")
        for text in chat_run.prompts()
    ]
    added = (RED, TITLE, C1, "\x00", "\r", *TURNS)
    template = str(chat_run.tokenizer().chat_template)
    model = chat_run.save_speaking(folder / f"model{NAME}", template, sayings, added=added)
    settings = chat_run.settings(folder, model)
    settings["data"]["max_length"] = chat_run.CONTEXT - 12  # type: ignore[index]
    config = folder / f"{NAME}.yaml"
    config.write_text(yaml.safe_dump(settings, sort_keys=False))
    return config


@pytest.mark.slow
def test_chats(tmp_path: Path) -> None:
    config, short = hostile_chats(tmp_path), [*chat_run.BRIEF, "selection.max_new_tokens=8"]
    model = tmp_path / f"model{NAME}"
    shown = told("recipes/attack.py", config, *short, "--model", model, "--rows", "2")
    assert shown.count("  prompt    ") == 2 and r"f\x1b[31m\x9b31m\x1b]0;title\x07\u202e" in shown
    assert r"Sure\x1b[31m\x1b]0;title\x07" in shown
    output = tmp_path / f"run{NAME}"
    told("recipes/adv_finetune.py", config, *short, override("output", output))
    require_harmless_pages(output)
    told("recipes/evaluate.py", config, *short, "--model", model, "--output", tmp_path / f"second{NAME}")
    require_harmless_pages(tmp_path / f"second{NAME}")
    told("scripts/frontier.py", output, "--output", tmp_path / f"frontier{NAME}")
    for path in (tmp_path / f"frontier{NAME}").iterdir():
        require_harmless(path.read_text(encoding="utf-8"))


# ---- command lines

MISTAKES = {
    "a model": ("--model", f"none{NAME}"),
    "an attack": ("--attack", f"none{NAME}"),
    "a number": ("--rows", f"none{NAME}"),
    "an option": (f"--none{NAME}", "x"),
    "a file": (f"data.train=none{NAME}",),
    "a key": (f"threat.{NAME}=1",),
}


@pytest.mark.parametrize("module", [adv_finetune, attack, evaluate], ids=["adv_finetune", "attack", "evaluate"])
@pytest.mark.parametrize("mistake", MISTAKES)
def test_mistakes_in_a_command_line(
    mistake: str,
    module: ModuleType,
    texts: tuple[Path, list[str]],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """What a shell makes of a pattern may be hostile names too."""
    model, (config, *_) = texts
    needed = [] if module is adv_finetune else ["--model", str(model)]
    needed += ["--output", str(model.parent / "out")] if module is evaluate else []
    monkeypatch.setattr(sys, "argv", [f"{module.__name__}.py", config, *needed, *MISTAKES[mistake]])
    with pytest.raises(SystemExit) as ended:
        module.main()
    printed = capsys.readouterr()
    require_harmless(f"{ended.value.code}\n{printed.out}\n{printed.err}")
    assert ended.value.code not in (0, None)
