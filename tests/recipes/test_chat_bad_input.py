"""Input of a chat run that cannot work: one message that says what to change, and nothing trained before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from recipes import adv_finetune, attack, evaluate
from tests import chat_run, folders
from tests.recipes.running import Recipe, refused
from tests.seen import read_chat_results


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def not_started(recipe: Recipe, config: Path, output: Path, *extra: str) -> str:
    """The message of a chat run that must not start."""
    return refused(recipe, output, str(config), *chat_run.BRIEF, *extra)


def test_a_classifier_as_judge_must_have_the_class(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    judge = folders.bert_classifier(tmp_path / "judge", ("fine", "bad"))
    extra = f"evaluation.classifier_judge={{model: {judge}, harmful: worse}}"
    said = not_started(recipe, config, tmp_path / "run", extra)
    assert "evaluation.classifier_judge: harmful: 'worse' is no class of the model, which has fine, bad" in said


# ---- data


def with_first(folder: Path, stream: str, changes: Mapping[str, object]) -> str:
    """The override that makes `stream` train on rows of which the second has these changes."""
    first, second, *rest = chat_run.data()[f"{stream}_train"]
    path = chat_run.write_rows(folder / "changed.jsonl", [first, {**second, **changes}, *rest])
    return f"data.{stream}.train={path}"


@pytest.mark.parametrize(
    ("stream", "changes", "told"),
    [
        ("adversarial", {"prompt": " "}, "data.adversarial.columns.prompt: row 1 (counted from 0)"),
        ("adversarial", {"target": ""}, "data.adversarial.columns.target: row 1"),
        ("adversarial", {"safe": []}, "data.adversarial.columns.safe: row 1"),
        ("utility", {"response": ""}, "data.utility.columns.response: row 1"),
        ("borderline", {"prompt": ""}, "data.borderline.columns.prompt: row 1"),
        ("adversarial", {"target": "do it " * 60}, "data.adversarial: row 1"),
    ],
)
def test_rows(
    config: Path, tmp_path: Path, recipe: Recipe, stream: str, changes: Mapping[str, object], told: str
) -> None:
    extra = with_first(tmp_path, stream, changes)
    said = not_started(recipe, config, tmp_path / "run", extra, f"data.{stream}.train_rows=null")
    assert told in said and "changed.jsonl" in said
    if changes.get("target"):
        assert "data.max_length: 80" in said and "shorten the target" in said


def test_streams_without_test_rows(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    for stream in ("adversarial", "utility", "borderline"):
        said = not_started(recipe, config, tmp_path / "run", f"data.{stream}.test=null")
        assert f"data.{stream}: no test rows. Name data.{stream}.test, or hold some out" in said


def test_averages_from_beyond_the_epochs(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    extra = "training={epochs: 1, steps: null, averaging: {start: 999}}"
    said = not_started(recipe, config, tmp_path / "run", extra)
    assert "training.averaging.start must be at most the " in said
    assert said.rstrip().endswith("optimizer steps that training.epochs: 1 makes, got 999: nothing would be averaged.")


TEMPLATES = {
    "no assistant start": (
        "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>{% endfor %}",
        "model.chat_template",
    ),
    "an answer left out": (
        "{% for m in messages if m.role == 'user' %}<|user|>{{ m.content }}<|end|>{% endfor %}",
        "model.chat_template",
    ),
    "no such roles": ("{{ raise_exception('only cats may speak') }}", "only cats may speak"),
}


@pytest.mark.parametrize(("template", "told"), TEMPLATES.values(), ids=TEMPLATES)
def test_templates(config: Path, tmp_path: Path, recipe: Recipe, template: str, told: str) -> None:
    (tmp_path / "mine.jinja").write_text(template)
    said = not_started(recipe, config, tmp_path / "run", f"model.chat_template={tmp_path / 'mine.jinja'}")
    assert told in said and "model.chat_template" in said


def test_a_tokenizer_without_template_and_one_supplied(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    folder = chat_run.save_taught(tmp_path / "model")
    (folder / "chat_template.jinja").rename(tmp_path / "mine.jinja")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    said = not_started(recipe, config, tmp_path / "run", f"model.name={folder}")
    assert "the tokenizer has no chat template" in said and "Supply one with model.chat_template" in said
    supplied = (f"model.name={folder}", f"model.chat_template={tmp_path / 'mine.jinja'}", "training.steps=1")
    ended = recipe(adv_finetune, str(config), f"output={tmp_path / 'run'}", *chat_run.BRIEF, *supplied)
    assert ended.code == 0, ended.error
    assert (tmp_path / "run" / "merged" / "chat_template.jinja").read_text() == (tmp_path / "mine.jinja").read_text()


def test_rows_longer_than_the_model_takes(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    long = with_first(tmp_path, "utility", {"response": "again " * 400})
    folder = chat_run.save_untaught(tmp_path / "gpt2", "gpt2")
    extra = (long, "data.utility.train_rows=null", "data.max_length=300", f"model.name={folder}")
    said = not_started(recipe, config, tmp_path / "run", *extra)
    assert "data.max_length: 300 lets rows of 300 tokens through" in said and "Lower data.max_length to 96." in said


# ---- the output folder


def test_another_run_in_the_folder_is_left_alone(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    brief = (str(config), f"output={tmp_path}", *chat_run.BRIEF, "training.steps=1")
    assert recipe(adv_finetune, *brief).code == 0
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    other = recipe(adv_finetune, *brief, "objective.parts=[{name: capo}]")
    assert other.code == 1 and "objective.parts: " in other.error and "Name another output folder" in other.error
    resumed = recipe(adv_finetune, *brief, "attack.steps=5", "checkpoint.resume=true")
    assert resumed.code == 1 and "attack.steps: 2 -> 5" in resumed.error and "Undo them" in resumed.error
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_the_other_recipes_tell_too(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    taught = str(config.parent / "model")
    for models in (["runs/no/model"], [taught, "runs/no/model"]):
        named = [part for name in models for part in ("--model", name)]
        ended = recipe(evaluate, str(config), *named, "--output", str(tmp_path))
        assert ended.code == 1 and "there is no folder" in ended.error and "breaks" not in ended.printed
    for extra, told in ((["--attack", "x"], "--attack x is not among"), (["--rows", "0"], "--rows must be at least 1")):
        ended = recipe(attack, str(config), "--model", taught, *extra)
        assert ended.code == 1 and told in ended.error


# ---- judges that give no verdict


class Handler(BaseHTTPRequestHandler):
    """Answers every request with the server's text, or with its error."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        content = json.dumps({"choices": [{"message": {"content": "a riddle"}}]}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *args: object) -> None:
        """Silence."""


@contextmanager
def serving() -> Iterator[str]:
    """The address of a judge that answers nonsense."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.mark.parametrize("answering", [False, True], ids=["unreachable", "nonsense"])
def test_a_judge_that_gives_no_verdict_does_not_end_the_run(
    config: Path, tmp_path: Path, recipe: Recipe, answering: bool
) -> None:
    with serving() as url:
        pass
    with serving() as live:
        judge = f"{{endpoint: '{live if answering else url}', endpoint_model: tiny, key_variable: null, retries: 0}}"
        brief = (*chat_run.BRIEF, "training.steps=1", f"evaluation.llm_judge={judge}")
        ended = recipe(adv_finetune, str(config), f"output={tmp_path}", *brief)
    assert ended.code == 0, ended.error
    for model in read_chat_results(tmp_path).evaluations:
        second = [m for m in model.measures if m.name.endswith("(llm:harmbench)")]
        assert [m.name.split(" (")[0] for m in second] == [
            "direct",
            "prefill 2",
            "prefill 5",
            "embedding",
            "worst case",
        ]
        for measure in second:
            assert (measure.value, measure.total) == (0, 2)
            assert "up to 100.0 % if 2 unclear ones are broken" in measure.note
