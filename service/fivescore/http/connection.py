"""Limits on what one connection may send, and on how slowly it may send and read.

uvicorn limits only the idle time between requests. A connection that exceeds a limit is closed,
after a problem document if HTTP still allows one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import functools
import logging
import sys
import termios
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import httptools

from fivescore.http.problems import problem
from fivescore.http.uvicorn_internals import HttpToolsProtocol, RequestResponseCycle, check
from fivescore.settings import Settings
from fivescore.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

PROBES = (b"/health", b"/metrics")
"""Answered on connections over the limit too, so that a full service does not look dead."""
RESERVE = 64
"""Connections over the limit that get an answer which says so; further ones are only closed."""
LINGER_SECONDS = 5.0
"""How long a refused client may go on sending: after a reset it could not read the answer."""

CHUNK_BYTES = 32
"""What a chunk's size and line ends take at most, without extensions."""

Phase = Literal["idle", "head", "body", "rest", "answer", "writing", "refused"]


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection ends: the metric's label, and HTTP's status, code and detail."""

    reason: str
    status: int
    code: str
    detail: str


class _Refused(Exception):  # raised through the parser, which it stops
    """The request is refused because of its head."""

    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal


class _Whole:
    """A transport that holds an answer's head back until the body, so that both are one packet.

    uvicorn writes each by itself, which wakes a client twice.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = b""
        """Empty before there is a head; None once it is written."""

    def write(self, data: bytes) -> None:
        cycle = self._cycle
        if self._head:
            self._transport.writelines((self._head, data))
            self._head = None
        elif self._head is None or not cycle.response_started or cycle.scope["method"] == "HEAD":
            self._transport.write(data)  # a body, "100 Continue", or a head that no body follows
        else:
            self._head = data

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


def limited(settings: Settings, metrics: Metrics) -> Callable[..., Connection]:
    """What uvicorn calls for each new connection.

    Raises:
        ConfigurationError: the installed uvicorn lacks a part that ``Connection`` uses.
    """
    check()
    return functools.partial(Connection, settings, metrics)


