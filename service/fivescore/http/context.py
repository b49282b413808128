"""Around every request: its id, its duration, its log line and span, and an answer in any case."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivescore.errors import Draining
from fivescore.http.problems import on_error, problem, request_id_of, use_protocol_errors
from fivescore.http.request import trace_of
from fivescore.telemetry.logging import without_messages
from fivescore.telemetry.metrics import Metrics
from fivescore.telemetry.trace import Trace

if TYPE_CHECKING:
    from fivescore.telemetry.tracing import RequestSpan, Tracing

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
SERVER_TIMING = b"server-timing"
_ACCEPTED = re.compile(r"[A-Za-z0-9_.-]{1,128}")
UNKNOWN = "unknown"
"""What logs and metrics call a path that is no route: it may hold a key or a text."""
_QUIET = ("/health", "/metrics")
"""Paths that probes and scrapers ask every few seconds; logged at debug."""


class RequestContext:
    """The outermost ASGI middleware.

    Args:
        paths: those of the routes; the log shows no other.
        protocol_paths: paths whose errors have the form that clients of protocols understand.
        tracing: makes a span of each request.
        log_texts: whether the log shows the message of an unexpected error, which may hold texts.
    """

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing | None = None,
        log_texts: bool = False,
        paths: Collection[str] = (),
        protocol_paths: Collection[str] = (),
    ) -> None:
        self._app = app
        self._paths = frozenset(paths)
        self._protocol_paths = frozenset(protocol_paths)
        self._log_texts = log_texts
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["fivescore.request_id"] = _choose_id(scope)
        trace = scope["fivescore.trace"] = Trace(request_id)
        if scope["path"] in self._protocol_paths:
            use_protocol_errors(scope)
        started = time.perf_counter()
        span: RequestSpan | None = None
        if self._tracing is not None and not scope["path"].startswith(_QUIET):
            span = self._tracing.begin(trace, scope["headers"], started)
        status = 0

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = [*message.get("headers", ()), (HEADER, request_id.encode())]
                if trace.stages:
                    headers.append((SERVER_TIMING, _server_timing(trace)))
                message = {**message, "headers": headers}
            await send(message)

        try:
            await self._run(scope, receive, send_with_id, lambda: bool(status))
        finally:
            ended = time.perf_counter()
            self._record(scope, status, ended - started)
            if span is not None:
                _end(span, scope, status, ended)

    async def _run(
        self, scope: Scope, receive: Receive, send: Send, answered: Callable[[], bool]
    ) -> None:
        """Run the app, and answer if it is cancelled or fails before it does."""
        request_id = request_id_of(scope)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # only the end of the grace period cancels a request
            response = await _draining(scope)
        except Exception as error:
            self._log_failure(request_id, error)
            response = _internal_error(scope)
        else:
            return
        if not answered():
            await response(scope, receive, send)

    def _log_failure(self, request_id: str, error: Exception) -> None:
        if self._log_texts:
            log.error("request %s failed", request_id, exc_info=error)
            return
        fields = {
            "request_id": request_id,
            "error": type(error).__name__,
            "traceback": without_messages(error),
        }
        text = "request %(request_id)s failed: %(error)s (--log-texts shows its message)"
        log.error(text, fields)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", UNKNOWN)
        self._metrics.http_seconds.labels(_method(scope), route, str(status)).observe(seconds)
        usage = scope.get("fivescore.usage", {})
        trace = trace_of(scope)
        fields = {
            "method": _method(scope),
            "path": scope["path"] if scope["path"] in self._paths else UNKNOWN,
            "status": status,
            "ms": round(seconds * 1e3, 3),
            "route": route,
            "code": scope.get("fivescore.code", "ok" if status else "cancelled"),
            **{name: usage[name] for name in ("pairs", "tokens", "failed") if usage},
            **{f"{stage}_ms": round(s * 1e3, 3) for stage, s in trace.seconds().items()},
            **({"trace_id": trace.trace_id} if trace.trace_id else {}),
            "request_id": trace.request_id,
        }
        level = logging.DEBUG if scope["path"].startswith(_QUIET) else logging.INFO
        log.log(level, "%(method)s %(path)s %(status)d %(ms).1f ms", fields)


def _server_timing(trace: Trace) -> bytes:
    """The value of ``Server-Timing``: each stage in milliseconds."""
    stages = trace.seconds().items()
    return ", ".join(f"{stage};dur={seconds * 1e3:.3f}" for stage, seconds in stages).encode()


def _end(span: RequestSpan, scope: Scope, status: int, ended: float) -> None:
    """End a request's span. Its attributes are OpenTelemetry's, without headers and query."""
    method, route = _method(scope), getattr(scope.get("route"), "path", "")
    attributes: dict[str, str | int] = {
        "http.request.method": "_OTHER" if method == "other" else method,
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if route:  # an unknown path may hold anything
        attributes |= {"http.route": route, "url.path": route}
    if status:
        attributes["http.response.status_code"] = status
    for name, count in scope.get("fivescore.usage", {}).items():
        attributes[f"fivescore.{name}"] = count
    code = scope.get("fivescore.code", "" if status else "cancelled")
    if code:
        attributes["fivescore.code"] = code
    failed = not status or status >= 500  # to OpenTelemetry a 4xx is not a server error
    name = f"{'HTTP' if method == 'other' else method} {route}".rstrip()
    span.end(name, attributes, code or str(status) if failed else None, ended)


def _method(scope: Scope) -> str:
    known = ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS")
    method = str(scope["method"])
    return method if method in known else "other"


def _choose_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == HEADER and _ACCEPTED.fullmatch(text := str(value, "latin-1")):
            return text
    return uuid.uuid4().hex


def _internal_error(scope: Scope) -> Response:
    return problem(
        scope,
        500,
        "Internal error",
        "internal_error",
        "the service failed: its log has the cause under this request_id",
    )


async def _draining(scope: Scope) -> Response:
    error = Draining("the service shut down before this was scored: send it to another replica")
    return await on_error(Request(scope), error)
