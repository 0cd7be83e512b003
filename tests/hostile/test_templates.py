"""Chat templates are programs of strangers: whatever one does is the template's fault, named, and soon over."""

from __future__ import annotations

import os
import signal
from datetime import datetime
from pathlib import Path
from typing import Any

import psutil
import pytest
from transformers.utils import chat_template_utils

from tests.data.chats import CHATML, chat_tokenizer, turns
from textadv.data import guarded, rendering_guard
from textadv.data.chat_template import encode_answered, encode_prompt
from textadv.data.guarded import TemplateError, rendered
from textadv.data.rendering import Template
from textadv.values.errors import DataError

NOW = datetime(2024, 2, 29, 12, 30)
NESTED = "{% for a in range(99999) %}{% for b in range(99999) %}{% for c in range(99999) %}"
DOUBLED = "{% set n = namespace(s='ab') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}"

# what -> template
UNBOUNDED = {
    "loops in loops": NESTED + "{% endfor %}{% endfor %}{% endfor %}",
    "loops in loops that write": NESTED + "aaaaaaaa{% endfor %}{% endfor %}{% endfor %}",
    "a text many times": "{{ 'a' * 10 ** 10 }}",
    "a text many times, a little less": "{{ 'a' * 10 ** 9 }}",
    "a list many times": "{{ ([0] * 10 ** 10) | length }}",
    "a power of a power": "{{ 10 ** (10 ** 10) }}",
    "a power that is one operation": "{% set x = 9 ** (9 ** 9) %}",
    "a shift": "{{ (1).__lshift__(10 ** 12) }}",
    "a text doubled": DOUBLED,
    "a text doubled by a block": "{% set s = 'ab' %}"
    + "{% set s %}{{ s }}{{ s }}{{ s }}{{ s }}{% endset %}" * 40
    + "{{ s }}",
    "a list doubled": "{% set n = namespace(s=[1]) %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "a width": "{{ 'a'.center(10 ** 10) }}",
    "a width of a format": "{{ '%10000000000d' % 1 }}",
    "a width of a format method": "{{ '{:>10000000000}'.format(1) }}",
    "a width of a filter": "{{ 'a' | center(10 ** 10) }}",
    "an indentation": "{{ 'a\na' | indent(10 ** 10) }}",
    "an indentation of JSON": "{{ [[1]] | tojson(indent=10 ** 10) }}",
    "words of Jinja": "{{ lipsum(n=10 ** 9) }}",
    "macros that call each other": "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}"
    "{{ f(60) }}",
    "a recursive loop": "{% for a in [1] * 99 recursive %}{{ loop([1] * 99) if loop.depth < 90 }}{% endfor %}",
    "replacements": "{% set a = 'a' * 10 ** 6 %}{{ a.replace('a', a) }}",
    "a join": "{{ range(99999) | join('a' * 10 ** 6) }}",
    "slices": "{{ range(9) | slice(10 ** 9) | list | length }}",
}


def refused(template: object, **values: Any) -> str:
    with pytest.raises(TemplateError) as error:
        rendered(template, values, NOW)
    return str(error.value)


@pytest.mark.parametrize("what", UNBOUNDED)
def test_a_template_without_bounds_is_ended(what: str) -> None:
    assert refused(UNBOUNDED[what])
    assert rendered("{{ 1 + 1 }}", {}, NOW) == "2", "and the next one is rendered"


