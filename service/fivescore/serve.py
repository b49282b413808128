"""``fivescore serve``: settings to a listening process, and its exit."""

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
from fivescore.engine.vllm.forkserver import METHOD, start_fork_server
from fivescore.errors import ConfigurationError
from fivescore.http.app import create_app
from fivescore.http.connection import RESERVE, limited
from fivescore.model.checkpoint import check
from fivescore.scoring.scorer import Scorer
from fivescore.settings import Settings, load
from fivescore.telemetry import logging as logs
from fivescore.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from fivescore.telemetry.tracing import Tracing

log = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections the kernel holds for us: trainers open hundreds at once (OpenRLHF, verl)."""
FILES_BESIDE_CONNECTIONS = 192
"""Open files that the process itself needs: libraries, logs, pipes to the engine."""
YOUNG_OBJECTS = 10_000
"""New objects between two garbage collections: of Python's 700 the requests in flight hold most."""
FLUSH_SECONDS = 5
"""For answers that are ready and not yet written when the last pair is scored."""


def serve(flags: dict[str, Any]) -> int:
    """Serve until a signal; the exit status.

    Raises:
        ConfigurationError: the service cannot run as it is set.
    """
    gc.disable()  # until what is loaded is there: see ``freeze_heap``
    settings = load(flags)
    logs.configure(settings.log_level, settings.log_format)
    check(settings.model)
    listener = _listen(settings.host, settings.port)
    host, port = listener.getsockname()[:2]
    log.info("listening on http://%s:%d (/docs, /metrics)", host, port)
    tell_who_may_ask(settings, host, port)
    if settings.log_texts:
        log.warning(
            "--log-texts is on: every prompt and response that clients send goes to this log, and"
            " to whoever reads it; turn it off when you have seen what you looked for"
        )
    settings = _within_file_limit(settings, _raise_file_limit())
    if settings.backend == "vllm":
        _set_variables(settings)
        start_fork_server(settings.engine)
    return _Server(settings).run_on(listener)


def tell_who_may_ask(settings: Settings, host: str, port: int) -> None:
    """Warn where a network can reach what wants no key; ``host`` is the address listened on."""
    if ipaddress.ip_address(host).is_loopback:
        return
    if not settings.guarded:
        log.warning(
            "NO KEYS ARE SET: everyone who reaches %s port %d can use the model and read /metrics."
            " Set FIVESCORE_API_KEY or --api-key-file, or listen on 127.0.0.1", host, port,
        )  # fmt: skip
    elif settings.open_routes:
        log.warning(
            "everyone who reaches %s port %d can ask %s: --open-routes wants no key for them",
            host, port, ", ".join(settings.open_routes),
        )  # fmt: skip


class _Server(uvicorn.Server):
    """uvicorn with an app that it tells when to drain, and that tells it when to stop."""

    def __init__(self, settings: Settings) -> None:
        metrics = Metrics()
        metrics.open_connections.set_function(lambda: len(self.server_state.connections))
        self._scorer = Scorer(settings, make_engine, metrics, freeze_heap)
        self._failure: Exception | None = None
        self._grace_seconds = settings.shutdown_grace_seconds
        self._drainage: asyncio.Task[None] | None = None
        tracing = start_tracing(settings.otlp_traces_endpoint)
        app = create_app(settings, self._scorer, self._stop_for, tracing)
        super().__init__(
            uvicorn.Config(
                app,
                # Called as a class is; uvicorn asks no more of it.
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
        """Serve until a signal or a failure; the exit status."""
        # For a signal before uvicorn listens to them; uvicorn also raises the one that stopped it
        # again once it has shut down, which must not end the process otherwise than with 0.
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "should_exit", True))
        with contextlib.suppress(KeyboardInterrupt):
            self.run(sockets=[listener])
        gc.unfreeze()  # or triton's library finds its objects alive at the end, and lists them
        if isinstance(self._failure, ConfigurationError):
            raise self._failure
        if self._failure is not None:
            log.error("the service cannot go on", exc_info=self._failure)
        return 1 if self._failure else 0

    def _stop_for(self, failure: Exception) -> None:
        self._failure = failure
        self.should_exit = True

    def handle_exit(self, sig: int, frame: Any) -> None:
        """Refuse new requests with 503 until the accepted ones end; a second signal hastens."""
        first = self._scorer.state != "draining"
        self._scorer.drain()
        if first:
            loop = asyncio.get_running_loop()
            loop.call_soon_threadsafe(self._start_drainage, sig, frame)
        else:
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
        """Stop; what is not answered within ``seconds`` is answered with 503."""
        self.config.timeout_graceful_shutdown = seconds
        super().handle_exit(sig, frame)


def freeze_heap() -> None:
    """Take what was loaded, a million objects that stay, out of the garbage collector's sight.

    Every few thousand requests it would look at all of them, while all wait for half a second.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS)
    gc.enable()
    log.debug("%d objects are out of the garbage collector's sight", gc.get_freeze_count())


def _raise_file_limit() -> int:
    """A connection is an open file, and shells allow 1024 where trainers open more."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0]


def _within_file_limit(settings: Settings, files: int) -> Settings:
    """The settings, with no more connections than the process may have files open."""
    room = max(1, files - FILES_BESIDE_CONNECTIONS - RESERVE)
    if files == resource.RLIM_INFINITY or settings.max_connections <= room:
        return settings
    log.warning(
        "--max-connections %d: this process may open only %d files (ulimit -n), so it takes %d",
        settings.max_connections, files, room,
    )  # fmt: skip
    return settings.model_copy(update={"max_connections": room})


def start_tracing(endpoint: str | None) -> Tracing | None:
    """Traces to ``endpoint``, if there is one. Only then imports OpenTelemetry.

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
            f"--otlp-traces-endpoint: there is no {error.name} here:"
            " pip install 'fivescore[tracing]'"
        ) from error


def make_engine(settings: Settings, max_tokens: int | None) -> Engine:
    """The engine that the settings choose. Imports it, which takes seconds for vLLM."""
    if settings.backend == "fake":
        from fivescore.engine.fake import FakeEngine

        return FakeEngine(settings.model, settings.engine)
    _set_variables(settings)
    # As ``vllm serve`` does. A fork of this process would hold its clients' connections open.
    os.environ.setdefault(METHOD, "spawn")
    try:
        from fivescore.engine.vllm.engine import VllmEngine
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise
        raise ConfigurationError(
            "vLLM is not installed: pip install 'fivescore[cpu]' or 'fivescore[gpu]'"
        ) from error
    return VllmEngine(
        settings.model,
        settings.engine,
        revision=settings.revision,
        max_tokens=max_tokens,
        trust_remote_code=settings.trust_remote_code,
        otlp_traces_endpoint=settings.otlp_traces_endpoint,
    )


def _set_variables(settings: Settings) -> None:
    """For the engine's processes, where the operator has not set them."""
    quiet = "INFO" if settings.log_level == "debug" else "WARNING"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", quiet)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM reports its use to its makers
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # of the engine's libraries


def _listen(host: str, port: int) -> socket.socket:
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ConfigurationError(
            f"cannot listen on {host} port {port}: {error.strerror}"
        ) from error
    listener.setblocking(False)
    return listener
