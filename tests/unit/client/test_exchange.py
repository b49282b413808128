"""An answer is read only as that of its own request, on real connections, and never without end."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import re
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import psutil
import pytest

from fivescore.client import AsyncRewardClient, BadAnswer, Unreachable
from fivescore.client.exchange import MOST_BYTES
from fivescore.errors import FivescoreError, RequestError
from fivescore.types import Score
from tests.unit.client.fakes import Hurry, pairs, score

Headers = dict[str, str]
COUNT = 12


class Wire:
    """A server by hand: writes what ``mangle`` makes of each right answer's bytes.

    ``echo`` changes the id that an answer repeats; None leaves it out.
    """

    def __init__(
        self,
        mangle: Callable[[bytes, list[bytes]], bytes] = lambda answer, before: answer,
        echo: Callable[[str], str | None] = lambda request_id: request_id,
    ) -> None:
        self._mangle, self._echo = mangle, echo
        self.connections = 0
        self.requests = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        before: list[bytes] = []
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
                body = await reader.readexactly(int(found(r"content-length: (\d+)", head)))
                self.requests += 1
                answer = self._answer(head, json.loads(body)["pairs"])
                writer.write(self._mangle(answer, before))
                before.append(answer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    def _answer(self, head: str, asked: list[Any]) -> bytes:
        scores = [score(float(pair["response"])) for pair in asked]
        echo = self._echo(found(r"x-request-id: (\S+)", head))
        headers = {} if echo is None else {"X-Request-Id": echo}
        return answered(json.dumps({"scores": scores}).encode(), headers)


def found(pattern: str, head: str) -> str:
    match = re.search(pattern, head, re.IGNORECASE)
    assert match, head
    return match[1]


def answered(content: bytes, headers: Headers, status: str = "200 OK") -> bytes:
    fields = {"Content-Length": str(len(content)), **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + content


@asynccontextmanager
async def client_of(wire: Wire, **options: Any) -> AsyncIterator[AsyncRewardClient]:
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    options = {"batch_size": 1, "concurrency": 1, "clock": Hurry(), **options}
    async with server, AsyncRewardClient(url, **options) as client:
        yield client


async def rewards(client: AsyncRewardClient, **options: Any) -> list[float | None]:
    found = await client.score(pairs(COUNT, prompts=COUNT), errors="none", **options)
    return [one.reward if isinstance(one, Score) else None for one in found]


def twice(answer: bytes, before: list[bytes]) -> bytes:
    return answer + answer


def late(answer: bytes, before: list[bytes]) -> bytes:
    """Each answer is that of the request before; the first is nobody's."""
    return before[-1] if before else answered(b'{"scores": []}', {"X-Request-Id": OTHER})


def the_first_again(answer: bytes, before: list[bytes]) -> bytes:
    return before[0] if before else answer


def early_timeout(answer: bytes, before: list[bytes]) -> bytes:
    """As load balancers write onto a connection that was idle: an answer to no request."""
    return answered(b"idle", {}, "400 Bad Request") if before else answer


OTHER = f"fivescore-{0:032x}"
RIGHT = [float(n) for n in range(COUNT)]


@pytest.mark.parametrize("concurrency", [1, 4])
@pytest.mark.parametrize("mangle", [twice, late, the_first_again, early_timeout])
async def test_the_answer_to_another_request_is_never_this_ones(
    mangle: Callable[[bytes, list[bytes]], bytes], concurrency: int
) -> None:
    def mangled(answer: bytes, before: list[bytes]) -> bytes:
        if mangle is late and wire.connections % 2 == 0:  # or there would be no right one at all
            return answer
        return mangle(answer, before)

    wire = Wire(mangled)
    async with client_of(wire, concurrency=concurrency) as client:
        assert await rewards(client) == RIGHT