@pytest.mark.parametrize("what", ["loops in loops", "a text many times", "a power that is one operation"])
def test_a_chat_names_the_template_that_is_ended(what: str) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = CHATML + "{% if messages | length > 1 %}" + UNBOUNDED[what] + "{% endif %}"
    template = Template(tokenizer, name="the chat template in model.chat_template (odd.jinja)")
    with pytest.raises(DataError, match=r"\(odd.jinja\) refuses a chat of the turns user.*: it (takes|writes)"):
        encode_answered(template, turns("x"), "y")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ cycler.__init__.__globals__.os.system('true') }}",
        "{{ namespace.__globals__ }}",
        "{{ raise_exception.__globals__ }}",
        "{{ self.__init__ }}",
        "{{ '{0.__class__}'.format(1) }}",
        "{{ messages.append(1) }}",
        "{% set n = namespace(__class__=1) %}",
        "{% include '/etc/passwd' %}",
        "{% import 'os' as os %}",
        "{% extends 'a' %}",
    ],
)
def test_the_sandbox(template: str) -> None:
    try:
        text = rendered(template, {"messages": [{"role": "user", "content": "x"}]}, NOW)
    except TemplateError as error:
        text = str(error)
    # What is unsafe is an error, or undefined, which is written as nothing.
    assert not any(part in text for part in ("<class", "<function", "<bound", "root:", "__builtins__")), text


@pytest.mark.parametrize("template", [None, 3, 1.5, True, ["{{ messages }}"], b"{{ messages }}"])
def test_a_template_that_is_no_text(template: object) -> None:
    assert refused(template).startswith("TypeError: a template is text, got ")


@pytest.mark.parametrize(
    "template",
    [
        "{{ " + "(" * 20_000 + "1" + ")" * 20_000 + " }}",
        "{% if 1 %}" * 3000,
        "{{ 1" + " + 1" * 50_000 + " }}",
        "{{",
        "{% x %}",
    ],
)
def test_a_template_that_is_no_program(template: str) -> None:
    assert refused(template)
    assert rendered("a", {}, NOW) == "a"


def test_variables_must_be_what_json_has() -> None:
    assert "must be what JSON has" in refused("{{ a }}", a=object())


# ---- the same as transformers

PROGRAMS = [
    CHATML,
    "{{ bos_token }}{% for m in messages %}{{ loop.index }} {{ m.role }}: {{ m['content'] | trim }}\n{% endfor %}",
    "{% for m in messages %}\n  {% if loop.first %}\n  {{ m.content }}\n  {% endif %}\n{% endfor %}\n",
    "{{ messages | tojson }} {{ messages | tojson(indent=2) }} {{ '<é>' | tojson(ensure_ascii=True) }}",
    "{{ strftime_now('%d %b %Y %H') }}",
    "{% generation %}{% set a = 1 %}{{ messages[0].content }}{% endgeneration %}{{ a is defined }}",
    "{% for m in messages %}{% if loop.index > 1 %}{% break %}{% endif %}{% continue %}{% endfor %}x",
    "{% set n = namespace(a=1) %}{% for m in messages %}{% set n.a = n.a + 1 %}{% endfor %}{{ n.a }}",
    "{{ dict(a=1) }} {{ dict.fromkeys([1, 2]) }} {{ tools }} {{ documents is none }} {{ add_generation_prompt }}",
    "{% macro f(x) %}[{{ x }}]{% endmacro %}{{ f(messages[0].role) }}{{ undefined_name }}{{ 'a' if none }}",
    "{{ 'a<b' | escape }} {{ messages | map(attribute='role') | join(', ') }} {{ 7 // 2 }} {{ 2 ** 10 }}",
    "{{ mood }} {{ flags }} {{ limit }}",
]


@pytest.mark.parametrize("program", PROGRAMS)
@pytest.mark.parametrize("generation", [False, True])
def test_the_guard_writes_what_transformers_writes(program: str, generation: bool) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = program
    chat = [*turns("hello é <b>"), {"role": "assistant", "content": " x "}, {"role": "user", "content": "y"}]
    variables = {"mood": "kind", "flags": [True, None, 1.5], "limit": 3}
    wanted = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=generation, **variables)
    assert Template(tokenizer, variables).render(chat, generation=generation) == wanted