class Connection(HttpToolsProtocol):
    """uvicorn's protocol within limits; one instance per connection.

    It is always in one phase, which says what the client or the service has to do next, and one
    clock runs, that of the phase:

    - idle: the client may send a request; closed after ``keep_alive_seconds``.
    - head, body: the client sends a request; refused when it is late or slow.
    - answer: the service works; there is no clock.
    - writing: the client reads an answer, and nothing else is due; closed when it is slow.
    - rest: the client sends the rest of a body that is answered already; it has one window.
    - refused: the client reads why; closed after ``LINGER_SECONDS``.
    """

    def __init__(self, limits: Settings, metrics: Metrics, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._metrics = metrics
        self._phase: Phase = "idle"
        self._timed: Phase | None = None
        """The phase that the clock is for; it lags behind while received bytes are parsed."""
        self._clock: asyncio.TimerHandle | None = None
        self._mark = (0, 0)
        """Bytes received and bytes not yet read by the client, when the clock was started."""
        self._received = 0
        self._head_began = 0
        """How many bytes were received up to the chunk in which the head begins."""
        self._head_bytes = 0
        self._framing = 0
        """Bytes of the request's body that are neither content nor sizes: extensions, trailers."""
        self._body_came = False
        self._over_limit = False
        window = limits.client_timeout_seconds
        self._least = int(window * limits.client_min_bytes_per_second)

    # The phases: what the bytes and uvicorn report

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self._limits.max_connections
        self._over_limit = len(self.connections) > most
        if len(self.connections) > most + RESERVE:
            self._abort("too_many")
            return
        if self._over_limit:  # it gets the time of a head, not that of an idle connection
            self._phase = "head"
        self._start_clock()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_clock()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._phase == "refused":
            return
        if self._phase == "idle":
            self._phase, self._head_began = "head", self._received
        self._received += len(data)
        self._framing += len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # no upgrade is offered: the request is answered as it is
        except httptools.HttpParserError as error:
            cause = error.__context__
            self._refuse(cause.refusal if isinstance(cause, _Refused) else _malformed())
            return
        # The parser holds a header back until it has all of it.
        unparsed = self._received - self._head_began
        if self._phase == "head" and unparsed > self._limits.max_header_bytes:
            self._refuse(_head_too_large(self._limits))
            return
        if self._phase in ("body", "rest") and self._framing > self._limits.max_header_bytes:
            self._refuse(_framing_too_large(self._limits))
            return
        self._start_clock()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._phase != "head":  # it begins after another request, within the same bytes
            self._phase, self._head_began = "head", self._received
        self._head_bytes, self._body_came = 0, False
        self._timed = None  # a new head has a clock of its own

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > (most := self._limits.max_target_bytes):
            raise _Refused(_target_too_long(most))

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._phase != "head":  # a trailer: it comes when its request is served already
            return
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        limits = self._limits
        if self._head_bytes > limits.max_header_bytes or len(self.headers) > limits.max_headers:
            raise _Refused(_head_too_large(limits))
        if name.lower() == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            raise _Refused(_encoded())

    def on_headers_complete(self) -> None:
        over = self._over_limit and len(self.connections) > self._limits.max_connections
        if over and not self.url.startswith(PROBES):
            raise _Refused(_too_many(self._limits))
        if (fault := _fault_of_head(self.headers, self.parser.get_http_version())) is not None:
            raise _Refused(fault)
        super().on_headers_complete()
        self.cycle.transport = _Whole(self.transport, self.cycle)  # type: ignore[assignment]
        if over:
            self.cycle.keep_alive = False
        self._phase, self._framing = "body", 0

    def on_chunk_header(self) -> None:
        """A chunk's size has come, with whatever extensions."""
        self._framing -= CHUNK_BYTES

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        self._framing -= len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        answered = self.cycle is None or self.cycle.response_complete
        self._phase = "idle" if answered else "answer"

    def on_response_complete(self) -> None:
        more = bool(self.pipeline)
        super().on_response_complete()
        self._unset_keepalive_if_required()  # the clock of the phase idle is ours
        if self._phase == "refused":
            return
        if not more and self._phase == "answer":
            self._phase = "idle"
        elif not more and self._phase == "body":
            self._phase = "rest"
            if self.expect_100_continue and not self._body_came:
                self._phase = "idle"
                self.transport.close()  # the client may send the body or not: nobody can know
        self._start_clock()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._start_clock()

    # The clock of the phase

    def _start_clock(self) -> None:
        """Start the clock of the present phase, unless it runs."""
        phase = self._phase
        only_reads = phase in ("idle", "answer") or self.transport.is_closing()
        if only_reads and phase != "refused" and self.transport.get_write_buffer_size():
            phase = "writing"
        if phase != self._timed:
            self._restart_clock(phase)

    def _restart_clock(self, phase: Phase) -> None:
        self._stop_clock()
        self._timed = phase
        if phase == "answer":
            return
        if phase in ("body", "rest", "writing"):
            self._mark = (self._received, self._unread())
        self._clock = self.loop.call_later(self._seconds(phase), self._time_is_up)

    def _seconds(self, phase: Phase) -> float:
        """How long the client may stay in a phase, or until its progress is looked at."""
        if phase == "idle":
            return self.timeout_keep_alive
        if phase == "head":
            return self._limits.header_timeout_seconds
        if phase == "refused":
            return LINGER_SECONDS
        return self._limits.client_timeout_seconds

    def _stop_clock(self) -> None:
        if self._clock is not None:
            self._clock.cancel()
            self._clock = None

    def _time_is_up(self) -> None:
        """Close the connection, unless its client does what the phase asks for."""
        phase, self._timed = self._timed, None
        if phase == "refused":
            self.transport.abort()
        elif phase in ("body", "writing") and self._reads_too_slowly():
            self._abort("slow_reader")
        elif self.transport.is_closing():  # what is written is still read
            self._start_clock()
        elif phase == "head":
            self._refuse(_slow_head(self._limits))
        elif phase == "rest":
            self._abort("unread_body")
        elif phase == "body" and self._sends_too_slowly():
            self._refuse(_slow_body(self._limits))
        elif phase == "idle":
            self._metrics.connections_closed.labels("idle").inc()
            self.transport.close()
        else:
            self._start_clock()

    def _sends_too_slowly(self) -> bool:
        return self._received - self._mark[0] < self._least and not self.flow.read_paused

    def _reads_too_slowly(self) -> bool:
        before = self._mark[1]
        if not before or not self.transport.get_write_buffer_size():
            return False
        read = before - self._unread()
        return 0 <= read < min(self._least, before)

    def _unread(self) -> int:
        """Bytes that the client has not taken, with those that the kernel holds.

        The kernel takes more from us only once a third of its megabytes is gone: by our own buffer
        alone, a slow client would look like one that does not read at all.
        """
        if not (own := self.transport.get_write_buffer_size()):
            return 0
        queued = bytes(4)
        with contextlib.suppress(OSError):
            file = self.transport.get_extra_info("socket").fileno()
            queued = fcntl.ioctl(file, termios.TIOCOUTQ, queued)
        return own + int.from_bytes(queued, sys.byteorder)

    # The end

    def _abort(self, reason: str) -> None:
        self._phase = "refused"
        self._stop_clock()
        self._report(reason)
        self.transport.abort()

    def _report(self, reason: str) -> None:
        self._metrics.connections_closed.labels(reason).inc()
        client = self.client[0] if self.client else "?"
        log.info("closed a connection from %s: %s", client, reason)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, unless another answer has begun, and close."""
        self._phase = "refused"
        if self.transport.is_closing():
            return
        self._report(refusal.reason)
        unanswered = self.cycle is not None and not self.cycle.response_complete
        if unanswered:  # its work is aborted, as for a client that disconnected
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.pipeline.clear()
        if unanswered and self.cycle.response_started:
            self.transport.abort()
            return
        self.transport.write(self._document(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._start_clock()

    def _document(self, refusal: Refusal) -> bytes:
        # Which route it is for may not be known yet, so it has the form of protocols as well.
        scope = {"fivescore.request_id": uuid.uuid4().hex, "fivescore.protocol_errors": True}
        phrase = HTTPStatus(refusal.status).phrase
        headers = {"X-Request-Id": str(scope["fivescore.request_id"]), "Connection": "close"}
        if refusal.status == 503:
            headers["Retry-After"] = "1"
        answer = problem(scope, refusal.status, phrase, refusal.code, refusal.detail, headers)
        lines = [b"HTTP/1.1 %d %s" % (refusal.status, phrase.encode())]
        fields = [*self.server_state.default_headers, *answer.raw_headers]
        lines += [name + b": " + value for name, value in fields]
        return b"\r\n".join([*lines, b"", bytes(answer.body)])


def _malformed(detail: str = "this is not a valid HTTP/1.1 request") -> Refusal:
    return Refusal("malformed", 400, "malformed_http", detail)


def _fault_of_head(headers: list[tuple[bytes, bytes]], version: str) -> Refusal | None:
    """What the parser takes and HTTP forbids, or two servers may read differently."""
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        return _malformed(f"the request has {len(hosts)} Host headers: send one")
    codings = [value for name, value in headers if name == b"transfer-encoding"]
    if codings and version == "1.0":
        return _malformed("Transfer-Encoding: HTTP/1.0 has none: send HTTP/1.1")
    if codings and [coding.strip().lower() for coding in codings] != [b"chunked"]:
        return _transfer_coded()
    return None


def _target_too_long(most: int) -> Refusal:
    return Refusal(
        "target_too_long", 414, "target_too_long",
        f"the request's target is longer than {most} bytes (max_target_bytes): send long content in"
        " the body",
    )  # fmt: skip


def _head_too_large(limits: Settings) -> Refusal:
    return Refusal(
        "head_too_large", 431, "header_too_large",
        f"the request's head is larger than {limits.max_header_bytes} bytes (max_header_bytes) or"
        f" has more than {limits.max_headers} headers (max_headers): send fewer or shorter headers",
    )  # fmt: skip


def _encoded() -> Refusal:
    return Refusal(
        "encoding", 415, "unsupported_encoding",
        "Content-Encoding: the service does not decompress bodies: send the body uncompressed,"
        " without this header",
    )  # fmt: skip


def _transfer_coded() -> Refusal:
    return Refusal(
        "encoding", 501, "unsupported_encoding",
        "Transfer-Encoding: the service reads chunked alone: send the body uncompressed",
    )  # fmt: skip


def _framing_too_large(limits: Settings) -> Refusal:
    return Refusal(
        "head_too_large", 431, "header_too_large",
        "the extensions of the body's chunks and its trailers are larger than"
        f" {limits.max_header_bytes} bytes (max_header_bytes): they are not read, leave them out",
    )  # fmt: skip


def _too_many(limits: Settings) -> Refusal:
    return Refusal(
        "too_many", 503, "too_many_connections",
        f"the service has {limits.max_connections} connections open (max_connections): open fewer,"
        " or retry later",
    )  # fmt: skip


def _slow_head(limits: Settings) -> Refusal:
    return Refusal(
        "slow_head", 408, "request_timeout",
        f"the request's head did not arrive within {limits.header_timeout_seconds:g} s"
        " (header_timeout_seconds): send it at once",
    )  # fmt: skip


def _slow_body(limits: Settings) -> Refusal:
    return Refusal(
        "slow_body", 408, "request_timeout",
        f"the body arrived at less than {limits.client_min_bytes_per_second} bytes per second for"
        f" {limits.client_timeout_seconds:g} s (client_min_bytes_per_second,"
        " client_timeout_seconds): send it faster",
    )  # fmt: skip
