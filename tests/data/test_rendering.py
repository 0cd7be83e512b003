"""What a template may do when it renders: fail in any way, read variables, read the clock."""

from __future__ import annotations

from datetime import datetime

import pytest
from transformers.utils import chat_template_utils

from tests.data.chats import CHATML, chat_tokenizer, turns
from textadv.data.chat_template import encode_answered, encode_prompt
from textadv.data.rendering import Template, template_of, varying
from textadv.values.errors import DataError

# what -> template, and what the message says of it
RAISING: dict[str, tuple[object, str]] = {
    "its own error": ("{{ raise_exception('no such role') }}", "turns user: no such role. Change"),
    "a division by zero": ("{{ 1 // 0 }}", "ZeroDivisionError"),
    "a sum of text and number": ("{{ messages[0].content + 1 }}", "TypeError"),
    "a message that is not there": ("{{ messages[3].content }}", "has no element 3"),
    "a name that is not there": ("{{ tool.name }}", "'tool' is undefined"),
    "an unknown filter": ("{{ messages | nope }}", "No filter named 'nope'"),
    "a call of what is no function": ("{{ messages() }}", "TypeError"),
    "a date of no format": ("{{ strftime_now(3) }}", "TypeError"),
    "another file": ("{% include 'header.jinja' %}", "TypeError: no loader"),
    "a break outside of a loop": ("{% break %}", "SyntaxError: 'break' outside loop"),
    "a loop without an end": ("{% for m in messages %}", "Unexpected end of template"),
    "a macro that calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "RecursionError"),
    "too long a range": ("{{ range(999999999) | list }}", "OverflowError"),
    "what the sandbox forbids": ("{{ messages.append(1) }}", "is unsafe"),
    "a number": (3, "TypeError"),
    "a list": (["{{ messages }}"], "TypeError"),
    "named templates without a default": ({"tool_use": CHATML}, "ValueError: This model has multiple chat templates"),
}


@pytest.mark.parametrize("what", RAISING)
def test_whatever_a_template_raises_is_one_error_that_names_it(what: str) -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template, told = RAISING[what]  # type: ignore[assignment]
    template = Template(tokenizer, name="the chat template in model.chat_template (odd.jinja)")
    with pytest.raises(
        DataError, match=r"^the chat template in model.chat_template \(odd.jinja\) refuses a chat of"
    ) as error:
        encode_prompt(template, turns("x"))
    assert told in str(error.value)
    assert str(error.value).endswith("or the template: model.chat_template, the path of a Jinja file.")


@pytest.mark.parametrize("what", ["its own error", "a division by zero", "a macro that calls itself"])
def test_a_template_may_fail_at_the_answer_alone(what: str) -> None:
    tokenizer = chat_tokenizer("chatml")
    failing = str(RAISING[what][0])
    tokenizer.chat_template = CHATML + "{% if messages[-1].role == 'assistant' %}" + failing + "{% endif %}"
    with pytest.raises(DataError, match="refuses a chat of the turns user, assistant"):
        encode_answered(tokenizer, turns("x"), "y")


def test_of_named_templates_the_default_is_used() -> None:
    tokenizer = chat_tokenizer("chatml")
    plain = encode_prompt(tokenizer, turns("x"))
    tokenizer.chat_template = {"default": CHATML, "tool_use": "{{ 1 // 0 }}"}  # type: ignore[assignment]
    assert encode_prompt(tokenizer, turns("x")) == plain


def test_variables_reach_the_template_in_prompts_and_answers() -> None:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = "{% if mood %}Be {{ mood }}. {% endif %}" + CHATML
    prompt, answer = encode_answered(Template(tokenizer, {"mood": "kind"}), turns("x"), "y")
    assert str(tokenizer.decode(list(prompt.ids))).startswith("Be kind. <|im_start|>user")
    plain, same = encode_answered(tokenizer, turns("x"), "y")
    assert prompt != plain and answer == same


def test_a_template_stands_in_the_place_of_its_tokenizer() -> None:
    tokenizer = chat_tokenizer("chatml")
    template = template_of(tokenizer)
    assert template.tokenizer is tokenizer and template_of(template) is template
    assert encode_prompt(template, turns("x")) == encode_prompt(tokenizer, turns("x"))


# ---- the clock

GUARDED = "{% if date is not defined %}{% set date = strftime_now('%d %b %Y') %}{% endif %}"
DATED = GUARDED + "Today is {{ date }}.\n" + CHATML


def found(jinja: str, **variables: object) -> str:
    tokenizer = chat_tokenizer("chatml")
    tokenizer.chat_template = jinja
    return varying(Template(tokenizer, variables), turns("x"))


@pytest.mark.parametrize(
    "part", ["%d", "%m", "%b", "%B", "%Y", "%y", "%A", "%a", "%j", "%H", "%I", "%p", "%M", "%S", "%c"]
)
@pytest.mark.parametrize(
    "now", [datetime(2024, 2, 29, 11, 59, 59), datetime(2025, 12, 31, 23, 30), datetime(2026, 1, 1)]
)
def test_any_part_of_the_date_is_seen(part: str, now: datetime, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock:
        @staticmethod
        def now() -> datetime:
            return now

    monkeypatch.setattr(chat_template_utils, "datetime", Clock)
    assert found("{{ strftime_now('" + part + "') }}\n" + CHATML) == now.strftime(part)


def test_the_line_that_the_clock_writes_is_told() -> None:
    assert found(DATED) == f"Today is {datetime.now().strftime('%d %b %Y')}."
    assert found(DATED, date="1 May 2024") == ""
    assert found(CHATML) == found(GUARDED + CHATML) == ""


def test_a_template_that_draws_at_random_is_told() -> None:
    assert found("{{ range(100000) | random }}{{ range(100000) | random }}\n" + CHATML).isdigit()


def test_the_clock_is_as_it_was_afterwards() -> None:
    clock = chat_template_utils.datetime
    found(DATED)
    failing = "{% if strftime_now('%Y') | int > " + str(datetime.now().year) + " %}{{ 1 // 0 }}{% endif %}"
    assert found(failing + CHATML) == "<|im_start|>user"
    assert chat_template_utils.datetime is clock
