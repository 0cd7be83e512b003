"""A client for chat-completion endpoints that speak OpenAI's protocol (vLLM, llama.cpp, Ollama, hosted ones).

Standard library only. Redirects are not followed: they would carry the key to another host.
"""

from __future__ import annotations

import http.client
import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from textadv.data.characters import mended
from textadv.measuring.judges.hiding import forms_of, plain_parameters, plain_url, secrets_of, without
from textadv.values.errors import EndpointError
from textadv.values.host.phases import each
from textadv.values.host.printable import message, printable
from textadv.values.host.reading import json_of

LARGEST_ANSWER = 4 * 2**20
CHUNK = 2**16
LONGEST_SAID = 300
# What servers say where one prompt is at fault (too long, or filtered) rather than the settings.
ROW_FAULTS = (
    "content_filter",
    "content management policy",
    "context_length",
    "context length",
    "maximum context",
    "too long",
    "too many tokens",
)


_Answering = Callable[[str, str | None, threading.Event], str | Exception]


class RequestFailedError(RuntimeError):
    """One prompt stays without an answer; the others are not concerned."""

    def __init__(self, text: str) -> None:
        super().__init__(message(text))


class _RefusedError(RuntimeError):
    """The settings are at fault, or this prompt: the status does not tell."""


class _TransientError(RuntimeError):
    """May succeed when tried again; `wait_s` is what the server asked for."""

    def __init__(self, message: str, wait_s: float = 0.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s


@dataclass(frozen=True)
class ChatEndpoint:
    """Asks a model behind an address, one user message per prompt; the answer is its completion.

    url: with the version, for example http://localhost:8000/v1. model: as the endpoint calls it. A key in the address
        or in the parameters is sent and never shown: not in `repr`, errors or `identity`.
    key_variable: the environment variable that holds the key, read at each call and never stored or shown; None sends
        no key.
    max_tokens: of an answer.
    parameters: added to the request or put in place of the default (temperature 0, max_tokens); None leaves one out.
    timeout_s: for a whole request. retries: further tries after a time-out, a lost connection, 408, 429 or 5xx, after
        first_wait_s, twice that, and so on up to longest_wait_s; a longer Retry-After is obeyed up to there.
    parallel: requests under way at once.

    Raises ValueError on an address that is not http(s) or holds a password, or numbers out of range.
    """

    url: str
    model: str
    key_variable: str | None = None
    max_tokens: int = 512
    parameters: Mapping[str, Any] = field(default_factory=dict)
    timeout_s: float = 60.0
    retries: int = 4
    first_wait_s: float = 1.0
    longest_wait_s: float = 60.0
    parallel: int = 4

    def __post_init__(self) -> None:
        if not _is_address(self.url):
            # An address may hold a password, so it is not shown.
            raise ValueError(
                "The endpoint's url must start with http:// or https://, name a host and hold no user or password. "
                "Give the key in an environment variable and name it in key_variable."
            )
        if not (self.timeout_s > 0 and self.first_wait_s >= 0 and self.longest_wait_s >= 0):
            raise ValueError("timeout_s must be positive, first_wait_s and longest_wait_s not negative.")
        if self.retries < 0 or self.parallel < 1 or self.max_tokens < 1:
            raise ValueError("retries must be at least 0, parallel and max_tokens at least 1.")

    def __repr__(self) -> str:
        shown = {**vars(self), "url": plain_url(self.url), "parameters": plain_parameters(self.parameters)}
        return f"ChatEndpoint({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def identity(self) -> str:
        """Model, address and decoding, for the version of a judge; without keys."""
        return json.dumps(
            [self.model, plain_url(self.url).rstrip("/"), plain_parameters(self._settings())], sort_keys=True
        )

    def __call__(self, prompts: list[str]) -> list[str | Exception]:
        """One completion or RequestFailedError per prompt, in order.

        Raises EndpointError as soon as the endpoint refuses for a reason that no other prompt would escape, and where
        key_variable names a variable that is not set.
        """
        return self._asked(prompts, self._answer)

    def one_by_one(self, prompts: list[str]) -> list[str | Exception]:
        """The same, with an EndpointError in the place of an answer where the prompt may be at fault (400, 422): the
        others are asked all the same."""
        return self._asked(prompts, partial(self._answer, alone=True))

    def _asked(self, prompts: list[str], answer: _Answering) -> list[str | Exception]:
        key = self._key()
        stopped = threading.Event()
        with ThreadPoolExecutor(self.parallel) as pool:
            answers = [pool.submit(answer, prompt, key, stopped) for prompt in prompts]
            try:
                return [answer.result() for answer in each("requests", answers, len(answers), "prompts")]
            finally:
                stopped.set()
                pool.shutdown(wait=False, cancel_futures=True)

    def waits(self) -> tuple[float, ...]:
        """Seconds before each further try; without chance in them, so that runs repeat."""
        return tuple(min(self.first_wait_s * 2**n, self.longest_wait_s) for n in range(self.retries))

    def _settings(self) -> dict[str, Any]:
        settings = {"temperature": 0, "max_tokens": self.max_tokens, **self.parameters}
        return {name: value for name, value in settings.items() if value is not None}

    def _key(self) -> str | None:
        if self.key_variable is None:
            return None
        key = os.environ.get(self.key_variable, "").strip()
        if not key:
            raise EndpointError(f"The environment variable {self.key_variable} (key_variable) is not set. Set it.")
        if not (key.isascii() and key.isprintable() and " " not in key):
            raise EndpointError(
                f"The value of {self.key_variable} cannot be a key: it has spaces or odd characters. Set it again, "
                "with the key and nothing else."
            )
        return key

    def _answer(
        self, prompt: str, key: str | None, stopped: threading.Event, *, alone: bool = False
    ) -> str | Exception:
        """The completion of one prompt, tried again where that may help; sets `stopped` on an error that ends all.

        alone: one that this prompt may be at fault for ends no other.
        """
        failure = ""
        for wait_s in (*self.waits(), None):
            if stopped.is_set():
                break
            try:
                return self._content(self._post(prompt, key), key)
            except RequestFailedError as error:
                return error
            except _RefusedError as error:
                if alone:
                    return EndpointError(str(error))
                stopped.set()
                raise EndpointError(str(error)) from None
            except EndpointError:
                stopped.set()
                raise
            except _TransientError as error:
                failure = str(error)
                if wait_s is not None:
                    stopped.wait(max(wait_s, min(error.wait_s, self.longest_wait_s)))
        return RequestFailedError(f"no answer after {self.retries + 1} tries, last: {failure}")

    def _post(self, prompt: str, key: str | None) -> bytes:
        message = {"role": "user", "content": prompt}
        body = json.dumps({"model": self.model, "messages": [message], **self._settings()}).encode("ascii")
        headers = {"Content-Type": "application/json", "Accept": "application/json", "User-Agent": "textadv"}
        if key is not None:
            headers["Authorization"] = f"Bearer {key}"
        request = urllib.request.Request(self._address(), body, headers, method="POST")
        deadline = time.monotonic() + self.timeout_s
        try:
            with _opener().open(request, timeout=self.timeout_s) as response:
                return _read(response, deadline)
        except urllib.error.HTTPError as error:
            raise self._refusal(error, key, deadline) from None
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _TransientError(self._shown(f"{type(error).__name__}: {error}", key)) from None

    def _refusal(self, error: urllib.error.HTTPError, key: str | None, deadline: float) -> Exception:
        """What an HTTP status other than 2xx means for this prompt and for the run."""
        with error:
            try:
                said = self._shown(_read(error, deadline).decode("utf-8", "replace"), key)
            except (OSError, http.client.HTTPException, RequestFailedError):
                said = ""
            retry_after = error.headers.get("Retry-After", "")
        what = f"HTTP {error.code} {said}".strip()
        if error.code >= 500 or error.code in (408, 429):
            return _TransientError(what, float(retry_after) if retry_after.isdecimal() else 0.0)
        if error.code == 413 or (error.code in (400, 422) and any(fault in said.lower() for fault in ROW_FAULTS)):
            return RequestFailedError(what)
        kind = _RefusedError if error.code in (400, 422) else EndpointError
        return kind(
            f"The endpoint {plain_url(self.url)} refused the request: {what}. Check url, model, parameters and "
            + ("key_variable (none is set)." if self.key_variable is None else f"the key in {self.key_variable}.")
        )

    def _address(self) -> str:
        parts = urlsplit(self.url)
        return urlunsplit(parts._replace(path=f"{parts.path.rstrip('/')}/chat/completions", fragment=""))

    def _content(self, body: bytes, key: str | None) -> str:
        try:
            return _content(body)
        except RequestFailedError as error:
            raise RequestFailedError(self._shown(str(error), key)) from None

    def _shown(self, text: str, key: str | None) -> str:
        """The text fit for a message: without keys, without control characters, and short."""
        secrets = secrets_of(self.url, self.parameters) | (frozenset() if key is None else forms_of(key))
        return printable(without(text, secrets))[:LONGEST_SAID]


def _is_address(url: str) -> bool:
    """Whether this is http(s) with a host, and without user and password."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and "@" not in parts.netloc
    except ValueError:
        return False


def _opener() -> urllib.request.OpenerDirector:
    """http and https, proxies as the environment has them, no redirects, no other scheme."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _read(response: Any, deadline: float) -> bytes:
    """The body; a server that sends it drop by drop does not outlast the deadline by more than one read."""
    parts, size = [], 0
    while part := response.read1(CHUNK):
        parts.append(part)
        size += len(part)
        if size > LARGEST_ANSWER:
            raise RequestFailedError(f"the answer is longer than {LARGEST_ANSWER} bytes")
        if time.monotonic() > deadline:
            raise TimeoutError("the answer did not end in time")
    # read1 takes a lost connection for the end.
    promised = response.headers.get("Content-Length", "")
    if promised.isdecimal() and size < int(promised):
        raise ConnectionError(f"the answer was cut off after {size} of {promised} bytes")
    return b"".join(parts)


def _content(body: bytes) -> str:
    """The text of the first choice."""
    try:
        content = json_of(body)["choices"][0]["message"]["content"]
    except (ValueError, LookupError, TypeError, RecursionError):
        said = body[: 4 * LONGEST_SAID].decode("utf-8", "replace")
        raise RequestFailedError(f"not a chat completion: {said}") from None
    if not isinstance(content, str):
        raise RequestFailedError("the completion holds no text")
    # A server that cuts an answer may cut a character in half, which no tokenizer and no file takes.
    return mended(content)
