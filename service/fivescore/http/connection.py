"""What one connection may send and how slowly: the limits that hold before a route is reached.

uvicorn's protocol has none of them but the idle time between requests. Each one that a client
passes closes its connection, after a problem document where HTTP still has a place for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import logging
import sys
import termios
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Literal

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from fivescore.http.problems import problem
from fivescore.settings import Settings
from fivescore.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

PROBES = ("/health", "/metrics")
"""Answered on connections over the limit too, so that a full service is not taken for a dead one.
"""
RESERVE = 64
"""Connections over the limit that are told so; those beyond are closed without a word."""
LINGER_SECONDS = 5.0
"""How long a refused client may go on sending: closed at once, it could lose the answer (RST)."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a connection ends: for the metric, for people, and as HTTP's status."""

    reason: str
    status: int
    code: str
    detail: str


class _Refused(Exception):  # raised through the parser, which it stops
    """The request is refused by its head alone."""


class _Whole:
    """What an answer is written to: its head waits for the body, so that both are one packet.

    uvicorn writes each by itself, which wakes a client twice.
    """

    __slots__ = ("_cycle", "_head", "_transport")

    def __init__(self, transport: asyncio.Transport, cycle: RequestResponseCycle) -> None:
        self._transport = transport
        self._cycle = cycle
        self._head: bytes | None = b""
        """Empty before there is one; None once it is written."""

    def write(self, data: bytes) -> None:
        cycle = self._cycle
        if self._head:
            self._transport.writelines((self._head, data))
            self._head = None
        elif self._head is None or not cycle.response_started or cycle.scope["method"] == "HEAD":
            self._transport.write(data)  # not a head, which "100 Continue" is none, or all there is
        else:
            self._head = data

    def close(self) -> None:
        if self._head:
            self._transport.write(self._head)
            self._head = None
        self._transport.close()

    def is_closing(self) -> bool:
        return self._transport.is_closing()


