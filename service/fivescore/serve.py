"""``fivescore serve``: from settings to a listening process and its exit status."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import ipaddress
import logging
import os
import resource
import signal
import socket
from typing import TYPE_CHECKING, Any

import uvicorn

from fivescore.engine.base import Engine
from fivescore.engine.gated import GatedEngine
from fivescore.engine.vllm import entrance
from fivescore.errors import ConfigurationError
from fivescore.exhaustion import LEAST_ADDRESSES_OF_VLLM, check_addresses, plain_reason
from fivescore.http.app import create_app
from fivescore.http.connection import RESERVE, limited
from fivescore.http.uvicorn_internals import Server
from fivescore.leaving import Unwaited, leave_within
from fivescore.model.checkpoint import check
from fivescore.model.head import GatedHead, OwnHead
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Scorer
from fivescore.settings import Settings, load
from fivescore.telemetry import logging as logs
from fivescore.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from fivescore.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the kernel queues until they are accepted: trainers open hundreds at once."""
FILES_BESIDE_CONNECTIONS = 192
"""Open files that the process itself needs for libraries, logs and pipes to the engine."""
YOUNG_OBJECTS = 10_000
"""New objects between two garbage collections; with Python's 700 nearly every request has one."""
LAST_SECONDS = 0.5
"""How long everything may still take once a second signal has come."""
FLUSH_SECONDS = 5
"""How long answers may still be written once the last pair is scored."""


def serve(flags: dict[str, Any]) -> int:
    """Serve until a signal or a failure; returns the exit status.

    Raises:
        ConfigurationError: the service cannot run with these settings.
    """
    gc.disable()  # ``freeze_heap`` enables it once the model is loaded
    settings = load(flags)
    logs.configure(settings.log_level, settings.log_format)
    check(settings.model)
    with listen(settings.host, settings.port) as listener:
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        log.info("listening on http://%s:%d (/docs, /metrics)", shown, port)
        warn_of_open_access(settings, host, port)
        if settings.log_texts:
            log.warning(
                "--log-texts is on: this log gets every prompt and response that clients send, and"
                " so does everybody who reads it; turn it off once you have seen what you need"
            )
        settings = _within_file_limit(settings, _raise_file_limit())
        if settings.backend == "vllm":
            check_addresses(LEAST_ADDRESSES_OF_VLLM)
            entrance.prepare(settings)
        return _Server(settings, host).run_on(listener)


def warn_of_open_access(settings: Settings, host: str, port: int) -> None:
    """Warn if others than this machine can reach a route without a key.

    Args:
        host: the address that the service listens on.
    """
    if ipaddress.ip_address(host).is_loopback:
        return
    if not settings.guarded:
        log.warning(
            "NO KEYS ARE SET: everyone who reaches %s port %d can use the model and read /metrics."
            " Set FIVESCORE_API_KEY or --api-key-file, or listen on 127.0.0.1", host, port,
        )  # fmt: skip
    elif settings.open_routes:
        log.warning(
            "everyone who reaches %s port %d can use %s: --open-routes exempts them from keys",
            host, port, ", ".join(settings.open_routes),
        )  # fmt: skip