@pytest.mark.parametrize("mangle", [twice, the_first_again])
@pytest.mark.parametrize("echo", [lambda sent: None, lambda sent: f"proxy-{len(sent)}"])
async def test_behind_a_proxy_that_takes_ids_away_each_request_has_a_connection(
    mangle: Callable[[bytes, list[bytes]], bytes],
    echo: Callable[[str], str | None],
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = Wire(mangle, echo)
    async with client_of(wire) as client:
        assert await rewards(client) == RIGHT
    assert wire.connections == COUNT + 1  # the first was asked again
    (line,) = [record.message for record in caplog.records if "X-Request-Id" in record.message]
    assert "pass this header" in line


async def test_a_server_that_has_only_answers_to_others_is_refused_by_name() -> None:
    wire = Wire(echo=lambda sent: OTHER)
    async with client_of(wire) as client:
        (error,) = await client.score(pairs(1), errors="return")
    assert isinstance(error, BadAnswer)
    assert "X-Request-Id of another request" in error.detail


async def test_an_id_in_the_body_ties_where_the_header_is_taken_away() -> None:
    def moved(answer: bytes, before: list[bytes]) -> bytes:
        head, _, content = answer.partition(b"\r\n\r\n")
        document = {
            **json.loads(content),
            "request_id": found(r"x-request-id: (\S+)", head.decode()),
        }
        return answered(json.dumps(document).encode(), {})

    wire = Wire(moved)
    async with client_of(wire) as client:
        assert await rewards(client) == RIGHT
    assert wire.connections == 1


async def test_connections_are_kept_where_every_answer_is_its_own() -> None:
    wire = Wire()
    async with client_of(wire) as client:
        assert await rewards(client) == RIGHT
    assert (wire.connections, wire.requests) == (1, COUNT)


async def test_a_lost_connection_is_named_in_the_systems_words() -> None:
    async def drop(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        linger = struct.pack("ii", 1, 0)  # so that closing it resets the connection
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        writer.transport.abort()

    server = await asyncio.start_server(drop, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    async with server, AsyncRewardClient(url, deadline_seconds=0) as client:
        (error,) = await client.score(pairs(1), errors="return")
    assert isinstance(error, Unreachable)
    assert error.detail == f"{url}: [Errno 104] Connection reset by peer"


WATCHED = (
    socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL, socket.TCP_KEEPCNT, socket.TCP_USER_TIMEOUT,
)  # fmt: skip


@pytest.mark.parametrize("proxied", [False, True])
async def test_a_connection_is_probed_while_nothing_comes(
    proxied: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer that is gone without a word is noticed within a minute, not at the request's end."""
    options: list[int] = []

    def look(answer: bytes, before: list[bytes]) -> bytes:
        (opened,) = (one for one in psutil.Process().net_connections() if one.raddr == served)
        with socket.socket(fileno=os.dup(opened.fd)) as sock:
            options.append(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            options.extend(sock.getsockopt(socket.IPPROTO_TCP, name) for name in WATCHED)
        return answer

    server = await asyncio.start_server(Wire(look).serve, "127.0.0.1", 0)
    served = server.sockets[0].getsockname()
    url = f"http://127.0.0.1:{served[1]}"
    if proxied:
        monkeypatch.setenv("http_proxy", url)
        url = "http://rm.example:8000"
    async with server, AsyncRewardClient(url, clock=Hurry()) as client:
        assert len(await client.score(pairs(1))) == 1
    enabled, silent, between, probes, unacknowledged = options
    assert enabled
    assert silent + between * probes <= 60
    assert unacknowledged == 1000 * (silent + between * probes)


ENDLESS = {"Content-Length": str(2**40)}


@pytest.mark.parametrize("status", ["200 OK", "400 Bad Request", "500 Oh"])
@pytest.mark.parametrize(
    ("content", "headers"),
    [
        (gzip.compress(bytes(30_000_000)), {"Content-Encoding": "gzip"}),
        (bytes(MOST_BYTES * 2), {}),
        (b"[" * MOST_BYTES, {}),
        (bytes(MOST_BYTES * 2), ENDLESS),
    ],
    ids=["gzip", "large", "nested", "endless"],
)
async def test_an_answer_is_read_up_to_its_limit(
    status: str, content: bytes, headers: Headers
) -> None:
    def hostile(answer: bytes, before: list[bytes]) -> bytes:
        echo = found(r"X-Request-Id: (\S+)", answer.decode())
        return answered(content, {"X-Request-Id": echo, **headers}, status)

    async with client_of(Wire(hostile)) as client:
        scoring = client.score(pairs(1), errors="return")
        if status.startswith("400"):
            with pytest.raises(RequestError, match="answered 400"):
                await scoring
            return
        (error,) = await scoring
    assert isinstance(error, FivescoreError)
    assert error.code == ("bad_answer" if status.startswith("200") else "http_500")
