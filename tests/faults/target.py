"""The server that faults are done to: its engine's process, what it holds, when it is ready."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import psutil

from tests.e2e.server import Server

PATIENCE_SECONDS = 600.0
"""For anything that must happen at some time; how soon is for bounds to say."""
LOOK_SECONDS = 0.02
ENGINE = "EngineCore"
"""How vLLM titles the process of its engine."""
FORK_SERVER = "fivescore::ForkServer"


class Usage(NamedTuple):
    """What the server and its engine hold: ``memory`` in bytes (RSS) of all of their processes, of
    which ``own`` is the server's."""

    memory: int
    own: int
    files: int
    threads: int


class Target:
    """A running server."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.url = server.url
        self.began = time.monotonic()
        self.load_seconds = 0.0
        """From its start to being ready; only right where ``wait_ready`` followed at once."""

    @property
    def running(self) -> bool:
        return self.server.process.poll() is None

    async def wait_ready(self) -> None:
        """Wait for its first readiness."""
        await self.until("ready", self.ready)
        self.load_seconds = time.monotonic() - self.began

    async def ready(self) -> bool:
        return await self.status("/health/ready") == 200

    async def status(self, path: str) -> int | None:
        return await asyncio.to_thread(self.server.status, path)

    async def metric(self, name: str, labels: str = "") -> float:
        return await asyncio.to_thread(self.server.metric, name, labels)

    async def idle(self) -> bool:
        """Whether neither the service nor vLLM has work."""
        names = ("fivescore_inflight_pairs", "vllm:num_requests_running",
                 "vllm:num_requests_waiting")  # fmt: skip
        return not any([await self.metric(name) for name in names])

    async def until(self, what: str, condition: Callable[[], Awaitable[bool]]) -> None:
        """Wait for ``condition`` while the process runs.

        Raises:
            AssertionError: the process ended, or it took longer than anybody waits; with its log.
        """
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not await condition():
            assert self.running, f"the server ended, before: {what}\n{self.server.tail()}"
            assert time.monotonic() < give_up, f"never: {what}\n{self.server.tail()}"
            await asyncio.sleep(LOOK_SECONDS)

    def below(self) -> list[psutil.Process]:
        """All processes that it has started, and theirs."""
        try:
            return list(psutil.Process(self.server.process.pid).children(recursive=True))
        except psutil.NoSuchProcess:
            return []

    def processes(self, title: str) -> list[psutil.Process]:
        """Those below it with this in their titles."""
        return [one for one in self.below() if title in _title(one)]

    def process(self, title: str) -> psutil.Process:
        """The first of them.

        Raises:
            LookupError: there is none.
        """
        for found in self.processes(title):
            return found
        raise LookupError(f"the server has no process {title}")

    def engines(self) -> list[psutil.Process]:
        """The processes of vLLM's engines."""
        return self.processes(ENGINE)

    def engine(self) -> psutil.Process:
        """The process of vLLM's engine, as ``process``."""
        return self.process(ENGINE)

    def usage(self) -> Usage:
        own = psutil.Process(self.server.process.pid)
        memory = service = files = threads = 0
        for process in (own, *own.children(recursive=True)):
            try:
                resident = process.memory_info().rss
                memory += resident
                service += resident if process == own else 0
                files += process.num_fds()
                threads += process.num_threads()
            except psutil.NoSuchProcess:
                continue
        return Usage(memory, service, files, threads)

    def send(self, number: signal.Signals) -> None:
        self.server.process.send_signal(number)

    async def exit_status(self) -> int:
        """Its exit status; it has been told to stop."""
        return await asyncio.to_thread(self.server.process.wait, PATIENCE_SECONDS)

    async def restart(self) -> int:
        """SIGTERM, and a new process on the same port; the old one's exit status."""
        self.send(signal.SIGTERM)
        status = await self.exit_status()
        await asyncio.to_thread(self.server.restart)
        self.began = time.monotonic()
        return status

    async def stop(self) -> None:
        await asyncio.to_thread(self.server.stop)


def _title(process: psutil.Process) -> str:
    try:
        return " ".join(process.cmdline())
    except psutil.NoSuchProcess:
        return ""


def is_there(process: psutil.Process) -> bool:
    """Whether it has not ended; one that nobody has waited for yet has."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Peak:
    """Samples a target's memory while the body runs; ``bytes`` is the most that was seen."""

    def __init__(self, target: Target, every: float = 0.25) -> None:
        self._target = target
        self._every = every
        self.bytes = 0

    async def __aenter__(self) -> Peak:
        self._task = asyncio.create_task(self._sample())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _sample(self) -> None:
        while True:
            usage = await asyncio.to_thread(self._target.usage)
            self.bytes = max(self.bytes, usage.memory)
            await asyncio.sleep(self._every)
