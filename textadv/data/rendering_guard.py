"""The process that renders chat templates, which are programs of strangers: with little memory, little time, no files.

Started by `textadv.data.guarded` as a script of its own, so that it imports nothing but Jinja. It reads a request a
line, JSON, and answers in a line: {"text": ...} or {"error": ...}. Time is taken from the process as a whole: where a
template takes too much of it, the process ends, and whoever asked starts another.

The environment is that of `transformers.utils.chat_template_utils`: Jinja's immutable sandbox, the same filters, names
and tags. A test compares the two.
"""

from __future__ import annotations

import contextlib
import faulthandler
import json
import os
import signal
import sys
from datetime import datetime
from functools import lru_cache
from typing import Any

import jinja2
from jinja2.ext import loopcontrols
from jinja2.nodes import Scope
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment

SECONDS = 1.0
"""Of the processor, for one rendering."""
PATIENCE = 60.0
"""Seconds of the clock, where the processor is shared."""
MEMORY = 2**30
LONGEST = 2**24
"""Characters of a rendering, besides what the contents of the chat hold."""


class Generation:
    """The tags {% generation %} and {% endgeneration %}, whose body stands as it is: an extension of Jinja."""

    identifier = "generation"
    tags = frozenset({"generation"})
    priority = 100

    def __init__(self, environment: jinja2.Environment) -> None:
        self.environment = environment

    def parse(self, parser: Parser) -> Scope:
        """What stands for the tags: their body, with names of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return Scope(body).set_lineno(line)  # type: ignore[return-value]

    def preprocess(self, source: str, name: str | None, filename: str | None = None) -> str:
        """The source as it is."""
        return source

    def filter_stream(self, stream: Any) -> Any:
        """The tokens as they are."""
        return stream


class _Dict:
    """`dict` as templates may call it."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        """See dict.fromkeys."""
        return dict.fromkeys(*args, **kwargs)


def _namespace(*args: Any, **kwargs: Any) -> jinja2.utils.Namespace:
    """`namespace` without names that begin with an underscore."""
    values = dict(*args, **kwargs)
    hidden = next((name for name in values if str(name).startswith("_")), None)
    if hidden is not None:
        raise jinja2.exceptions.SecurityError(f"a namespace may hold no name that begins with _, got {hidden!r}")
    return jinja2.utils.Namespace(values)


def environment(clock: list[datetime]) -> ImmutableSandboxedEnvironment:
    """The sandbox that chat templates are rendered in; clock: its last entry is what templates read as now."""

    def raise_exception(message: Any) -> None:
        raise jinja2.exceptions.TemplateError(message)

    def strftime_now(format: str) -> str:
        return clock[-1].strftime(format)

    def tojson(
        x: Any, ensure_ascii: Any = False, indent: Any = None, separators: Any = None, sort_keys: Any = False
    ) -> str:
        return json.dumps(x, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    made.filters["tojson"] = tojson
    made.globals |= {"raise_exception": raise_exception, "strftime_now": strftime_now}
    made.globals |= {"dict": _Dict(), "namespace": _namespace}
    return made


def answered(request: dict[str, Any], made: ImmutableSandboxedEnvironment, clock: list[datetime]) -> dict[str, str]:
    """The rendering, or why there is none."""
    clock[:] = [datetime.fromisoformat(request["now"])]
    try:
        text = _compiled(made, request["template"]).render(request["values"])
        if len(text) > request["longest"]:
            return {"error": f"it writes {len(text):,} characters, and {request['longest']:,} are allowed"}
        return {"text": text}
    except MemoryError:
        return {"error": f"it takes more than {MEMORY // 2**20} MiB of memory"}
    except jinja2.TemplateError as error:
        return {"error": f"{error}"[:1000]}
    except Exception as error:  # a template is a program, so it can raise anything
        return {"error": f"{type(error).__name__}: {error}"[:1000]}


@lru_cache(maxsize=64)
def _compiled(made: ImmutableSandboxedEnvironment, source: str) -> jinja2.Template:
    return made.from_string(source)


def serve() -> None:
    """Answers requests until there are no more."""
    _limit()
    clock: list[datetime] = []
    made = environment(clock)
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    for line in requests:
        with _time():
            answer = json.dumps(answered(json.loads(line), made, clock)).encode()
        answers.write(answer + b"\n")
        answers.flush()


def _limit() -> None:
    # Ctrl-C is for whoever started this; it ends with its input.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        for kind in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
            resource.setrlimit(kind, (MEMORY, MEMORY))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


@contextlib.contextmanager
def _time() -> Any:
    """Ends the process where the block takes longer than it may; also in the midst of one long operation."""
    faulthandler.dump_traceback_later(PATIENCE, exit=True, file=_nowhere())
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, SECONDS)
    yield
    if hasattr(signal, "setitimer"):
        signal.setitimer(signal.ITIMER_PROF, 0)
    faulthandler.cancel_dump_traceback_later()


@lru_cache(maxsize=1)
def _nowhere() -> Any:
    return open(os.devnull, "w", encoding="utf-8")


if __name__ == "__main__":
    serve()
