"""Who may ask. Every route but the probes and the page wants a key once the service has keys."""

from __future__ import annotations

import base64
import binascii
import hmac
from collections.abc import Iterator, Sequence
from urllib.parse import unquote_to_bytes

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fivescore.errors import Unauthorized
from fivescore.http.problems import on_error

OPEN = frozenset({"/", "/health", "/health/live", "/health/ready"})
"""A browser opens the page without a key; the page holds no data, and asks for the key itself."""


class Keys:
    """ASGI middleware: a request without one of ``keys`` is answered with 401, its body unread.

    A key comes as ``Authorization: Bearer KEY``, as the password of ``Authorization: Basic``, which
    is what ``http://any:KEY@host`` sends, or as ``?api_key=KEY``: some trainers can set only a URL.
    """

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self._app = app
        self._keys = [key.encode() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in OPEN or self._admits(scope):
            await self._app(scope, receive, send)
            return
        error = Unauthorized(
            "send one of the service's keys: Authorization: Bearer KEY, a Basic password, or"
            " ?api_key=KEY"
        )
        response = await on_error(Request(scope), error)
        await response(scope, receive, send)

    def _admits(self, scope: Scope) -> bool:
        # compare_digest takes the same time for every guess of a key.
        return not self._keys or any(
            hmac.compare_digest(offered, key) for offered in _offered(scope) for key in self._keys
        )


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
        if name == b"api_key":  # a plus is a plus: nobody escapes a key that they paste into a URL
            yield unquote_to_bytes(value)


def _password(encoded: bytes) -> bytes:
    try:
        return base64.b64decode(encoded.strip(), validate=True).partition(b":")[2]
    except binascii.Error:
        return b""
