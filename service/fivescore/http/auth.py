"""Keys: once the service has any, every route requires one, except routes that are open by name."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Collection, Iterable, Iterator
from itertools import islice
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fivescore.errors import ConfigurationError, Unauthorized
from fivescore.http.keyring import Keyring
from fivescore.http.problems import on_error

OPEN = frozenset({"/", "/health", "/health/live", "/health/ready"})
"""A browser opens the page without a key. The page holds no data, and asks for the key itself."""
MOST_OFFERED = 8
"""Limit on the keys of one request that are compared with the valid ones."""


class Keys:
    """ASGI middleware: a request without a key of ``keyring`` gets a 401; its body is not read.

    A key comes as ``Authorization: Bearer KEY``, as the password of ``Authorization: Basic``, which
    is what ``http://any:KEY@host`` sends, or as ``?api_key=KEY``: some trainers can set only a URL.

    Args:
        open_routes: the paths that require no key.
    """

    def __init__(self, app: ASGIApp, keyring: Keyring, open_routes: Collection[str] = OPEN) -> None:
        self._app = app
        self._keyring = keyring
        self._open = frozenset(open_routes)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        holder = self._keyring.holder(islice(_offered(scope), MOST_OFFERED))
        scope["fivescore.key"] = holder
        if holder is not None or not self._keyring or scope["path"] in self._open:
            await self._app(scope, receive, send)
            return
        error = Unauthorized(
            "send one of the service's keys: Authorization: Bearer KEY, a Basic password, or"
            " ?api_key=KEY"
        )
        response = await on_error(Request(scope), error)
        await response(scope, receive, send)


def holder_of(scope: Scope) -> bytes | None:
    """The digest of the request's key, which shows nothing of the key; None without a valid key."""
    holder: bytes | None = scope["fivescore.key"]
    return holder


def open_routes(named: Iterable[str], existing: Collection[str]) -> frozenset[str]:
    """The paths that require no key: ``OPEN``, and those that the operator named.

    Raises:
        ConfigurationError: one of them is not a route; lists the routes.
    """
    for path in named:
        if path not in existing:
            routes = ", ".join(sorted(set(existing) - OPEN))
            raise ConfigurationError(f"--open-routes: there is no {path!r}; there are {routes}")
    return OPEN.union(named)


def _offered(scope: Scope) -> Iterator[bytes]:
    for name, value in scope["headers"]:
        if name == b"authorization":
            kind, _, rest = value.strip().partition(b" ")
            if kind.lower() == b"bearer":
                yield rest.strip()
            elif kind.lower() == b"basic":
                yield _password(rest)
    for part in scope["query_string"].split(b"&"):
        name, _, value = part.partition(b"=")
        if name == b"api_key":  # a plus stays: keys are pasted into URLs unescaped
            yield unquote_to_bytes(value)


def _password(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
