"""A key in an address or in parameters is sent and never shown."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml

from tests.config_sample import SMALL_CHAT as SMALL
from textadv.config.types import ConfigError
from textadv.measuring.judges import ChatEndpoint, EndpointError
from textadv.measuring.judges.hiding import plain_parameters, plain_url
from textadv.tasks.file import dump_config, parse_config

KEY = "sk-proj-4f9A7bQ2xZ81kLmN"
WORD = "hunter secret/=+ü"


class Server(BaseHTTPRequestHandler):
    """Says what it was sent, as careless servers do."""

    status = 401
    asked: list[tuple[str, Any]] = []  # noqa: RUF012 - one list for all requests

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append((self.path, json.loads(body)))
        said = f"no: {self.path} {body} {self.headers.get('Authorization')}".encode()
        self.send_response(self.status)
        self.send_header("Content-Length", str(len(said)))
        self.end_headers()
        self.wfile.write(said)

    def log_message(self, format: str, *args: object) -> None:
        """Silent."""


@pytest.fixture
def address() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), Server)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Server.asked = []
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def endpoints(address: str) -> dict[str, ChatEndpoint]:
    quick = {"retries": 0, "timeout_s": 5.0}
    return {
        "in the query": ChatEndpoint(f"{address}/v1?api_key={KEY}&version=2", "m", **quick),
        "in a query of another name": ChatEndpoint(f"{address}/v1?code=hunter2", "m", **quick),
        "in the path": ChatEndpoint(f"{address}/{KEY}/v1", "m", **quick),
        "in a parameter": ChatEndpoint(address, "m", parameters={"api_key": WORD, "temperature": 0.5}, **quick),
        "in a header": ChatEndpoint(address, "m", parameters={"extra": {"Authorization": f"Bearer {KEY}"}}, **quick),
        "in a list": ChatEndpoint(address, "m", parameters={"extra": [KEY, {"password": "hunter2"}]}, **quick),
    }


WAYS = tuple(endpoints("http://x"))
HIDDEN = (KEY, WORD, "hunter", "secret/", "hunter%20secret")


def shows(text: str) -> bool:
    return any(part in text for part in HIDDEN)


@pytest.mark.parametrize("way", WAYS)
def test_no_key_is_shown(way: str, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    endpoint = endpoints(address)[way]
    for text in (repr(endpoint), str(endpoint), f"{[endpoint]}", endpoint.identity):
        assert not shows(text) and "***" in text
    monkeypatch.setattr(Server, "status", 401)
    with pytest.raises(EndpointError) as error:
        endpoint(["prompt"])
    assert not shows(str(error.value)) and "127.0.0.1" in str(error.value)
    assert error.value.__cause__ is None and error.value.__suppress_context__
    sent = json.dumps(Server.asked, ensure_ascii=False)
    assert shows(sent), "the server gets it"
    assert "/chat/completions" in Server.asked[0][0].partition("?")[0]
    for status in (200, 400, 500):
        monkeypatch.setattr(Server, "status", status)
        try:
            answer = endpoint(["prompt"])
        except EndpointError as refused:
            answer = [refused]
        assert not shows(str(answer)), status


@pytest.mark.parametrize("way", WAYS)
def test_no_key_is_logged(
    way: str, address: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients of the web like to log each address that they ask."""
    monkeypatch.setenv("ZORBLAX_KEY", KEY)
    asked = replace(endpoints(address)[way], key_variable="ZORBLAX_KEY")
    with caplog.at_level(logging.DEBUG):
        for status in (200, 500):
            monkeypatch.setattr(Server, "status", status)
            asked(["prompt"])
    assert Server.asked and not shows(caplog.text)


@pytest.mark.parametrize("way", WAYS)
def test_no_key_is_shown_where_nobody_answers(way: str) -> None:
    (answer,) = endpoints("http://127.0.0.1:9")[way](["prompt"])
    assert isinstance(answer, Exception) and not shows(str(answer))


@pytest.mark.parametrize(
    "url", [f"ftp://x/{KEY}", f"http://user:{KEY}@x", f"http://[{KEY}", f"//{KEY}", f"http://{KEY}\u2100@x"]
)
def test_an_address_that_is_none_is_not_shown(url: str) -> None:
    with pytest.raises(ValueError) as error:
        ChatEndpoint(url, "m")
    assert not shows(str(error.value))


def test_what_is_no_key_is_shown() -> None:
    assert plain_url("http://localhost:8000/v1") == "http://localhost:8000/v1"
    assert plain_url("https://x.openai.azure.com/openai/deployments/gpt-4?api-version=2024-02-01").endswith(
        "/gpt-4?api-version=2024-02-01"
    )
    plain = {
        "temperature": 0,
        "max_tokens": 5,
        "stop_token_ids": [1],
        "logit_bias": {"5": 1},
        "stop": "x",
        "user": "me",
    }
    assert plain_parameters(plain) == plain


def test_identity_does_not_change_with_the_key() -> None:
    one = ChatEndpoint(f"http://x/v1?key={KEY}", "m", parameters={"token": "abcdef"})
    other = ChatEndpoint("http://x/v1?key=sk-other-1234567890", "m", parameters={"token": "ghijkl"})
    assert one.identity == other.identity


@pytest.mark.parametrize(
    "url",
    [f"http://x/v1?key={KEY}", f"http://user:{KEY}@x/v1", f"http://x/v1#{KEY}", f"http://x/?api-version=1&k={KEY}"],
)
def test_a_configuration_takes_no_key_in_the_address(url: str) -> None:
    judge = {"endpoint": url, "endpoint_model": "m"}
    with pytest.raises(ConfigError) as error:
        parse_config({**yaml.safe_load(SMALL), "evaluation": {"llm_judge": judge}})
    assert "key_variable" in str(error.value) and not shows(str(error.value))


def test_a_configuration_takes_a_version_in_the_address() -> None:
    judge = {"endpoint": "http://x/v1?api-version=2024-02-01", "endpoint_model": "m"}
    assert "api-version=2024-02-01" in dump_config(
        parse_config({**yaml.safe_load(SMALL), "evaluation": {"llm_judge": judge}})
    )