class _Server(Server):
    """uvicorn's server, which drains the scorer before it stops."""

    def __init__(self, settings: Settings, address: str | None = None) -> None:
        metrics = Metrics()
        metrics.open_connections.set_function(lambda: len(self.server_state.connections))
        self._failure: Exception | None = None
        service = Service(settings, make_engine, metrics, freeze_heap, self._stop_for)
        self._scorer = Scorer(service)
        self._settings = settings
        self._grace_seconds = settings.shutdown_grace_seconds
        self._drainage: asyncio.Task[None] | None = None
        tracing = start_tracing(settings.otlp_traces_endpoint)
        app = create_app(settings, self._scorer, tracing, address)
        super().__init__(
            uvicorn.Config(
                app,
                # uvicorn only calls it, as it would call a class.
                http=limited(settings, metrics),  # type: ignore[arg-type]
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                timeout_keep_alive=settings.keep_alive_seconds,
                timeout_graceful_shutdown=settings.shutdown_grace_seconds,
            )
        )

    def run_on(self, listener: socket.socket) -> int:
        """Serve until a signal or a failure; returns the exit status."""
        # uvicorn handles signals only while it runs. After its shutdown it raises the one that
        # stopped it again, which must not change the exit status.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(self, "should_exit", True))
        try:
            self.run(sockets=[listener])
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, lambda *_: os._exit(self._end_at_once()))
            self._end_processes()
        if isinstance(self._failure, ConfigurationError):
            raise self._failure
        if self._failure is not None:
            if reason := plain_reason(self._failure):
                raise ConfigurationError(reason) from self._failure
            log.error("the service has failed and stops", exc_info=self._failure)
        return self._status

    @property
    def _status(self) -> int:
        return 1 if self._failure else 0

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's; a load that nobody needs any more does not hold up the end."""
        asyncio.get_running_loop().set_default_executor(Unwaited())
        await super().serve(sockets)

    def _end_processes(self, **how: float) -> None:
        if self._settings.backend == "vllm":
            entrance.end_processes(**how)

    def _end_at_once(self) -> int:
        self._end_processes(seconds=0)
        return self._status

    def _stop_for(self, failure: Exception) -> None:
        self._failure = failure
        self.should_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Refuse new requests and finish the accepted ones; a second signal stops at once."""
        first = self._scorer.service.state != "draining" and not self.should_exit
        self._scorer.service.drain()
        if first:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._start_drainage, sig, frame)
        else:
            leave_within(LAST_SECONDS, self._end_at_once)
            self._exit(sig, frame, seconds=0)

    def _start_drainage(self, sig: int, frame: Any) -> None:
        self._drainage = asyncio.create_task(self._exit_when_drained(sig, frame))

    async def _exit_when_drained(self, sig: int, frame: Any) -> None:
        seconds = 0
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._scorer.drained(), self._grace_seconds)
            seconds = FLUSH_SECONDS
        self._exit(sig, frame, seconds)

    def _exit(self, sig: int, frame: Any, seconds: int) -> None:
        """Stop; requests that take more than ``seconds`` from now are answered with 503."""
        self.config.timeout_graceful_shutdown = seconds
        super().handle_exit(sig, frame)


def freeze_heap() -> None:
    """Exempt the loaded objects, about a million that stay, from garbage collection.

    Otherwise a collection looks at all of them every few thousand requests, which stops the
    service for half a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()
    log.debug("%d objects are exempt from garbage collection", gc.get_freeze_count())


def _raise_file_limit() -> int:
    """Raise the limit on open files as far as allowed; returns it.

    Each connection is an open file, and shells allow 1024 where trainers open more.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _within_file_limit(settings: Settings, files: int) -> Settings:
    """Returns the settings with ``max_connections`` lowered to what ``files`` open files allow.

    Raises:
        ConfigurationError: they do not even allow what the process itself needs.
    """
    if files != resource.RLIM_INFINITY and files <= FILES_BESIDE_CONNECTIONS:
        raise ConfigurationError(
            f"ulimit -n allows this process {files} open files, and it needs"
            f" {FILES_BESIDE_CONNECTIONS} and one more for each connection: raise that limit"
        )
    room = max(1, files - FILES_BESIDE_CONNECTIONS - RESERVE)
    if files == resource.RLIM_INFINITY or settings.max_connections <= room:
        return settings
    log.warning(
        "--max-connections %d: this process may open only %d files (ulimit -n); the limit is now"
        " %d connections",
        settings.max_connections, files, room,
    )  # fmt: skip
    return settings.model_copy(update={"max_connections": room})


def start_tracing(endpoint: str | None) -> Tracing | None:
    """Start to send traces to ``endpoint``. Imports OpenTelemetry only if there is an endpoint.

    Raises:
        ConfigurationError: a package is missing, or one of OpenTelemetry's variables is wrong.
    """
    if endpoint is None:
        return None
    try:
        from fivescore.telemetry import tracing

        return tracing.start(endpoint)
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"--otlp-traces-endpoint: {error.name} is not installed:"
            " pip install 'fivescore[tracing]'"
        ) from error


def make_engine(settings: Settings, max_tokens: int | None, head: OwnHead | None = None) -> Engine:
    """The engine that the settings choose, which is not loaded yet.

    Args:
        max_tokens: the longest sequence that will be asked for; None leaves it to the model.
        head: the manifest's head; None where it is one linear layer.

    Raises:
        ConfigurationError: vLLM cannot be used, or an option is wrong.
    """
    engine = _make_engine(settings, max_tokens, head)
    if head is not None and isinstance(head.head, GatedHead):
        return GatedEngine(engine, head.head)
    return engine


def _make_engine(settings: Settings, max_tokens: int | None, head: OwnHead | None) -> Engine:
    if settings.backend == "fake":
        from fivescore.engine.fake import FakeEngine

        outputs = None if head is None else head.raw_outputs
        return FakeEngine(settings.model, settings.engine, outputs)
    return entrance.make(settings, max_tokens, head)


def listen(host: str, port: int) -> socket.socket:
    """A listening socket. An IPv6 one takes IPv4 connections too: ``::`` means all interfaces.

    Raises:
        ConfigurationError: the address is unknown, taken or not allowed.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        dual = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
        listener = socket.create_server(
            (host, port), family=family, backlog=BACKLOG, dualstack_ipv6=dual
        )
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}"
        ) from error
    listener.setblocking(False)
    return listener
