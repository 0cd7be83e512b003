"""Nothing that came from outside acts on a terminal or a page: escapes, titles, turns of direction, half characters."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.report.made_up import evaluated as classified
from tests.report.made_up import trained
from tests.report.made_up_chat import evaluated, made
from textadv.config.types import ConfigError
from textadv.config.yaml import read_yaml
from textadv.data import DataError, load_splits
from textadv.measuring.accuracy.inspection import Inspected
from textadv.measuring.accuracy.inspection_images import InspectedImage
from textadv.measuring.judges import EndpointError
from textadv.models import ModelError
from textadv.report import from_json, report_html, report_markdown, screen_notes, screen_text, to_json
from textadv.report.frontier import Run, runs_markdown
from textadv.report.grid import write_grid
from textadv.report.side_by_side import FinishedRun, side_by_side
from textadv.runs.errors import ending
from textadv.runs.exporting import write_card
from textadv.values.errors import CheckpointError, GenerationError
from textadv.values.host.phases import OnScreen
from textadv.values.host.printable import acts, printable, shortened, tell
from textadv.values.host.yaml_text import write_yaml

ACTING = {
    "a colour": "\x1b[31m",
    "an 8-bit escape": "\x9b31m",
    "a title": "\x1b]0;title\x07",
    "a link": "\x1b]8;;http://x\x1b\\",
    "a bell": "\x07",
    "a backspace": "\x08",
    "a carriage return": "\r",
    "a form feed": "\x0c",
    "a delete": "\x7f",
    "a zero": "\x00",
    "a next line": "\x85",
    "an override": "\u202e",
    "an embedding": "\u202a",
    "an isolate": "\u2066",
    "a mark": "\u200f",
    "an Arabic mark": "\u061c",
    "a line separator": "\u2028",
    "a byte order mark": "\ufeff",
    "a word joiner": "\u2060",
    "a zero width space": "\u200b",
    "a tag": "\U000e0041",
    "half a character": "\udcff",
    "an annotation": "\ufff9",
}
HARMLESS = [
    "plain text",
    "é ß ñ",
    "日本語",
    "עברית",
    "العربية",
    "नमस्ते",
    "\u0645\u06cc\u200c\u062e\u0648\u0627\u0646",
    "👩\u200d🚀",
    "a\u00a0b",
    "日\u3000本",
    "¿€…—“”",
]
ALL = "".join(ACTING.values())


def harmless(text: str) -> bool:
    return not any(acts(letter) for letter in text.replace("\n", "").replace("\t", ""))


@pytest.mark.parametrize("what", ACTING)
def test_what_acts_is_written_out(what: str) -> None:
    for text in (f"a{ACTING[what]}b", f"日{ACTING[what]}本\n"):
        shown = printable(text)
        assert harmless(shown) and "\n" not in shown and printable(shown) == shown
        assert printable(text, lines=True).endswith(text[-1])
        shown.encode()
    assert ACTING[what] not in shortened(ACTING[what] * 1000) and len(shortened(ACTING[what] * 1000)) < 1000


@pytest.mark.parametrize("text", HARMLESS)
def test_what_does_not_act_stands_as_it_is(text: str) -> None:
    assert printable(text) == text and printable(f"{text}\n\t{text}", lines=True) == f"{text}\n\t{text}"
    assert printable(f"{text}\n{text}") == f"{text}\\n{text}"


@pytest.mark.parametrize(
    "raised", [DataError, ModelError, CheckpointError, EndpointError, GenerationError, lambda text: ConfigError([text])]
)
def test_errors(raised: Callable[[str], Exception]) -> None:
    error = raised(f"the file a{ALL}b is none")
    assert harmless(str(error)) and str(error).startswith("the file a") and r"\x1b[31m" in str(error)


def test_the_last_line_of_a_recipe() -> None:
    assert harmless(str(ending(RuntimeError(f"folder a{ALL}b"))))


def test_what_recipes_print(capsys: pytest.CaptureFixture[str]) -> None:
    tell(f"row {ALL}\n  prompt {ALL}")
    printed = capsys.readouterr().out
    assert harmless(printed) and printed.count("\n") == 2


def test_recipes_and_scripts_print_through_it_alone() -> None:
    root = Path(__file__).parents[2]
    for path in [*root.glob("recipes/*.py"), *root.glob("scripts/*.py")]:
        if path.stem in ("bench_layout", "build_lab_llm", "write_schema"):
            continue  # what they print is their own
        text = path.read_text()
        assert not re.search(r"(?<![\w.])print\(", text), path
        assert "SystemExit(f" not in text or path.stem == "convert_stories260k", path


def test_rows_before_and_after_an_attack(tmp_path: Path) -> None:
    row = Inspected(
        3, f"label{ALL}\nrow 4", (f"a{ALL}", "\n"), (0.0, 0.5), (f"b{ALL}", "\r"), (ALL, 0.9), (f"c{ALL}", 0.6)
    )
    assert harmless(str(row)) and str(row).count("\n") == 2
    image = torch.from_numpy(np.zeros((1, 8, 8), dtype=np.float32))
    picture = InspectedImage(3, f"a{ALL}\n", image, image, 0.5, 0.1, (ALL, 0.9), (ALL, 0.6))
    assert harmless(str(picture)) and "\n" not in str(picture)
    assert write_grid([picture], tmp_path / "a.png").is_file()


def test_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = io.StringIO()
    with OnScreen(stream, patience=0.0, interval=0.01)(f"model {ALL}", 10) as advance:
        advance(3)
        while not stream.getvalue():
            pass
    assert harmless(stream.getvalue()) and "model" in stream.getvalue()


def test_the_card_of_an_adapter(tmp_path: Path) -> None:
    """As PEFT writes it: what YAML must escape is escaped, and turns of direction are not."""
    write_card(tmp_path)
    name = "models/\u202e\u2066\U000e0041x"
    (tmp_path / "README.md").write_text(
        f'---\nbase_model: "{name}"\n---\n# {ALL.replace(chr(0xDCFF), "")}\n', encoding="utf-8"
    )
    write_card(tmp_path)
    card = (tmp_path / "README.md").read_text(encoding="utf-8")
    assert harmless(card) and card.startswith("---\nbase_model: ")
    assert read_yaml(card.split("---")[1], "x") == {"base_model": name}


def test_tables_of_several_runs(tmp_path: Path) -> None:
    """The names of folders: a line end or a bar in one makes no row and no cell more."""
    name = f"a{ALL}\n| b | c"
    chats = runs_markdown([Run(name, 0, evaluated(name, 3, 20).record)])
    model = classified(str(tmp_path / "adapters" / "last"), 18, 9)
    model = replace(model, attacks=(replace(model.attacks[0], name=f"pgd{ALL}|\n"),))
    texts = side_by_side([FinishedRun(name, trained("hardened", 4_000_000, 12.5), {"last": model.record})])
    for table in (chats, texts):
        assert harmless(table) and len(table.splitlines()) == 3
        cells = {len(re.findall(r"(?<!\\)\|", line)) for line in table.splitlines()}
        assert len(cells) == 1


@pytest.mark.parametrize("what", [name for name in ACTING if name != "half a character"])
def test_results_as_json_hold_what_they_held(what: str) -> None:
    told = made(evaluated(f"a{ACTING[what]}b 日本 é", 3, 20), warnings=(ACTING[what],))
    text = to_json(told)
    assert harmless(text) and "日本 é" in text and from_json(text) == told


def test_reports() -> None:
    model = {"model": {"name": f"models/{ALL}"}, "data": {"name": f"{ALL}\nx: <script>"}}
    told = made(evaluated(f"a{ALL}", 3, 20), warnings=(f"warning {ALL}",), config=model)
    for text in (report_html(told), report_markdown(told), screen_text(told), *screen_notes(told)):
        assert harmless(text), [hex(ord(letter)) for letter in text if acts(letter) and letter not in "\n\t"]
        text.encode()
    assert r"\x1b[31m" in report_html(told) and "<script>" not in report_html(told)


@pytest.mark.parametrize("what", [name for name in ACTING if name != "half a character"])
def test_configurations_are_written_without_and_read_again(what: str) -> None:
    data = {
        "a": f"x{ACTING[what]}y",
        "b": [ACTING[what], {f"k{ACTING[what]}": "plain: text"}],
        "c": "line\nline" + ACTING[what] * 200,
    }
    text = write_yaml(data)
    assert harmless(text)
    if what != "a zero":  # which no configuration may hold
        assert read_yaml(text, "x") == data


def test_a_row_of_data(tmp_path: Path) -> None:
    path = tmp_path / "a\x1b[31m\u202eb.csv"
    path.write_text(f"text,label\n{ALL.replace(chr(0xDCFF), '')},1\n", encoding="utf-8")
    with pytest.raises(DataError) as error:
        load_splits("files", train=path, test=path.with_name("\x1b]0;x\x07.csv"))
    assert harmless(str(error.value))
