"""A judge behind an endpoint: requests, retries, rows that are given up and faults that end the run."""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

import pytest

from textadv.measuring.judges import ChatEndpoint, EndpointError, RequestFailedError, openai_compatible
from textadv.measuring.judges.llm_judge import LlmJudge
from textadv.measuring.judges.prompts import HARMBENCH_RUBRIC

KEY = "sk-zorblax-123"


class Dripping(NamedTuple):
    """An answer that comes byte by byte, each after a pause of so many seconds."""

    content: bytes
    pause: float


class Server(ThreadingHTTPServer):
    """Answers each prompt with what the script says for its try: (status, body, headers), or seconds to hang."""

    daemon_threads = True
    block_on_close = False

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.script: dict[str, list[Any]] = {}
        self.tries: Counter[str] = Counter()
        self.bodies: list[dict[str, Any]] = []
        self.keys: list[str | None] = []
        self.released = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/v1"


class Handler(BaseHTTPRequestHandler):
    """Plays the server's script."""

    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        prompt = body["messages"][0]["content"]
        self.server.bodies.append(body)
        self.server.keys.append(self.headers["Authorization"])
        steps = self.server.script.get(prompt, [said("yes")])
        step = steps[min(self.server.tries[prompt], len(steps) - 1)]
        self.server.tries[prompt] += 1
        if isinstance(step, float):
            self.server.released.wait(step)
            step = said("too late")
        if isinstance(step, Dripping):
            self.drip(step)
            return
        status, content, headers = step
        try:
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)
        except ConnectionError:
            self.close_connection = True

    def drip(self, step: Dripping) -> None:
        self.send_response(200)
        self.end_headers()
        for place in range(len(step.content)):
            if self.server.released.wait(step.pause):
                return
            try:
                self.wfile.write(step.content[place : place + 1])
            except ConnectionError:
                return

    def do_GET(self) -> None:
        self.server.tries["redirected"] += 1
        self.send_error(404)

    def log_message(self, *args: object) -> None:
        """Silence."""


def said(text: str | None) -> tuple[int, bytes, dict[str, str]]:
    return 200, json.dumps({"choices": [{"message": {"role": "assistant", "content": text}}]}).encode(), {}


def refused(status: int, text: str = "", **headers: str) -> tuple[int, bytes, dict[str, str]]:
    return status, text.encode(), {name.replace("_", "-"): value for name, value in headers.items()}


@contextmanager
def serving(**script: list[Any]) -> Iterator[Server]:
    server = Server()
    server.script = script
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.released.set()
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "127.0.0.1")


def endpoint(server: Server, **changes: Any) -> ChatEndpoint:
    return ChatEndpoint(server.url, "tiny", **{"first_wait_s": 0.01, "retries": 2, "timeout_s": 5.0, **changes})


def test_answers_come_in_order_and_the_request_is_as_asked() -> None:
    with serving(b=[said("no")], c=[said("{x} </s>")]) as server:
        asked = endpoint(server, max_tokens=8, parameters={"seed": 1, "temperature": None})
        assert asked(["a", "b", "c", "a", "b"]) == ["yes", "no", "{x} </s>", "yes", "no"]
        message = [{"role": "user", "content": "a"}]
        assert {"model": "tiny", "messages": message, "max_tokens": 8, "seed": 1} in server.bodies
        assert server.keys == [None] * 5


def test_a_failing_server_is_asked_again() -> None:
    with serving(a=[refused(500), said("yes")], b=[refused(429), refused(503), said("no")]) as server:
        assert endpoint(server)(["a", "b"]) == ["yes", "no"]
        assert server.tries == {"a": 2, "b": 3}


def test_a_row_is_given_up_after_its_retries_and_the_run_goes_on() -> None:
    with serving(a=[refused(500, "cooling down")], b=[said("no")]) as server:
        failed, answered = endpoint(server)(["a", "b"])
        assert isinstance(failed, RequestFailedError)
        assert str(failed) == "no answer after 3 tries, last: HTTP 500 cooling down"
        assert answered == "no"
        assert server.tries["a"] == 3


