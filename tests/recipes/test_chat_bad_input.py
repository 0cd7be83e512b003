"""Input of a chat run that cannot work: one message that says what to change, and nothing trained before it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from recipes import adv_finetune, attack, evaluate
from tests import chat_run, folders
from tests.recipes.running import Recipe
from tests.seen import read_chat_results


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return chat_run.prepared(tmp_path_factory.mktemp("chat"))


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def refused(recipe: Recipe, config: Path, output: Path, *extra: str) -> str:
    """The message of a run that must not start."""
    ended = recipe(adv_finetune, str(config), f"output={output}", *chat_run.BRIEF, *extra)
    assert ended.code == 1, ended.printed
    assert ended.error.startswith("error: ") and "Traceback" not in ended.error
    left = [path for path in output.rglob("*") if path.is_file()] if output.exists() else []
    assert left == [] and "breaks" not in ended.printed and "step" not in ended.printed
    return ended.error


CONFIGURATION = {
    "an unknown part": (["objective.parts=[{name: catt}]"], "Did you mean cat?"),
    "a ratio above 1": (["mixing.ratio=1.5"], "mixing.ratio must be at most 1, got 1.5"),
    "a ratio below 0": (["mixing.ratio=-0.1"], "mixing.ratio must be at least 0, got -0.1"),
    "a ratio of no row": (["mixing.ratio=0.01"], "mixing.ratio 0.01 of training.batch_size 8 gives none"),
    "no borderline": (["data.borderline=null"], "mixing.borderline_share needs data.borderline, which is missing"),
    "kl without adapter": (["objective.parts=[{name: cat}, {name: kl}]", "model.lora=null"], "model.lora is null"),
    "lat in embeddings": (["objective.parts=[{name: lat}]"], "Set threat.space: several and threat.layers"),
    "averaging nothing": (["training.averaging.start=999"], "training.averaging.start must be at most"),
    "checkpoints between defence steps": (
        ["objective.defence_steps=4", "checkpoint.every=6"],
        "checkpoint.every must be a multiple of 4",
    ),
    "a layer that is not there": (
        ["threat={space: hidden, layer: 7, radius: 0.1}"],
        "threat.layer must be at most 1 for this model of 2 blocks, got 7",
    ),
    "the last layer": (["threat={space: hidden, layer: 1, radius: 0.1}"], "reaches no token of the answer"),
    "the last layer of several": (["threat={space: several, layers: [0, 1], radius: 0.1}"], "Name blocks 0 to 0"),
    "blocks that are not rerouted": (["objective.parts=[{name: rerouting, layers: [2]}]"], "must name blocks 0 to 1"),
    "no block to ablate": (["objective.parts=[{name: refusal_direction, first_layer: 1}]"], "leaves none of 2 blocks"),
    "a recovery without its attack": (
        ["objective.parts=[{name: prefill_recovery, perturbed: true}]"],
        "needs a part that attacks, such as cat",
    ),
    "parts without weight": (["objective.parts=[{name: cat, away: 0, toward: 0}]"], "objective.parts is empty"),
    "nothing on utility": (["objective.utility=0"], "objective.utility: 0 leaves nothing to train on utility rows"),
    "a goal of its own": (["attack.goal=margin"], "attack.goal: margin is not for cat, capo and lat"),
    "a clean loss twice": (
        ["objective.parts=[{name: supervised}]", "mixing.policy=pair"],
        "mixing.policy: pair counts the safe answer at the plain prompt twice",
    ),
    "noise as a measuring attack": (
        ["evaluation.elicitation={attack: {name: noise}}"],
        "evaluation.elicitation.attack.name must be pgd, fgsm or r_fgsm, got noise",
    ),
    "restarts of a measuring attack": (
        ["selection.attack={steps: 2, restarts: 2}"],
        "selection.attack: leave restarts",
    ),
    "samples of one answer": (["evaluation.samples=3"], "evaluation.samples: 3 at evaluation.temperature: 0"),
    "questions of an unknown format": (
        ["evaluation.questions={riddles: riddles.csv}"],
        "evaluation.questions.riddles: the name must begin with the format of the file, one of",
    ),
    "questions that are not there": (["evaluation.questions={arc_mine: runs/no.jsonl}"], "runs/no.jsonl"),
    "a benign file that is not there": (["evaluation.over_refusal={mine: runs/no.csv}"], "runs/no.csv"),
    "a missing model folder": (["model.name=runs/nothing/here"], "there is no folder runs/nothing/here"),
    "a judge that is not there": (
        ["evaluation.llm_judge={model: runs/no/judge}"],
        "evaluation.llm_judge: ",
    ),
    "a judge's key that is not set": (
        ["evaluation.llm_judge={endpoint: 'http://127.0.0.1:9/v1', endpoint_model: m, key_variable: NO_SUCH_KEY}"],
        "evaluation.llm_judge: the environment variable NO_SUCH_KEY (key_variable) is not set",
    ),
    "a judge's address": (
        ["evaluation.llm_judge={endpoint: 'ftp://x', endpoint_model: m, key_variable: null}"],
        "must start with http:// or https://",
    ),
    "a template that is not there": (["model.chat_template=runs/no.jinja"], "model.chat_template: runs/no.jinja"),
    "4 bits of a whole model": (["model.quantization=4bit"], "model.quantization: 4bit needs the package bitsandbytes"),
    "a resume of nothing": (["checkpoint.resume=true"], "holds no run. Set checkpoint.resume: false"),
    "too short rows": (["data.max_length=8"], "data.max_length: 8"),
    "a target longer than a row": (["data.max_length=20"], "data.max_length: 20. Raise it"),
}


@pytest.mark.parametrize(("extra", "told"), CONFIGURATION.values(), ids=CONFIGURATION)
def test_configuration(config: Path, tmp_path: Path, recipe: Recipe, extra: Sequence[str], told: str) -> None:
    assert told in refused(recipe, config, tmp_path / "run", *extra)


def test_a_classifier_as_judge_must_have_the_class(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    judge = folders.bert_classifier(tmp_path / "judge", ("fine", "bad"))
    extra = f"evaluation.classifier_judge={{model: {judge}, harmful: worse}}"
    told = refused(recipe, config, tmp_path / "run", extra)
    assert "evaluation.classifier_judge: harmful: 'worse' is no class of the model, which has fine, bad" in told


# ---- data


def with_first(config: Path, folder: Path, stream: str, changes: Mapping[str, object]) -> str:
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
    extra = with_first(config, tmp_path, stream, changes)
    said = refused(recipe, config, tmp_path / "run", extra, f"data.{stream}.train_rows=null")
    assert told in said and "changed.jsonl" in said
    if changes.get("target"):
        assert "data.max_length: 80" in said and "shorten the target" in said


def test_streams_without_test_rows(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    for stream in ("adversarial", "utility", "borderline"):
        said = refused(recipe, config, tmp_path / "run", f"data.{stream}.test=null")
        assert f"data.{stream}: no test rows. Name data.{stream}.test, or hold some out" in said


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
    said = refused(recipe, config, tmp_path / "run", f"model.chat_template={tmp_path / 'mine.jinja'}")
    assert told in said and "model.chat_template" in said


def test_a_tokenizer_without_template_and_one_supplied(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    folder = chat_run.save_taught(tmp_path / "model")
    (folder / "chat_template.jinja").rename(tmp_path / "mine.jinja")
    settings = json.loads((folder / "tokenizer_config.json").read_text())
    settings.pop("chat_template", None)
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    said = refused(recipe, config, tmp_path / "run", f"model.name={folder}")
    assert "the tokenizer has no chat template" in said and "Supply one with model.chat_template" in said
    supplied = (f"model.name={folder}", f"model.chat_template={tmp_path / 'mine.jinja'}", "training.steps=1")
    ended = recipe(adv_finetune, str(config), f"output={tmp_path / 'run'}", *chat_run.BRIEF, *supplied)
    assert ended.code == 0, ended.error
    assert (tmp_path / "run" / "merged" / "chat_template.jinja").read_text() == (tmp_path / "mine.jinja").read_text()


def test_rows_longer_than_the_model_takes(config: Path, tmp_path: Path, recipe: Recipe) -> None:
    long = with_first(config, tmp_path, "utility", {"response": "again " * 400})
    folder = chat_run.save_untaught(tmp_path / "gpt2", "gpt2")
    extra = (long, "data.utility.train_rows=null", "data.max_length=300", f"model.name={folder}")
    said = refused(recipe, config, tmp_path / "run", *extra)
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