class Connection(HttpToolsProtocol):
    """uvicorn's protocol within limits; one instance a connection."""

    def __init__(self, limits: Settings, metrics: Metrics, **given: Any) -> None:
        super().__init__(**given)
        self._limits = limits
        self._metrics = metrics
        self._phase: Literal["idle", "head", "body", "answer"] = "idle"
        self._armed = "idle"
        self._timer: asyncio.TimerHandle | None = None
        self._writing: asyncio.TimerHandle | None = None
        self._received = 0
        self._head_bytes = 0
        self._unparsed = 0
        self._begun = False
        self._body_came = False
        self._refusal: Refusal | None = None
        self._over = False
        self._lost = False
        window = limits.client_timeout_seconds
        self._least = int(window * limits.client_min_bytes_per_second)

    # The connection's life.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        most = self._limits.max_connections
        self._over = len(self.connections) > most
        if len(self.connections) > most + RESERVE:
            self._abort("too_many")
        elif self._over:  # it has the time of a head, not that of an idle connection
            self._enter("head")
            self._arm()
        else:
            self._expect_request()

    def connection_lost(self, exc: Exception | None) -> None:
        for timer in (self._timer, self._writing):
            if timer is not None:
                timer.cancel()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refusal is not None:
            return
        self._unset_keepalive_if_required()
        self._received += len(data)
        self._begun = False
        if self._phase == "idle":
            self._enter("head")
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            pass  # none is offered: the request is answered as it is
        except httptools.HttpParserError:
            self._refuse(self._refusal or _malformed())
            return
        if self._phase == "head" and not self._begun:
            self._unparsed += len(data)  # the parser holds a field back until all of it is there
            if self._unparsed > self._limits.max_header_bytes:
                self._refuse(_head_too_large(self._limits))
                return
        self._arm()

    def _expect_request(self) -> None:
        """Idle: uvicorn arms this after an answer, but neither before the first nor after more."""
        self._unset_keepalive_if_required()
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        if self.transport.get_write_buffer_size():
            self._expect_request()  # still reading its answer: that has a clock of its own
        elif not self.transport.is_closing():
            self._metrics.connections_closed.labels("idle").inc()
            self.transport.close()

    # What a request's head may be.

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._head_bytes = self._unparsed = 0
        self._begun, self._body_came = True, False
        self._armed = ""
        self._enter("head")

    def on_url(self, url: bytes) -> None:
        super().on_url(url)
        if len(self.url) > (most := self._limits.max_target_bytes):
            self._stop(
                Refusal(
                    "target_too_long", 414, "target_too_long",
                    f"the request's target is longer than {most} bytes (max_target_bytes): what is"
                    " long belongs into the body",
                )
            )  # fmt: skip

    def on_header(self, name: bytes, value: bytes) -> None:
        super().on_header(name, value)
        self._head_bytes += len(name) + len(value)
        limits = self._limits
        if self._head_bytes > limits.max_header_bytes or len(self.headers) > limits.max_headers:
            self._stop(_head_too_large(limits))
        if name.lower() == b"content-encoding" and value.strip().lower() not in (b"", b"identity"):
            self._stop(
                Refusal(
                    "encoding", 415, "unsupported_encoding",
                    "Content-Encoding: bodies are read as they are, uncompressed: leave it out",
                )
            )  # fmt: skip

    def on_headers_complete(self) -> None:
        over = self._over and len(self.connections) > self._limits.max_connections
        if over and not self.url.startswith(tuple(map(str.encode, PROBES))):
            self._stop(_too_many(self._limits))
        super().on_headers_complete()
        self.cycle.transport = _Whole(self.transport, self.cycle)  # type: ignore[assignment]
        if over:
            self.cycle.keep_alive = False
        self._enter("body")

    def on_body(self, body: bytes) -> None:
        self._body_came = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        answered = self.cycle is None or self.cycle.response_complete
        self._enter("idle" if answered else "answer")

    def _stop(self, refusal: Refusal) -> None:
        self._refusal = refusal
        raise _Refused

    # How slow a client may be.

    def _enter(self, phase: Literal["idle", "head", "body", "answer"]) -> None:
        self._phase = phase

    def _arm(self) -> None:
        """Start the clock of the phase that the bytes so far have led to."""
        if self._phase == "idle":
            self._expect_request()
        if self._phase == self._armed:
            return
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed = self._phase
        if self._phase == "head":
            seconds = self._limits.header_timeout_seconds
            self._timer = self.loop.call_later(seconds, self._head_is_late)
        elif self._phase == "body":
            self._watch_body()

    def _head_is_late(self) -> None:
        self._refuse(
            Refusal(
                "slow_head", 408, "request_timeout",
                "the request's head did not arrive within"
                f" {self._limits.header_timeout_seconds:g} s (header_timeout_seconds)",
            )
        )  # fmt: skip

    def _watch_body(self) -> None:
        seconds = self._limits.client_timeout_seconds
        self._timer = self.loop.call_later(seconds, self._check_body, self._received)

    def _check_body(self, before: int) -> None:
        if self.cycle is not None and self.cycle.response_complete:
            self._abort("unread_body")  # answered long ago: it was refused
        elif self._received - before >= self._least or self.flow.read_paused:
            self._watch_body()
        else:
            limits = self._limits
            self._refuse(
                Refusal(
                    "slow_body", 408, "request_timeout",
                    f"the body came slower than {limits.client_min_bytes_per_second} bytes a second"
                    f" for {limits.client_timeout_seconds:g} s (client_min_bytes_per_second,"
                    " client_timeout_seconds)",
                )
            )  # fmt: skip

    def on_response_complete(self) -> None:
        continued = bool(self.pipeline)
        super().on_response_complete()
        if self.transport.get_write_buffer_size():
            self._watch_writing()
        if self._phase == "answer" and not continued:
            self._enter("idle")
        elif self._phase == "body" and not continued:
            if self.expect_100_continue and not self._body_came:
                self.transport.close()  # it may keep the body back, or not: what follows is unclear
                return
            self._unset_keepalive_if_required()
            if self._armed == "body" and self._timer is not None:
                self._timer.cancel()  # from now on it has one window for all the rest
            self._armed = "body"
            self._watch_body()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._watch_writing()

    def _watch_writing(self) -> None:
        if self._writing is None:
            seconds = self._limits.client_timeout_seconds
            self._writing = self.loop.call_later(seconds, self._check_writing, self._unread())

    def _unread(self) -> int:
        """Bytes that the client has not taken, with those that the kernel holds.

        The kernel takes more from us only once a third of its megabytes is gone: our own buffer
        alone would let a slow client look like one that stands still.
        """
        queued = bytes(4)
        with contextlib.suppress(OSError):
            file = self.transport.get_extra_info("socket").fileno()
            queued = fcntl.ioctl(file, termios.TIOCOUTQ, queued)
        return self.transport.get_write_buffer_size() + int.from_bytes(queued, sys.byteorder)

    def _check_writing(self, before: int) -> None:
        self._writing = None
        if not self.transport.get_write_buffer_size():
            return
        left = self._unread()
        if left > before or before - left >= min(self._least, before):
            self._watch_writing()
        else:
            self._abort("slow_reader")

    # The end.

    def _abort(self, reason: str) -> None:
        if not self._lost:
            self._lost = True
            self._tell(reason)
            self.transport.abort()

    def _tell(self, reason: str) -> None:
        self._metrics.connections_closed.labels(reason).inc()
        client = self.client[0] if self.client else "?"
        log.info("closed a connection of %s: %s", client, reason)

    def _refuse(self, refusal: Refusal) -> None:
        """Answer, if an answer can still be told from another, and close."""
        self._refusal = refusal
        if self.transport.is_closing():
            return
        self._tell(refusal.reason)
        begun = self.cycle is not None and not self.cycle.response_complete
        if begun:  # its work is aborted as for a client that went
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.pipeline.clear()
        if begun and self.cycle.response_started:
            self.transport.abort()
            return
        self.transport.write(self._document(refusal))
        if self.transport.can_write_eof():
            self.transport.write_eof()
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.abort)

    def _document(self, refusal: Refusal) -> bytes:
        request_id = uuid.uuid4().hex
        phrase = HTTPStatus(refusal.status).phrase
        headers = {"X-Request-Id": request_id, "Connection": "close"}
        if refusal.status == 503:
            headers["Retry-After"] = "1"
        answer = problem(refusal.status, phrase, refusal.code, refusal.detail, request_id, headers)
        lines = [b"HTTP/1.1 %d %s" % (refusal.status, phrase.encode())]
        fields = [*self.server_state.default_headers, *answer.raw_headers]
        lines += [name + b": " + value for name, value in fields]
        return b"\r\n".join([*lines, b"", bytes(answer.body)])


def _malformed() -> Refusal:
    return Refusal("malformed", 400, "malformed_http", "this is not a valid HTTP/1.1 request")


def _head_too_large(limits: Settings) -> Refusal:
    return Refusal(
        "head_too_large", 431, "header_too_large",
        f"the request's head is larger than {limits.max_header_bytes} bytes (max_header_bytes) or"
        f" has more than {limits.max_headers} headers (max_headers)",
    )  # fmt: skip


def _too_many(limits: Settings) -> Refusal:
    return Refusal(
        "too_many", 503, "too_many_connections",
        f"the service has {limits.max_connections} connections open (max_connections): use fewer,"
        " or come again",
    )  # fmt: skip