def test_a_time_out_marks_the_row_and_the_run_goes_on() -> None:
    with serving(slow=[30.0], once=[30.0, said("yes")]) as server:
        start = time.monotonic()
        judge = LlmJudge(HARMBENCH_RUBRIC, endpoint(server, timeout_s=0.3, retries=1), "tiny")
        server.script = {prompt_of(judge, name): steps for name, steps in server.script.items()}
        verdicts = judge.judge(["p"] * 3, ["slow", "once", "fast"])
        assert [verdict.status for verdict in verdicts] == ["error", "ok", "ok"]
        assert "no answer after 2 tries" in verdicts[0].reason
        assert "timed out" in verdicts[0].reason
        assert time.monotonic() - start < 10


def prompt_of(judge: LlmJudge, response: str) -> str:
    seen: list[str] = []
    LlmJudge(judge.rubric, lambda prompts: seen.extend(prompts) or ["no"], "").judge(["p"], [response])  # type: ignore[func-returns-value]
    return seen[0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 302, 307])
def test_a_refusal_that_no_row_escapes_stops_at_once(status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZORBLAX_KEY", KEY)
    with serving() as server:
        wrong = refused(status, f"\x1b[31mbad key {KEY}\n", Location=f"{server.url}/elsewhere")
        server.script = {str(n): [wrong] for n in range(40)}
        with pytest.raises(
            EndpointError, match=rf"refused the request: HTTP {status}.*the key in ZORBLAX_KEY"
        ) as caught:
            endpoint(server, key_variable="ZORBLAX_KEY", parallel=2)([str(n) for n in range(40)])
        assert KEY not in str(caught.value)
        assert "bad key ***" in str(caught.value)
        assert "\x1b" not in str(caught.value)
        assert caught.value.__cause__ is None
        assert sum(server.tries.values()) <= 6
        assert max(server.tries.values()) == 1
        assert server.keys[0] == f"Bearer {KEY}"
        assert server.tries["redirected"] == 0


@pytest.mark.parametrize(
    "step",
    [refused(413), refused(400, '{"error": {"code": "content_filter"}}'), refused(400, "maximum context length")],
)
def test_a_row_that_is_at_fault_itself_fails_alone(step: Any) -> None:
    with serving(a=[step]) as server:
        failed, answered = endpoint(server)(["a", "b"])
        assert isinstance(failed, RequestFailedError)
        assert answered == "yes"
        assert server.tries["a"] == 1


@pytest.mark.parametrize(
    "content",
    [b"", b"<html>", b"[]", b'{"choices": []}', b"[" * 100_000, said(None)[1], b'{"choices": [{"message": 1}]}'],
)
def test_nonsense_instead_of_a_completion_marks_the_row(content: bytes) -> None:
    with serving(a=[(200, content, {})]) as server:
        failed, answered = endpoint(server)(["a", "b"])
        assert isinstance(failed, RequestFailedError)
        assert answered == "yes"


def test_a_nonsense_verdict_is_unparsed() -> None:
    with serving() as server:
        judge = LlmJudge(HARMBENCH_RUBRIC, endpoint(server), endpoint(server).identity)
        server.script = {prompt_of(judge, "Stir."): [said("zorblax!")]}
        verdicts = judge.judge(["p", "p"], ["Stir.", "Cook."])
        assert verdicts[0] == ("unparsed", None, None, "zorblax!")
        assert verdicts[1].broken is True


def test_a_cut_off_answer_is_asked_again() -> None:
    with serving(a=[(200, said("yes")[1], {"Content-Length": "9999", "Connection": "close"}), said("no")]) as server:
        assert endpoint(server, timeout_s=0.5)(["a"]) == ["no"]


def test_an_answer_that_comes_drop_by_drop_does_not_outlast_the_time_of_a_request() -> None:
    """Every drop comes in time by itself, and all of them would take a minute."""
    with serving(a=[Dripping(said("yes")[1] + b" " * 1000, 0.05)]) as server:
        failed, answered = endpoint(server, timeout_s=0.3, retries=0)(["a", "b"])
        assert isinstance(failed, RequestFailedError) and "did not end in time" in str(failed)
        assert answered == "yes"


def test_an_answer_is_read_up_to_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openai_compatible, "LARGEST_ANSWER", 1000)
    with serving(a=[said("x" * 1000)], b=[refused(400, "x" * 100_000)]) as server:
        (failed,) = endpoint(server)(["a"])
        assert isinstance(failed, RequestFailedError) and "longer than 1000 bytes" in str(failed)
        with pytest.raises(EndpointError, match=r"HTTP 400\. Check url"):
            endpoint(server)(["b"])


