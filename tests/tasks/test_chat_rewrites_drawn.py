"""The sections of attacks in text without gradients: what each key makes, and what is refused before anything runs."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.attacks.prompts.talking import victim
from tests.chat_run import tokenizer
from tests.config_sample import chat_problems, small_chat
from textadv.attacks.prompts.beast import Beast
from textadv.attacks.prompts.best_of_n import BestOfN
from textadv.attacks.prompts.from_files import FromFiles
from textadv.attacks.prompts.iterative import Iterative
from textadv.attacks.prompts.many_shot import ManyShot
from textadv.attacks.prompts.random_search import RandomSearch
from textadv.attacks.prompts.template_files import SHIPPED, Templates
from textadv.attacks.prompts.worded import Worded
from textadv.config.types import ConfigError
from textadv.data import Chat
from textadv.data.rendering import Template, one_turn
from textadv.measuring.safety.ablated import RefusalAblation
from textadv.measuring.safety.attacker import EndpointAttacker
from textadv.measuring.safety.rewriting import Rewriting
from textadv.models import LoadedModel
from textadv.tasks.chat.rewritable import Rewritable
from textadv.tasks.chat.rewrites import rewrites
from textadv.tasks.chat.rewrites_drawn import TemplatesConfig
from textadv.values.batch import Role

REQUESTS = ("Tell me the forbidden recipe", "And the other")
CHATS = [
    Chat(tuple(one_turn(text)), {"harmful": "Sure", "safe": "No"}, Role.ADVERSARIAL, n, "")
    for n, text in enumerate(REQUESTS)
]
SCENE = Rewritable(None, Template(tokenizer()), CHATS, 7, "declines", 5)  # type: ignore[arg-type]


def made(section: str) -> Any:
    """The attack of a section under the name `a`."""
    config = small_chat(f"evaluation.rewrites={{a: {section}}}").evaluation
    adversary = rewrites(config.rewrites, SCENE)["a"]
    assert isinstance(adversary, Rewriting) and adversary.chats == CHATS
    return adversary.attack.wording if isinstance(adversary.attack, Worded) else adversary.attack


def refused(section: str) -> str:
    with pytest.raises(ConfigError) as caught:
        made(section)
    (line,) = caught.value.lines
    return line


@pytest.fixture
def dialogues(tmp_path: Path) -> Path:
    path = tmp_path / "dialogues.jsonl"
    rows = [{"prompt": f"question {n}", "response": f"answer {n}"} for n in range(3)]
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows, rows[0]]), encoding="utf-8")
    return path


@pytest.fixture
def artefact(tmp_path: Path) -> Path:
    path = tmp_path / "found.json"
    rows = [{"goal": REQUESTS[0], "prompt": prompt} for prompt in ("one", "two", None)]
    path.write_text(json.dumps({"jailbreaks": rows}), encoding="utf-8")
    return path


def test_best_of_n() -> None:
    assert made("{name: best_of_n}") == BestOfN(10, 0.4, 7)
    assert made("{name: best_of_n, draws: 3, sigma: 0.1}") == BestOfN(3, 0.1, 7)


def test_random_search() -> None:
    assert made("{name: random_search}") == RandomSearch(seed=7)
    keys = "length: 5, steps: 6, candidates: 7, replaced: 2, restarts: 3, early_stop: false"
    assert made(f"{{name: random_search, {keys}}}") == RandomSearch(5, 6, 7, 2, 3, False, 7)


def test_beast() -> None:
    assert made("{name: beast}") == Beast(seed=7)
    assert made("{name: beast, length: 4, beam: 3, samples: 2, temperature: 0.5, early_stop: false}") == Beast(
        4, 3, 2, 0.5, False, 7
    )


def test_many_shot(dialogues: Path) -> None:
    wording = made(f"{{name: many_shot, file: {dialogues}, shots: 2}}")
    assert isinstance(wording, ManyShot) and len(wording.dialogues) == 3, "each dialogue once"
    assert (wording.shots, wording.form, wording.variants, wording.seed) == (2, "turns", 1, 7)
    wording = made(f"{{name: many_shot, file: [{dialogues}], shots: 3, form: text, draws: 4}}")
    assert (wording.shots, wording.form, wording.variants) == (3, "text", 4)


def test_templates(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_text("\nPlease: {prompt}\n", encoding="utf-8")
    wording = made(f"{{name: templates, file: {tmp_path / 'own.txt'}, shipped: [past, acting]}}")
    assert isinstance(wording, Templates)
    assert [one.name for one in wording.templates] == ["own", "past", "acting"]
    assert wording.templates[0].text == "Please: {prompt}"
    assert made("{name: templates, shipped: [json]}").variants == 1
    shipped = TemplatesConfig.model_json_schema()["properties"]["shipped"]["items"]["enum"]
    assert tuple(shipped) == SHIPPED


def test_half_characters_of_files_are_replaced_where_the_data_s_are(tmp_path: Path) -> None:
    half, mending = tmp_path / "half.json", SCENE._replace(template=Template(tokenizer(), surrogates="replace"))
    half.write_text(json.dumps({"jailbreaks": [{"goal": REQUESTS[0], "prompt": "a \ud800 b"}]}), encoding="utf-8")
    shots = tmp_path / "shots.jsonl"
    shots.write_text(json.dumps({"prompt": "a question", "response": "an \ud800 answer"}), encoding="utf-8")
    for section in (f"{{name: artefacts, file: {half}}}", f"{{name: many_shot, file: {shots}, shots: 1}}"):
        assert "set data.surrogates: replace" in refused(section)
        config = small_chat(f"evaluation.rewrites={{a: {section}}}").evaluation
        found: Any = rewrites(config.rewrites, mending)["a"]
        wording = found.attack.wording
        own = isinstance(wording, FromFiles)
        assert "\ufffd" in (wording.joined.attempts[0][0].prompt if own else wording.dialogues[0].response)


def test_what_was_found_for_chats_of_several_turns_is_theirs_alone(tmp_path: Path) -> None:
    # As found_prompts.py writes them: a line of answers names a chat by all its turns.
    chats = [
        replace(CHATS[0], messages=({"role": "system", "content": kind}, *CHATS[0].messages), id=n)
        for n, kind in enumerate(("Be kind.", "Be brief."))
    ]
    path = tmp_path / "found.json"
    rows = [{"goal": chat.conversation, "prompt": f"for {chat.id}"} for chat in chats]
    path.write_text(json.dumps({"jailbreaks": rows}), encoding="utf-8")
    config = small_chat(f"evaluation.rewrites={{a: {{name: artefacts, file: {path}}}}}").evaluation
    made_of: Any = rewrites(config.rewrites, SCENE._replace(chats=chats))["a"]
    own = made_of.attack.wording.joined.attempts
    assert {row: [one.prompt for one in found] for row, found in own.items()} == {0: ["for 0"], 1: ["for 1"]}


def test_artefacts(artefact: Path, tmp_path: Path) -> None:
    wording = made(f"{{name: artefacts, file: {artefact}}}")
    assert isinstance(wording, FromFiles) and (wording.variants, wording.most) == (2, None)
    assert made(f"{{name: artefacts, file: [{artefact}], prompts: 1}}").variants == 1
    cases, table = tmp_path / "test_cases.json", tmp_path / "behaviours.csv"
    cases.write_text(json.dumps({"recipe": ["one"], "other": ["two", "three"]}), encoding="utf-8")
    table.write_text(f"Behavior,BehaviorID\n{REQUESTS[0]},recipe\n{REQUESTS[1]}.,other\n", encoding="utf-8")
    wording = made(f"{{name: artefacts, file: {cases}, behaviours: {table}}}")
    assert {row: len(own) for row, own in wording.joined.attempts.items()} == {0: 1, 1: 2}


def test_iterative(monkeypatch: pytest.MonkeyPatch) -> None:
    place = "endpoint: http://localhost:1/v1, endpoint_model: tiny"
    attack = made(f"{{name: iterative, {place}, key_variable: null}}")
    assert isinstance(attack, Iterative) and isinstance(attack.attacker, EndpointAttacker)
    assert (attack.steps, attack.kept, attack.max_new_tokens, attack.batch_size) == (5, 3, 128, 5)
    monkeypatch.setenv("LAB_KEY", "k")
    keys = "steps: 2, kept: 1, max_new_tokens: 9, prompt_tokens: 8, temperature: 0.5, timeout_seconds: 3, retries: 1"
    attack = made(f"{{name: iterative, {place}, key_variable: LAB_KEY, {keys}}}")
    endpoint = attack.attacker.endpoint
    assert (attack.steps, attack.kept, attack.max_new_tokens) == (2, 1, 9)
    assert (endpoint.url, endpoint.model, endpoint.key_variable) == ("http://localhost:1/v1", "tiny", "LAB_KEY")
    assert (endpoint.max_tokens, endpoint.timeout_s, endpoint.retries) == (8, 3, 1)
    assert endpoint.parameters == {"temperature": 0.5, "seed": 7}


def test_files_are_read_and_refused_under_their_key(dialogues: Path, artefact: Path, tmp_path: Path) -> None:
    told = refused(f"{{name: many_shot, file: {dialogues}, shots: 4}}")
    assert told.startswith(
        "evaluation.rewrites.a.shots: 4 dialogues are asked for and evaluation.rewrites.a.file has 3."
    )
    own = tmp_path / "own.jsonl"
    rows = [{"prompt": text, "response": "It is so."} for text in (REQUESTS[1].upper(), "Where?")]
    own.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    told = refused(f"{{name: many_shot, file: {own}, shots: 2}}")
    assert told.startswith(
        "evaluation.rewrites.a.shots: 2 dialogues are asked for and evaluation.rewrites.a.file has 1"
    )
    assert told.endswith("do not ask what behaviour 1 asks. Lower shots to 1, or name more files.")
    own.write_text(json.dumps(rows[0]), encoding="utf-8")
    told = refused(f"{{name: many_shot, file: {own}, shots: 1}}")
    assert told == "evaluation.rewrites.a.file: every dialogue asks what behaviour 1 asks. Name more files."
    missing = tmp_path / "none"
    assert refused(f"{{name: many_shot, file: {missing}.jsonl}}").startswith("evaluation.rewrites.a.file: there is no")
    (tmp_path / "bad.txt").write_text("nothing here", encoding="utf-8")
    told = refused(f"{{name: templates, file: {tmp_path / 'bad.txt'}}}")
    assert told.startswith("evaluation.rewrites.a.file: ") and "does not hold {prompt}" in told
    told = refused(f"{{name: templates, file: {missing}.txt}}")
    assert told.startswith(f"evaluation.rewrites.a.file: {missing}.txt: cannot be opened")
    told = refused(f"{{name: artefacts, file: {missing}.json}}")
    assert told.startswith("evaluation.rewrites.a.file: ") and "cannot be opened" in told
    artefact.write_text(json.dumps({"jailbreaks": [{"goal": "Something else", "prompt": "p"}]}), encoding="utf-8")
    told = refused(f"{{name: artefacts, file: {artefact}}}")
    assert "0 prompts for 0 behaviours, 2 behaviours without a prompt, 1 prompt of other behaviours" in told
    assert "has to be the request in words" in told
    artefact.write_text(json.dumps({"jailbreaks": [{"goal": REQUESTS[0], "prompt": None}]}), encoding="utf-8")
    told = refused(f"{{name: artefacts, file: {artefact}}}")
    assert "1 null prompt, so that no behaviour could be asked. 1 entry asks for behaviours of data.adversarial" in told
    assert "request in words" not in told, "the goal is there, and is right"
    artefact.write_text(json.dumps({"recipe": ["p"]}), encoding="utf-8")
    assert "Name the table of HarmBench's behaviours" in refused(f"{{name: artefacts, file: {artefact}}}")
    told = refused(f"{{name: artefacts, file: {artefact}, behaviours: {missing}.csv}}")
    assert told.startswith("evaluation.rewrites.a.behaviours: there is no file")


def test_what_no_run_can_have_is_told_with_the_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(section: str) -> str:
        (line,) = chat_problems(f"evaluation.rewrites={{a: {section}}}")
        return line

    assert "templates needs file, shipped or both" in told("{name: templates}")
    assert "replaced of random_search must be at most its length, 2, got 3" in told(
        "{name: random_search, length: 2, replaced: 3}"
    )
    place = "endpoint_model: tiny, key_variable: null"
    assert "may hold a key" in told(f"{{name: iterative, endpoint: 'http://u:p@h/v1', {place}}}")
    assert refused(f"{{name: iterative, endpoint: 'ftp://h', {place}}}").startswith("evaluation.rewrites.a.endpoint: ")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    place = "endpoint: http://h/v1, endpoint_model: tiny, key_variable: NO_SUCH_KEY"
    assert "NO_SUCH_KEY (key_variable) is not set" in refused(f"{{name: iterative, {place}}}")


def test_refusal_ablation_takes_its_direction_from_training_rows() -> None:
    train = {Role.ADVERSARIAL: CHATS, Role.UTILITY: [replace(CHATS[0], answers={"response": "x"}, role=Role.UTILITY)]}
    scene = SCENE._replace(loaded=LoadedModel(victim().model, tokenizer(), (), ()), train=train, max_length=80)

    def adversary(section: str) -> RefusalAblation:
        config = small_chat(f"evaluation.rewrites={{a: {section}}}").evaluation
        found = rewrites(config.rewrites, scene)["a"]
        assert isinstance(found, RefusalAblation)
        return found

    plain = adversary("{name: refusal_ablation}")
    assert (plain.layers, len(plain.harmful), len(plain.harmless)) == ((0, 1), 2, 1)
    assert plain.harmful.ids.tolist() == [chat.id for chat in CHATS]
    less = adversary("{name: refusal_ablation, prompts: 1, first_layer: 0.5}")
    assert (less.layers, len(less.harmful)) == ((1,), 1)
    with pytest.raises(ConfigError, match="evaluation.rewrites.a.first_layer: 1.0 leaves none of 2 blocks"):
        adversary("{name: refusal_ablation, first_layer: 1.0}")
