"""One HTTP exchange: an answer of bounded size, and whether it belongs to its own request.

Each request has an id of its own (``X-Request-Id``), which a fivescore server repeats in the header
and, of ``POST /score``, in the body of its answer. An answer that has the id of another request,
because it came twice on a kept connection or from somebody's cache, is never read as this one's.
Where a proxy takes ids away, a request has a connection of its own instead.

A connection whose other end is gone without a word, because its machine or a firewall between has
lost it, would be waited on until the request's timeout. TCP asks the other end while nothing comes:
its kernel answers, however long the server computes.
"""

from __future__ import annotations

import json
import logging
import re
import socket
import ssl
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any

import httpx

from fivescore.client.errors import BadAnswer
from fivescore.client.retry import Failure, Retry, retry_for

log = logging.getLogger(__name__)

CONNECT_SECONDS = 10.0
"""Time limit for opening a connection."""
SILENT_SECONDS, PROBE_SECONDS, PROBES = 20, 10, 3
"""A connection on which nothing comes for so long is probed, so often, and is lost when so many
probes are not answered: after 50 s. Longer than a network takes to find another way."""
_LIVENESS = {
    "TCP_KEEPIDLE": SILENT_SECONDS, "TCP_KEEPALIVE": SILENT_SECONDS,  # the name on macOS
    "TCP_KEEPINTVL": PROBE_SECONDS, "TCP_KEEPCNT": PROBES,
    # What was sent and is not acknowledged, in milliseconds: it is not probed for. Linux alone.
    "TCP_USER_TIMEOUT": (SILENT_SECONDS + PROBES * PROBE_SECONDS) * 1000,
}  # fmt: skip
MOST_BYTES = 2**20
"""Limit of an answer's size, beside its pairs: a problem document with 100 faults has 0.1 MB."""
PAIR_BYTES = 2**14
"""What each pair of a request adds to that limit: an entry of nine attributes has 400 bytes."""
HEADER = "X-Request-Id"
_IDS = re.compile(r"fivescore-[0-9a-f]{32}")
"""The ids of this client: who finds another one knows that it has another request's answer."""


class Tie(Enum):
    """Whose answer it is, by its id."""

    OWN = auto()
    ANOTHER = auto()
    UNKNOWN = auto()
    """It has no id, or one that a proxy or the server has made."""


@dataclass(frozen=True)
class Answer:
    """An HTTP answer that has been read."""

    url: str
    status: int
    reason: str
    headers: Mapping[str, str]
    content: bytes
    fault: str = ""
    """Why ``content`` is not all of it; empty where it is."""

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def json(self) -> Any:
        """The content as JSON.

        Raises:
            ValueError: it is none, or is nested too deeply.
        """
        try:
            return json.loads(self.content)
        except RecursionError:
            raise ValueError("nested too deeply") from None


class Connections:
    """Connections to servers, of one event loop.

    Args:
        kept: keeps connections open for later requests.
        single: opens a connection for each request.
    """

    def __init__(self, kept: httpx.AsyncClient, single: httpx.AsyncClient) -> None:
        self._kept, self._single = kept, single
        self._untied: set[str] = set()
        """URLs whose answers have no ids that we know."""

    async def post(
        self, url: str, content: bytes, headers: Mapping[str, str], most_bytes: int = MOST_BYTES
    ) -> Answer:
        """Send a request; returns its answer, with at most ``most_bytes`` of content.

        Raises:
            httpx.RequestError: there was no answer.
            Failure: the answer belongs to another request.
        """
        if url not in self._untied:
            answer, tie = await _ask(self._kept, url, content, headers, most_bytes)
            if tie is Tie.OWN or (tie is Tie.UNKNOWN and _is_retried(answer)):
                return answer
            if tie is Tie.UNKNOWN and answer.is_success:
                self._untied.add(url)
                log.warning(
                    "%s answers without the %s of its requests, so each has a connection of its"
                    " own, which is slower: let proxies pass this header both ways", url, HEADER
                )  # fmt: skip
        alone = {**headers, "Connection": "close"}
        answer, tie = await _ask(self._single, url, content, alone, most_bytes)
        if tie is Tie.ANOTHER:
            reason = (
                f"{url} answered with the {HEADER} of another request: does something between"
                " keep answers, or mix them up?"
            )
            raise Failure(BadAnswer(reason), Retry.FEW_TIMES)
        return answer

    async def aclose(self) -> None:
        """Close all connections."""
        await self._kept.aclose()
        await self._single.aclose()