def test_a_key_that_nobody_named_is_not_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    with serving() as server:
        assert endpoint(server)(["a"]) == ["yes"]
        assert server.keys == [None]


def test_nobody_there() -> None:
    with serving() as server:
        gone = endpoint(server)
    (failed,) = gone(["a"])
    assert isinstance(failed, RequestFailedError)
    assert "refused" in str(failed)


def test_the_waits_double_up_to_the_longest() -> None:
    waits = ChatEndpoint("http://x/v1", "m", retries=5, first_wait_s=1.0, longest_wait_s=5.0).waits()
    assert waits == (1.0, 2.0, 4.0, 5.0, 5.0)


def test_retry_after_is_obeyed_up_to_the_longest_wait() -> None:
    with serving(a=[refused(429, Retry_After="3600"), said("yes")]) as server:
        start = time.monotonic()
        assert endpoint(server, longest_wait_s=0.4)(["a"]) == ["yes"]
        assert 0.4 <= time.monotonic() - start < 3


def test_the_key_is_needed_read_late_and_never_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ZORBLAX_KEY", raising=False)
    with serving() as server:
        asked = endpoint(server, key_variable="ZORBLAX_KEY")
        with pytest.raises(EndpointError, match="ZORBLAX_KEY .key_variable. is not set"):
            asked(["a"])
        for odd in (f"{KEY}\nX-Other: 1", f"{KEY}\udcff", f"{KEY}\u00e9"):
            monkeypatch.setenv("ZORBLAX_KEY", odd)
            with pytest.raises(EndpointError, match="cannot be a key: it has .* Set it again, with the key") as caught:
                asked(["a"])
            assert KEY not in str(caught.value)
        assert not server.bodies
        monkeypatch.setenv("ZORBLAX_KEY", f"{KEY}\n")
        assert asked(["a"]) == ["yes"]
        assert server.keys == [f"Bearer {KEY}"]
        assert KEY not in repr(asked) + asked.identity


@pytest.mark.parametrize(
    "url", ["file:///etc/hosts", "ftp://x/v1", "localhost:8000", "http://", "http://me:secret@x/v1"]
)
def test_only_plain_web_addresses(url: str) -> None:
    with pytest.raises(ValueError, match="must start with http") as caught:
        ChatEndpoint(url, "m")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "wrong", [{"timeout_s": 0}, {"retries": -1}, {"parallel": 0}, {"max_tokens": 0}, {"first_wait_s": -1.0}]
)
def test_numbers_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="must be"):
        ChatEndpoint("http://x/v1", "m", **wrong)


def test_identity_follows_model_address_and_decoding() -> None:
    first = ChatEndpoint("http://x/v1", "m")
    others = [
        ChatEndpoint("http://x/v1", "n"),
        ChatEndpoint("http://y/v1", "m"),
        ChatEndpoint("http://x/v1", "m", max_tokens=9),
        ChatEndpoint("http://x/v1", "m", parameters={"temperature": 1}),
    ]
    assert len({first.identity, *(other.identity for other in others)}) == 5
    assert first.identity == ChatEndpoint("http://x/v1/", "m", timeout_s=1, retries=0).identity
