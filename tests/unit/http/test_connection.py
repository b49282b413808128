"""A connection's one clock, and answers whose head and body are one packet."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Coroutine, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import uvicorn

from fivescore.http.connection import LINGER_SECONDS, Connection, _Whole
from fivescore.http.uvicorn_internals import Server
from fivescore.settings import Settings
from fivescore.telemetry.metrics import Metrics

SETTINGS = Settings(
    keep_alive_seconds=75, header_timeout_seconds=3, client_timeout_seconds=20,
    client_min_bytes_per_second=100,
)  # fmt: skip
ANSWER = b"x" * 10_000
HEAD = b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n"
REQUEST = HEAD + b"\r\n{}"


class Transport:
    """Records what is written to it, packet by packet; ``unread`` bytes are still in its buffer."""

    def __init__(self) -> None:
        self.packets: list[bytes] = []
        self.unread = 0
        self.closed = self.aborted = False
        self._socket = socket.socket()

    def write(self, data: bytes) -> None:
        assert not self.closed
        self.packets.append(data)

    def writelines(self, data: tuple[bytes, ...]) -> None:
        self.write(b"".join(data))

    def can_write_eof(self) -> bool:
        return False

    def get_write_buffer_size(self) -> int:
        return self.unread

    def get_extra_info(self, name: str) -> Any:
        return self._socket if name == "socket" else None

    def pause_reading(self) -> None:
        """Nothing is read that a test does not feed."""

    resume_reading = pause_reading

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def is_closing(self) -> bool:
        return self.closed

    def release(self) -> None:
        self._socket.close()


class Clock:
    """Stands for the event loop: its timer ends when the test says so."""

    def __init__(self) -> None:
        self.seconds: float | None = None
        self._callback: Callable[[], None] = lambda: None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> Any:
        assert self.seconds is None, "two clocks run"
        self.seconds, self._callback = seconds, callback
        return SimpleNamespace(cancel=self._cancel)

    def create_task(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.get_running_loop().create_task(work)

    def ends(self) -> None:
        assert self.seconds is not None, "no clock runs"
        self.seconds = None
        self._callback()

    def _cancel(self) -> None:
        self.seconds = None


@pytest.fixture
def transport() -> Iterator[Transport]:
    made = Transport()
    yield made
    made.release()


class Client:
    """Both sides of a connection to an app that answers, unread, once it is allowed to."""

    def __init__(self, transport: Any) -> None:
        self.clock: Any = Clock()
        self.may_answer = asyncio.Event()
        self.metrics = Metrics()
        self._transport = transport
        config = uvicorn.Config(
            self._app, interface="asgi3", ws="none", log_config=None,
            timeout_keep_alive=SETTINGS.keep_alive_seconds,
        )  # fmt: skip
        state = Server(config).server_state
        self.connection = Connection(
            SETTINGS, self.metrics, config=config, server_state=state, app_state={},
            _loop=self.clock,
        )  # fmt: skip
        self.connection.connection_made(transport)

    async def _app(self, scope: Any, receive: Any, send: Any) -> None:
        await self.may_answer.wait()
        length = (b"content-length", b"%d" % len(ANSWER))
        await send({"type": "http.response.start", "status": 200, "headers": [length]})
        self._transport.unread = len(ANSWER)
        await send({"type": "http.response.body", "body": ANSWER})

    def send(self, data: bytes) -> None:
        self.connection.data_received(data)

    async def answered(self) -> None:
        self.may_answer.set()
        async with asyncio.timeout(10):
            while not self.connection.cycle.response_complete:  # noqa: ASYNC110
                await asyncio.sleep(0)

    def closings(self, reason: str) -> float:
        labels = {"reason": reason}
        name = "fivescore_connections_closed_total"
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


@pytest.mark.parametrize(
    ("sent", "seconds"),
    [
        (b"", 75),
        (b"POST", 3),
        (HEAD, 3),
        (HEAD + b"\r\n", 20),
        (REQUEST, None),
        (REQUEST + b"POST", 3),
        (b"garbage\r\n", LINGER_SECONDS),
    ],
)
async def test_each_phase_has_its_own_clock(
    transport: Transport, sent: bytes, seconds: float | None
) -> None:
    client = Client(transport)
    for byte in sent:
        client.send(bytes([byte]))
    assert client.clock.seconds == seconds


async def test_the_clock_of_an_answer_is_that_of_its_reader_and_then_that_of_an_idle_client(
    transport: Transport,
) -> None:
    client = Client(transport)
    client.send(REQUEST)
    await client.answered()
    assert client.clock.seconds == 20
    transport.unread = 0
    client.clock.ends()
    assert (client.clock.seconds, transport.closed) == (75, False)
    client.clock.ends()
    assert (client.clock.seconds, transport.closed) == (None, True)
    assert client.closings("idle") == 1


EXPECT = HEAD + b"Expect: 100-continue\r\n\r\n"
LAST = HEAD + b"Connection: close\r\n\r\n"


@pytest.mark.parametrize(
    ("sent", "after"),
    [(EXPECT, b""), (LAST, b""), (LAST + b"{}", b""), (REQUEST, b""), (REQUEST, b"POST")],
    ids=["body expected", "body missing", "last request", "shutdown", "shutdown in a head"],
)
@pytest.mark.parametrize("reads", [True, False])
async def test_a_connection_that_closes_waits_only_for_a_client_that_reads(
    transport: Transport, sent: bytes, after: bytes, reads: bool
) -> None:
    client = Client(transport)
    client.send(sent)
    await client.answered()
    client.send(after)
    client.connection.shutdown()
    assert transport.closed
    for _ in range(3):
        if reads:
            transport.unread -= 3000
        if not transport.aborted:
            client.clock.ends()
    assert transport.aborted is not reads
    assert client.closings("slow_reader") == (not reads)


def whole(transport: Any, method: str = "POST", started: bool = True) -> _Whole:
    cycle: Any = SimpleNamespace(response_started=started, scope={"method": method})
    return _Whole(transport, cycle)


@pytest.mark.parametrize(
    ("written", "packets"),
    [([b"head", b"body", b"more", b""], [b"headbody", b"more", b""]), ([b"head", b""], [b"head"])],
)
def test_the_head_is_sent_with_the_first_part_of_the_body(
    transport: Transport, written: list[bytes], packets: list[bytes]
) -> None:
    answer = whole(transport)
    for part in written:
        answer.write(part)
    assert transport.packets == packets


@pytest.mark.parametrize(
    ("options", "written"),
    [({"method": "HEAD"}, b"head"), ({"started": False}, b"HTTP/1.1 100 Continue\r\n\r\n")],
)
def test_what_no_body_follows_is_sent_at_once(
    transport: Transport, options: dict[str, Any], written: bytes
) -> None:
    whole(transport, **options).write(written)
    assert transport.packets == [written]


def test_closing_sends_a_head_that_no_body_followed(transport: Transport) -> None:
    answer = whole(transport)
    answer.write(b"head")
    assert not answer.is_closing()
    answer.close()
    assert transport.packets == [b"head"]
    assert answer.is_closing()
