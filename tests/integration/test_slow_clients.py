"""Clients that are slow, silent, too many or do not speak HTTP, on sockets of a real process."""

from __future__ import annotations

import asyncio
import json
import re
import resource
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from urllib.parse import urlsplit

import httpx
import pytest

from tests.integration.process import ServerProcess, server
from tests.integration.service import PAIR, assert_problem, metric

LONGEST_SECONDS = 30
WINDOW_SECONDS = 0.5
BYTES_A_SECOND = 2000
BODY_BYTES = 2**24
RECEIVING_BYTES = 2 * BODY_BYTES
FLAGS = (
    "--header-timeout-seconds", "0.5",
    "--client-timeout-seconds", str(WINDOW_SECONDS),
    "--client-min-bytes-per-second", str(BYTES_A_SECOND),
    "--keep-alive-seconds", "1",
    "--max-header-bytes", "4096",
    "--max-headers", "20",
    "--max-target-bytes", "1000",
    "--max-body-bytes", str(BODY_BYTES),
    "--max-receiving-bytes", str(RECEIVING_BYTES),
)  # fmt: skip
FEW = 6
BODY = json.dumps(PAIR).encode()


class Wire:
    """A connection, byte by byte; nothing here waits for ever."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def answer(self) -> httpx.Response:
        async with asyncio.timeout(LONGEST_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode()
            lines = head.strip().split("\r\n")
            pairs = (line.split(": ", 1) for line in lines[1:])
            headers = {name.lower(): value for name, value in pairs}
            body = await self.reader.readexactly(int(headers.get("content-length", 0)))
            return httpx.Response(int(lines[0].split()[1]), headers=headers, content=body)

    async def closed(self) -> bytes:
        """What still comes until the server closes; a reset is an end too."""
        async with asyncio.timeout(LONGEST_SECONDS):
            try:
                return await self.reader.read()
            except ConnectionResetError:
                return b""


def request(body: bytes = BODY, *headers: str, path: str = "/score") -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join([*lines, "", ""]).encode() + body


def head(*headers: str, path: str = "/score") -> bytes:
    return "\r\n".join([f"POST {path} HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


@pytest.fixture(scope="module", autouse=True)
def _enough_files() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.fixture(scope="module")
def strict() -> Iterator[ServerProcess]:
    with server(*FLAGS) as process:
        yield process.ready()


@pytest.fixture(scope="module")
def small() -> Iterator[ServerProcess]:
    with server("--max-connections", str(FEW), "--header-timeout-seconds", "2") as process:
        yield process.ready()


@asynccontextmanager
async def wire(process: ServerProcess, receive_buffer: int | None = None) -> AsyncIterator[Wire]:
    address = urlsplit(process.url)
    client = socket.socket()
    if receive_buffer:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
    client.setblocking(False)
    await asyncio.get_running_loop().sock_connect(client, (address.hostname, address.port))
    reader, writer = await asyncio.open_connection(sock=client, limit=2**16)
    try:
        yield Wire(reader, writer)
    finally:
        writer.transport.abort()


@asynccontextmanager
async def silent_connections(url: str, count: int) -> AsyncIterator[list[asyncio.StreamReader]]:
    address = urlsplit(url)
    opened = [await asyncio.open_connection(address.hostname, address.port) for _ in range(count)]
    try:
        yield [reader for reader, _ in opened]
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def closings(process: ServerProcess, reason: str) -> float:
    async with httpx.AsyncClient() as http:
        text = (await http.get(f"{process.url}/metrics")).text
    return metric(text, "fivescore_connections_closed_total", reason=reason)


@asynccontextmanager
async def closing_for(process: ServerProcess, reason: str) -> AsyncIterator[None]:
    """Exactly one connection is closed for the reason, and the log says so."""
    before, told = await closings(process, reason), process.log.count(f": {reason}")
    yield
    assert await closings(process, reason) == before + 1
    if reason != "idle":  # which is nobody's fault
        process.wait_for(rf"(?s)((: {reason}\b.*){{{told + 1}}})")
        assert process.log.count(f": {reason}") == told + 1


SLOW = {
    "no end of the head": ("head", b"POST /score HTTP/1.1\r\nHost: localhost\r\n", b""),
    "dripped head": ("head", b"POST /", b"a"),
    "empty lines": ("head", b"\r\n", b"\r\n"),
    "no body": ("body", head("Content-Length: 1000"), b""),
    "a byte of the body": ("body", head("Content-Length: 1000") + b"{", b""),
    "some of the body": ("body", head("Content-Length: 1000") + b'{"prompt": "', b""),
    "dripped body": ("body", head("Transfer-Encoding: chunked"), chunk(b" ")),
}


@pytest.mark.parametrize(("part", "sent", "drip"), SLOW.values(), ids=SLOW.keys())
async def test_who_sends_too_slowly_is_408(
    strict: ServerProcess, part: str, sent: bytes, drip: bytes
) -> None:
    async with closing_for(strict, f"slow_{part}"), wire(strict) as slow:
        await slow.send(sent)
        answer = asyncio.create_task(slow.answer())
        while not answer.done():
            await slow.send(drip)
            await asyncio.sleep(0.05)
        detail = assert_problem(await answer, 408, "request_timeout")["detail"]
        assert {"head": "header_timeout_seconds", "body": "client_timeout_seconds"}[part] in detail
        assert await slow.closed() == b""


async def test_a_body_that_takes_long_at_a_good_rate_is_answered(strict: ServerProcess) -> None:
    steps, size = 30, BYTES_A_SECOND // 2  # a tenth of a second each, five times the least rate
    async with wire(strict) as client:
        await client.send(head(f"Content-Length: {steps * size + len(BODY)}"))
        for _ in range(steps):
            await client.send(b" " * size)
            await asyncio.sleep(0.1)
        await client.send(BODY)
        assert (await client.answer()).status_code == 200


async def test_a_client_that_does_not_read_is_cut_off(strict: ServerProcess) -> None:
    echoed = {"responses_create_params": {"input": "Q"}, "response": {}, "note": "x" * 12_000_000}
    async with closing_for(strict, "slow_reader"), wire(strict, 4096) as deaf:
        deaf.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await deaf.send(request(json.dumps(echoed).encode(), path="/verify"))
        async with asyncio.timeout(LONGEST_SECONDS):
            while ": slow_reader" not in strict.log.rpartition("/verify")[2]:  # noqa: ASYNC110
                await asyncio.sleep(0.05)


async def test_a_client_that_reads_slowly_but_well_gets_all(strict: ServerProcess) -> None:
    note = "x" * 12_000_000
    echoed = {"responses_create_params": {"input": "Q"}, "response": {}, "note": note}
    async with wire(strict, 4096) as client:
        await client.send(request(json.dumps(echoed).encode(), path="/verify"))
        async with asyncio.timeout(LONGEST_SECONDS):
            answer_head = await client.reader.readuntil(b"\r\n\r\n")
            found = re.search(rb"content-length: (\d+)", answer_head)
            assert found
            for _ in range(8):  # a reader takes what it wants in half a window, for four of them
                await asyncio.sleep(WINDOW_SECONDS / 2)
                await client.reader.readexactly(100_000)
            rest = await client.reader.readexactly(int(found[1]) - 800_000)
        assert rest.endswith(b"}")


@pytest.mark.parametrize("first", [b"", request()], ids=["fresh", "used"])
async def test_an_idle_connection_is_closed(strict: ServerProcess, first: bytes) -> None:
    async with closing_for(strict, "idle"), wire(strict) as idle:
        if first:
            await idle.send(first)
            assert (await idle.answer()).status_code == 200
        assert await idle.closed() == b""


async def test_requests_follow_each_other_on_one_connection(strict: ServerProcess) -> None:
    async with wire(strict) as client:
        for _ in range(3):
            await client.send(request(BODY, "Content-Encoding: identity"))
            assert (await client.answer()).status_code == 200
            await asyncio.sleep(WINDOW_SECONDS)  # no clock of the one before goes on
        await client.send(request() * 3)
        assert [(await client.answer()).status_code for _ in range(3)] == [200] * 3


async def test_the_end_of_a_large_body_does_not_count_for_the_next_head(
    strict: ServerProcess,
) -> None:
    large = request(b" " * 200_000 + BODY)
    async with wire(strict) as client:
        for _ in range(3):
            await client.send(large + request()[:20])
            assert (await client.answer()).status_code == 200
            await client.send(request()[20:])
            assert (await client.answer()).status_code == 200


LONG = "x" * 1200
TOO_MUCH = {
    "target": (head(path=f"/score?{LONG}"), 414, "target_too_long", "target_too_long"),
    "endless target": (b"POST /" + b"x" * 5000, 414, "target_too_long", "target_too_long"),
    "one header": (head(f"X-A: {LONG * 4}"), 431, "header_too_large", "head_too_large"),
    "endless header": (
        head(f"X-A: {LONG * 4}").rstrip(), 431, "header_too_large", "head_too_large"
    ),
    "headers": (
        head(*[f"X-{i}: {LONG[:300]}" for i in range(15)]), 431, "header_too_large",
        "head_too_large",
    ),
    "count": (head(*(f"X-{i}: 1" for i in range(30))), 431, "header_too_large", "head_too_large"),
    "gzip": (
        request(b"\x1f\x8b", "Content-Encoding: gzip"), 415, "unsupported_encoding", "encoding"
    ),
    "garbage": (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03", 400, "malformed_http", "malformed"),
    "no number": (head("Content-Length: many"), 400, "malformed_http", "malformed"),
    "negative": (head("Content-Length: -1"), 400, "malformed_http", "malformed"),
    "overflow": (head("Content-Length: 1" + "0" * 30), 400, "malformed_http", "malformed"),
    "two lengths": (
        head("Content-Length: 2", "Transfer-Encoding: chunked") + b"2\r\n{}\r\n0\r\n\r\n",
        400, "malformed_http", "malformed",
    ),
    "two hosts": (head("Host: localhost"), 400, "malformed_http", "malformed"),
    "no host": (b"GET /version HTTP/1.1\r\n\r\n", 400, "malformed_http", "malformed"),
    **{
        coding: (
            head(*(f"Transfer-Encoding: {one}" for one in coding.split(" | "))) + chunk(b""),
            501, "unsupported_encoding", "encoding",
        )
        for coding in ("gzip, chunked", "gzip | chunked", "identity | chunked")
    },
    "chunks in HTTP/1.0": (
        head("Transfer-Encoding: chunked").replace(b"/1.1", b"/1.0") + chunk(b""),
        400, "malformed_http", "malformed",
    ),
    "chunk size": (
        head("Transfer-Encoding: chunked") + b"zz\r\n", 400, "malformed_http", "malformed"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", TOO_MUCH.values(), ids=TOO_MUCH.keys())
async def test_what_no_route_should_see_is_refused(
    strict: ServerProcess, case: tuple[bytes, int, str, str]
) -> None:
    sent, status, code, reason = case
    async with closing_for(strict, reason), wire(strict) as client:
        await client.send(sent)
        assert_problem(await client.answer(), status, code)
        assert await client.closed() == b""


async def test_many_small_chunks_with_a_few_extensions_are_a_body(strict: ServerProcess) -> None:
    async with wire(strict) as client:
        for _ in range(2):
            await client.send(head("Transfer-Encoding: chunked"))
            for byte in b" " * 3000 + BODY:
                client.writer.write(b"1\r\n%c\r\n" % byte)
            await client.send(b"0;last=yes\r\nX-Checksum: 1\r\n\r\n")
            assert (await client.answer()).status_code == 200


async def test_http_1_0_needs_no_host(strict: ServerProcess) -> None:
    async with wire(strict) as client:
        await client.send(b"GET /version HTTP/1.0\r\n\r\n")
        assert (await client.answer()).status_code == 200


TRAILERS = {
    "X-Priority": "none",
    "X-Request-Id": "a-trailer",
    "Origin": "http://evil.example",
    "Host": "evil.example",
    "Content-Encoding": "gzip",
}


@pytest.mark.parametrize("name", TRAILERS)
@pytest.mark.parametrize("packets", [1, 2])
async def test_a_trailer_is_no_header(strict: ServerProcess, name: str, packets: int) -> None:
    parts = [
        head("Transfer-Encoding: chunked") + chunk(BODY),
        f"0\r\n{name}: {TRAILERS[name]}\r\n\r\n".encode(),
    ]
    async with wire(strict) as client:
        for part in [b"".join(parts)] if packets == 1 else parts:
            await client.send(part)
        answer = await client.answer()
        assert answer.status_code == 200
        assert answer.headers["x-request-id"] != "a-trailer"


async def test_a_key_in_a_trailer_opens_nothing() -> None:
    trailer = b"0\r\nAuthorization: Bearer a-key\r\n\r\n"
    with server("--api-key", "a-key") as process:
        async with wire(process.ready()) as client:
            await client.send(head("Transfer-Encoding: chunked") + chunk(BODY) + trailer)
            assert_problem(await client.answer(), 401, "unauthorized")


CHUNKED = head("Transfer-Encoding: chunked")


@pytest.mark.parametrize(
    ("begun", "more"),
    [
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: ", b"x" * 1000),
        (CHUNKED + b"1;a=", b"x" * 1000),
        (CHUNKED, b"1;a=" + b"x" * 1000 + b"\r\n \r\n"),
        (CHUNKED + b"0\r\nX-A: ", b"x" * 1000),
        (CHUNKED + b"0\r\n", b"X-A: " + b"x" * 1000 + b"\r\n"),
    ],
    ids=["header", "extension", "extensions", "trailer", "trailers"],
)
async def test_what_surrounds_a_body_is_read_no_further_than_the_limit(
    strict: ServerProcess, begun: bytes, more: bytes
) -> None:
    async with wire(strict) as client:
        await client.send(begun)
        answer = asyncio.create_task(client.answer())
        while not answer.done():
            await client.send(more)
            await asyncio.sleep(0.01)
        problem = assert_problem(await answer, 431, "header_too_large")
        assert "max_header_bytes" in problem["detail"]


async def test_a_chunked_body_is_refused_at_the_limit(strict: ServerProcess) -> None:
    async with wire(strict) as client:
        await client.send(head("Transfer-Encoding: chunked"))
        answer = asyncio.create_task(client.answer())
        for _ in range(BODY_BYTES // 100_000 + 1):
            await client.send(chunk(b" " * 100_000))
        assert_problem(await answer, 413, "body_too_large")
        await client.send(chunk(b""))  # the rest is discarded, and the next is served
        await client.send(head("Transfer-Encoding: chunked") + chunk(BODY[:9]))
        await client.send(chunk(BODY[9:]) + chunk(b""))
        assert (await client.answer()).status_code == 200


async def test_a_refused_body_that_does_not_end_is_cut_off(strict: ServerProcess) -> None:
    async with closing_for(strict, "unread_body"), wire(strict) as client:
        await client.send(head(f"Content-Length: {10**12}"))
        assert_problem(await client.answer(), 413, "body_too_large")
        closed = asyncio.create_task(client.closed())
        while not closed.done():
            client.writer.write(b"x" * 1000)
            await asyncio.sleep(0.01)


async def test_bodies_that_drip_hold_no_more_than_their_limit_together(
    strict: ServerProcess,
) -> None:
    part = BODY_BYTES // 4
    async with AsyncExitStack() as stack:
        drips = [await stack.enter_async_context(wire(strict)) for _ in range(16)]
        for one in drips:
            await one.send(head(f"Content-Length: {BODY_BYTES}"))
        answers = [asyncio.create_task(one.answer()) for one in drips]

        async def drip(one: Wire) -> None:
            with suppress(ConnectionError):
                await one.send(b" " * part)
                while True:
                    await one.send(b" " * 1000)
                    await asyncio.sleep(0.1)

        dripping = [asyncio.create_task(drip(one)) for one in drips]
        async with httpx.AsyncClient(base_url=strict.url, timeout=LONGEST_SECONDS) as http:
            refused = 0
            while refused < 8:
                assert (await http.post("/score", content=BODY)).status_code == 200
                metrics = (await http.get("/metrics")).text
                assert metric(metrics, "fivescore_receiving_bytes") <= RECEIVING_BYTES
                refused = sum(answer.done() for answer in answers)
            name = "fivescore_admission_rejections_total"
            assert metric(metrics, name, reason="bytes") >= 1
        for task in dripping:
            task.cancel()
        for answer in answers:
            if answer.done():
                problem = assert_problem(await answer, 503, "overloaded")
                assert problem["limit"] == RECEIVING_BYTES
            answer.cancel()


async def test_expect_100_continue_is_honoured(strict: ServerProcess) -> None:
    expect = head("Expect: 100-continue", f"Content-Length: {len(BODY)}")
    async with wire(strict) as client:
        await client.send(expect)
        assert (await client.answer()).status_code == 100
        await client.send(BODY)
        assert (await client.answer()).status_code == 200


async def test_a_body_that_will_be_refused_is_not_asked_for(strict: ServerProcess) -> None:
    async with wire(strict) as client:
        await client.send(head("Expect: 100-continue", f"Content-Length: {10**12}"))
        assert_problem(await client.answer(), 413, "body_too_large")
        assert await client.closed() == b""  # whether a body follows is unclear


async def test_a_body_longer_than_its_length_spoils_only_what_follows(
    strict: ServerProcess,
) -> None:
    async with wire(strict) as client:
        await client.send(head(f"Content-Length: {len(BODY)}") + BODY)
        assert (await client.answer()).status_code == 200
        await client.send(b'"}garbage\r\n\r\n')
        assert_problem(await client.answer(), 400, "malformed_http")


async def test_connections_over_the_limit_are_told_so_and_probes_answered(
    small: ServerProcess,
) -> None:
    async with silent_connections(small.url, FEW):
        async with wire(small) as late:
            await late.send(request())
            problem = assert_problem(await late.answer(), 503, "too_many_connections")
            assert "max_connections" in problem["detail"]
        for path in ("/health/ready", "/metrics"):
            async with wire(small) as probe:
                await probe.send(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                answer = await probe.answer()
                assert (answer.status_code, answer.headers["connection"]) == (200, "close")
                await probe.closed()
        async with wire(small) as silent:  # has the time of a head, not that of an idle one
            assert_problem(await silent.answer(), 408, "request_timeout")
        assert await closings(small, "too_many") == 1
    async with wire(small) as client:
        await asyncio.sleep(0.2)
        await client.send(request())
        assert (await client.answer()).status_code == 200


async def test_no_more_connections_than_the_limit_and_a_reserve_are_kept(
    small: ServerProcess,
) -> None:
    before = await closings(small, "too_many")
    async with silent_connections(small.url, FEW + 100) as flood:
        ended = [asyncio.create_task(reader.read()) for reader in flood]
        done, _ = await asyncio.wait(ended, timeout=1)
        assert len(done) >= 100 - 64
        assert all(isinstance(t.exception(), ConnectionError) or t.result() == b"" for t in done)
    await asyncio.gather(*ended, return_exceptions=True)
    assert await closings(small, "too_many") >= before + 36


async def test_two_thousand_idle_connections_leave_room_for_traffic(url: str) -> None:
    async with (
        silent_connections(url, 2000),
        httpx.AsyncClient(base_url=url, timeout=LONGEST_SECONDS) as http,
    ):
        text = (await http.get("/metrics")).text
        assert metric(text, "fivescore_open_connections") >= 2000
        wanted = (await http.post("/score", content=BODY)).json()["reward"]
        answers = await asyncio.gather(*(http.post("/score", content=BODY) for _ in range(50)))
    assert {answer.json()["reward"] for answer in answers} == {wanted}
