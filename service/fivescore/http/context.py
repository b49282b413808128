"""Around every request: its id, its time, its log line, and an answer whatever happens."""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING
from urllib.parse import quote

from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivescore.errors import Draining, FivescoreError
from fivescore.http.problems import on_error, problem, request_id_of
from fivescore.telemetry.logging import without_messages
from fivescore.telemetry.metrics import Metrics
from fivescore.telemetry.trace import Trace
from fivescore.types import Score

if TYPE_CHECKING:
    from fivescore.telemetry.tracing import RequestSpan, Tracing

log = logging.getLogger(__name__)

HEADER = b"x-request-id"
SERVER_TIMING = b"server-timing"
_ACCEPTED = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_QUERY = re.compile(r"[?&;].*|api_key.*", re.IGNORECASE | re.DOTALL)
"""What a client that escapes too much, or forgets a question mark, puts into the path."""
MOST_PATH_CHARACTERS = 200
_QUIET = ("/health", "/metrics")
"""Asked every few seconds by probes and scrapers; logged at debug."""


class RequestContext:
    """ASGI middleware, outermost: nothing in it is specific to a route."""

    def __init__(
        self,
        app: ASGIApp,
        metrics: Metrics,
        tracing: Tracing | None = None,
        log_texts: bool = False,
    ) -> None:
        self._app = app
        self._log_texts = log_texts
        self._metrics = metrics
        self._tracing = tracing

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        request_id = scope["fivescore.request_id"] = _choose_id(scope)
        trace = scope["fivescore.trace"] = Trace(request_id)
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
        """Run the app; whatever ends it, there is an answer."""
        request_id = request_id_of(scope)
        try:
            await self._app(scope, receive, send)
        except asyncio.CancelledError:  # only the end of the grace period cancels a request
            scope["fivescore.code"] = Draining.code
            if not answered():
                await _answer_draining(scope, receive, send)
        except Exception as error:
            self._tell_failure(request_id, error)
            scope["fivescore.code"] = "internal_error"
            if not answered():
                await _answer_internal_error(scope, receive, send)

    def _tell_failure(self, request_id: str, error: Exception) -> None:
        if self._log_texts:
            log.error("request %s failed", request_id, exc_info=error)
            return
        fields = {
            "request_id": request_id,
            "error": type(error).__name__,
            "traceback": without_messages(error),
        }
        told = "request %(request_id)s failed: %(error)s (--log-texts shows its message)"
        log.error(told, fields)

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        route = getattr(scope.get("route"), "path", "unknown")
        self._metrics.http_seconds.labels(_method(scope), route, str(status)).observe(seconds)
        usage = scope.get("fivescore.usage", {})
        trace = trace_of(scope)
        fields = {
            "method": scope["method"],
            "path": _path(scope),
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


def summarise(scope: Scope, results: Sequence[Score | FivescoreError]) -> dict[str, int]:
    """Count what came of a request's pairs, for its answer and its log line."""
    scores = [result for result in results if isinstance(result, Score)]
    usage = {
        "pairs": len(results),
        "tokens": sum(score.tokens for score in scores),
        "cached_tokens": sum(score.cached_tokens for score in scores),
        "failed": len(results) - len(scores),
    }
    scope["fivescore.usage"] = usage
    return usage


def trace_of(scope: Scope) -> Trace:
    """The request's trace."""
    trace: Trace = scope["fivescore.trace"]
    return trace


def _path(scope: Scope) -> str:
    """The path as a log may show it: bounded, in one line, and without a key that got into it."""
    return quote(_QUERY.sub("", scope["path"])[:MOST_PATH_CHARACTERS], safe="/:@!$'()*,+=~")


def _server_timing(trace: Trace) -> bytes:
    """The stages in milliseconds (W3C Server Timing)."""
    stages = trace.seconds().items()
    return ", ".join(f"{stage};dur={seconds * 1e3:.3f}" for stage, seconds in stages).encode()


def _end(span: RequestSpan, scope: Scope, status: int, ended: float) -> None:
    """End a request's span, with OpenTelemetry's names for what HTTP has: no header, no query."""
    method, route = _method(scope), getattr(scope.get("route"), "path", "")
    attributes: dict[str, str | int] = {
        "http.request.method": "_OTHER" if method == "other" else method,
        "url.scheme": scope["scheme"],
        "network.protocol.version": scope["http_version"],
    }
    if route:  # a path that is none of ours may hold anything
        attributes |= {"http.route": route, "url.path": route}
    if status:
        attributes["http.response.status_code"] = status
    for name, count in scope.get("fivescore.usage", {}).items():
        attributes[f"fivescore.{name}"] = count
    code = scope.get("fivescore.code", "" if status else "cancelled")
    if code:
        attributes["fivescore.code"] = code
    failed = not status or status >= 500  # OpenTelemetry: a 4xx is no error of the server
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


async def _answer_internal_error(scope: Scope, receive: Receive, send: Send) -> None:
    response = problem(
        500,
        "Internal error",
        "internal_error",
        "the service failed; its log has the cause under this request_id",
        request_id_of(scope),
    )
    await response(scope, receive, send)


async def _answer_draining(scope: Scope, receive: Receive, send: Send) -> None:
    error = Draining("the service stopped before this was done: send it to another replica")
    response = await on_error(Request(scope), error)
    await response(scope, receive, send)