def connect(
    most_connections: int,
    verify: ssl.SSLContext | bool = True,
    transport: httpx.AsyncBaseTransport | None = None,
) -> Connections:
    """Connections that are opened when they are needed; timeouts of answers are the caller's."""

    def client(keep: int | None) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=verify,
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=most_connections, max_keepalive_connections=keep),
            transport=transport,
        )

    return Connections(client(None), client(0))


async def _ask(
    http: httpx.AsyncClient,
    url: str,
    content: bytes,
    headers: Mapping[str, str],
    most_bytes: int,
) -> tuple[Answer, Tie]:
    request_id = f"fivescore-{uuid.uuid4().hex}"
    ours = {**headers, HEADER: request_id, "Accept-Encoding": "identity"}
    extensions = {"trace": _keep_alive}
    async with http.stream(
        "POST", url, content=content, headers=ours, extensions=extensions
    ) as response:
        tie = _tie(response.headers.get(HEADER), request_id)
        if tie is Tie.ANOTHER:  # closed unread, as whatever comes on this connection is late too
            return _answer(response, b""), tie
        answer = await _aread(response, most_bytes)
    if tie is Tie.UNKNOWN:
        tie = _tie(_id_in(answer), request_id)
    return answer, tie


async def _keep_alive(event: str, facts: Mapping[str, Any]) -> None:
    """Have TCP watch a connection that has just been opened; httpx's hook, with a proxy too."""
    if event != "connection.connect_tcp.complete":
        return
    opened = facts["return_value"].get_extra_info("socket")
    if opened is None:
        return
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in _LIVENESS.items():
        if hasattr(socket, name):
            opened.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def _tie(found: Any, request_id: str) -> Tie:
    ids = set(_IDS.findall(found)) if isinstance(found, str) else set()
    if ids == {request_id}:
        return Tie.OWN
    return Tie.ANOTHER if ids else Tie.UNKNOWN


def _id_in(answer: Answer) -> Any:
    try:
        return answer.json()["request_id"]
    except (ValueError, LookupError, TypeError):
        return None


def _is_retried(answer: Answer) -> bool:
    return retry_for(answer.status, "") in (Retry.ANOTHER_REPLICA, Retry.SAME_REPLICA)


def read(response: httpx.Response, most_bytes: int = MOST_BYTES) -> Answer:
    """Read a streamed answer, up to ``most_bytes`` of its content."""
    if fault := _encoded(response):
        return _answer(response, b"", fault)
    content = bytearray()
    for chunk in response.iter_bytes():
        content += chunk
        if len(content) > most_bytes:
            return _answer(response, bytes(content[:most_bytes]), _too_large(most_bytes))
    return _answer(response, bytes(content))


async def _aread(response: httpx.Response, most_bytes: int) -> Answer:
    if fault := _encoded(response):
        return _answer(response, b"", fault)
    content = bytearray()
    async for chunk in response.aiter_bytes():
        content += chunk
        if len(content) > most_bytes:
            return _answer(response, bytes(content[:most_bytes]), _too_large(most_bytes))
    return _answer(response, bytes(content))


def _encoded(response: httpx.Response) -> str:
    """Why a compressed answer is not read: a small one can hold any number of bytes."""
    encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
    return "" if encoding == "identity" else f"Content-Encoding {encoding[:40]}, not asked for"


def _too_large(most_bytes: int) -> str:
    return f"more than {most_bytes} bytes"


def _answer(response: httpx.Response, content: bytes, fault: str = "") -> Answer:
    return Answer(
        str(response.url), response.status_code, response.reason_phrase, response.headers, content,
        fault,
    )  # fmt: skip