def test_the_environment_is_that_of_transformers() -> None:
    theirs = chat_template_utils._compile_jinja_template("a").environment
    ours = rendering_guard.environment([NOW])
    assert type(theirs) is type(ours)
    for name in ("filters", "tests", "globals"):
        assert set(getattr(theirs, name)) == set(getattr(ours, name)), name
    assert {tag for one in theirs.iter_extensions() for tag in one.tags} == {
        tag for one in ours.iter_extensions() for tag in one.tags
    }
    for name in (
        "trim_blocks",
        "lstrip_blocks",
        "keep_trailing_newline",
        "autoescape",
        "undefined",
        "newline_sequence",
    ):
        assert getattr(theirs, name) == getattr(ours, name), name


# ---- the process


def guard_process() -> psutil.Process:
    guarded._kept.cache_clear()
    rendered("a", {}, NOW)
    assert guarded._GUARD.process is not None
    return psutil.Process(guarded._GUARD.process.pid)


def test_the_process_is_kept_and_started_again_where_it_has_died() -> None:
    first = guard_process()
    assert guard_process() == first
    first.kill()
    first.wait()
    assert guard_process() != first


def test_who_ends_the_process_from_outside_is_not_taken_for_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    guard, asked = guarded._GUARD, []

    def running() -> object:
        process = guarded._Guard._running(guard)
        asked.append(process)
        if len(asked) == 1:
            process.kill()
            process.wait()
        return process

    guarded._kept.cache_clear()
    monkeypatch.setattr(guard, "_running", running)
    assert rendered("{{ 'once' }}", {}, NOW) == "once" and len(asked) == 2


@pytest.mark.parametrize(
    ("template", "asked"),
    [
        ("{{ x }} is an unknown role; your knowledge ends now-here", 2),
        ("{{ x }} is an unknown role; your knowledge ends randomly, nowhere", 1),
        ("{{ strftime_now('%H') }}", 2),
        ("{% set clock=strftime_now %}{{ clock('%H') }}", 2),
        ("{{ [1, 2]|random }}", 2),
        ("{{ lipsum() }}", 2),
    ],
)
def test_what_always_writes_the_same_is_asked_once(template: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Words are looked at whole: almost every template knows an "unknown role"."""
    answered: list[str] = []
    ask = guarded._Guard.ask

    def counting(guard: guarded._Guard, request: str, now: datetime, name: int) -> dict[str, str]:
        answered.append(request)
        return ask(guard, request, now, name)

    guarded._kept.cache_clear()
    monkeypatch.setattr(guarded._Guard, "ask", counting)
    rendered(template, {"x": "a"}, NOW)
    rendered(template, {"x": "a"}, NOW)
    assert len(answered) == asked


def test_no_file_stays_open_where_processes_end() -> None:
    guard_process()
    before = psutil.Process().num_fds()
    for _ in range(3):
        os.kill(guard_process().pid, signal.SIGKILL)
        refused("{{ nothing() }}")
    guard_process()
    assert psutil.Process().num_fds() == before


def test_a_fork_has_a_process_of_its_own() -> None:
    first = guard_process().pid
    child = os.fork()
    if child == 0:
        try:
            own = guard_process().pid
            os._exit(0 if own != first and rendered("{{ 2 * 3 }}", {}, NOW) == "6" else 1)
        except BaseException:
            os._exit(2)
    assert os.waitpid(child, 0)[1] == 0
    assert guard_process().pid == first and rendered("b", {}, NOW) == "b"


def test_it_can_write_no_file(tmp_path: Path) -> None:
    limits = guard_process().rlimit(psutil.RLIMIT_FSIZE)
    assert limits == (0, 0) and guard_process().rlimit(psutil.RLIMIT_AS)[0] == rendering_guard.MEMORY


def test_long_chats_are_written() -> None:
    long = "word " * 10**6
    chat = turns(long)
    assert Template(chat_tokenizer("chatml")).render(chat, generation=True).count("word") == 10**6
    assert encode_prompt(chat_tokenizer("chatml"), turns("short"))
