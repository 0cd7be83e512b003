"""What of an endpoint's address and parameters may be shown: everything but what is, or may be, a key."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit, urlunsplit

from textadv.values.host.printable import printable

HIDDEN = "***"
SHORTEST = 4
_SECRET_NAME = re.compile(r"key|token|secret|passw|auth|credential|signature|\bsig\b|cookie|bearer", re.IGNORECASE)
# Numbers of tokens are no secrets: max_tokens, logprobs_token_ids.
_PLAIN_NAME = re.compile(r"tokens\b|token_ids?\b|logit|tokenizer|stop", re.IGNORECASE)
_PLAIN_QUERY = re.compile(r"(api[-_])?version", re.IGNORECASE)
# Sixteen letters and digits or more, both of them, without a word in between: as keys are written.
_TOKEN = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[A-Za-z0-9_~+=-]{16,}")


def plain_url(url: str) -> str:
    """The address without user, password, fragment, values of its query and parts of its path that look like a key."""
    parts = urlsplit(url)
    path = "/".join(HIDDEN if _TOKEN.fullmatch(part) else part for part in parts.path.split("/"))
    pairs = parse_qsl(parts.query, keep_blank_values=True)
    query = "&".join(f"{name}={value if _PLAIN_QUERY.fullmatch(name) else HIDDEN}" for name, value in pairs)
    query = query or (HIDDEN if parts.query else "")
    return printable(urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], path, query, "")))


def plain_parameters(parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with `HIDDEN` in the place of every value that is named like a key, or looks like one."""
    return {name: HIDDEN if _is_secret(name) else _plain(value) for name, value in parameters.items()}


def _is_secret(name: object) -> bool:
    return _SECRET_NAME.search(str(name)) is not None and _PLAIN_NAME.search(str(name)) is None


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return plain_parameters(value)
    if isinstance(value, (list, tuple)):
        return [_plain(part) for part in value]
    return HIDDEN if isinstance(value, str) and _TOKEN.fullmatch(value) else value


def secrets_of(url: str, parameters: Mapping[str, Any]) -> frozenset[str]:
    """Every text in an address and in parameters that must not be shown, as it stands and as addresses write it."""
    parts = urlsplit(url)
    found = {part for part in parts.path.split("/") if _TOKEN.fullmatch(part)}
    found |= {value for name, value in parse_qsl(parts.query) if not _PLAIN_QUERY.fullmatch(name)}
    found |= {parts.username or "", parts.password or "", parts.fragment}
    found |= set(_secret_values(parameters, False))
    return frozenset(text for one in found for text in forms_of(one))


def forms_of(secret: str) -> frozenset[str]:
    """A secret as it stands, as addresses write it and as JSON does; none of one that is too short to be a secret."""
    written = {form(secret) for form in (str, quote, quote_plus, unquote)} | {json.dumps(secret)[1:-1]}
    written |= {text.replace("/", "\\/") for text in written}
    return frozenset(text for text in written if len(text) >= SHORTEST)


def _secret_values(value: Any, secret: bool) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _secret_values(part, secret or _is_secret(name))
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _secret_values(part, secret)
    elif isinstance(value, str) and (secret or _TOKEN.fullmatch(value)):
        # "Bearer x" and x alone.
        yield from (value, value.rpartition(" ")[2])


def without(text: str, secrets: frozenset[str]) -> str:
    """`text` with `HIDDEN` in the place of every secret, the longest first."""
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, HIDDEN)
    return text
