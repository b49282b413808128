"""Starts and stops the processes of a benchmark: servers, and vLLM's engine alone."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psutil

READY_SECONDS = 600
STOP_SECONDS = 20
LOOK_SECONDS = 0.05
LOG_TAIL = 2000
"""Characters of a log's end that an error quotes."""
SETTLE_SECONDS = 5.0
"""The longest wait for idle sides."""
SETTLE_LOOK_SECONDS = 0.2
QUIET_SHARE = 0.3
"""Cores that all idle sides together may use; an idle engine uses about 0.02."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A running server; ``seconds`` is the time from its start until it was ready."""

    url: str
    process: psutil.Process
    seconds: float

    def cpu_seconds(self) -> float:
        """CPU time of the HTTP process."""
        return _cpu_seconds(self.process)


def _cpu_seconds(process: psutil.Process) -> float:
    """CPU time by the process's clock (clock_getcpuclockid(3)).

    /proc counts in hundredths of a second, too coarse for a turn that takes a tenth of one.
    """
    return time.clock_gettime((~process.pid << 3) | 2)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", **(extra or {})}


@contextmanager
def server(
    command: Sequence[str], ready: str, log: Path, extra: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A running server; ``--port`` is added to its command, ``extra`` to its environment.

    Raises:
        RuntimeError: it does not answer at the path ``ready``; quotes its log.
    """
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    began = time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=output, stderr=output, env=_environment(extra)
        )
    try:
        _wait_ready(url + ready, process, log)
        yield Running(url, psutil.Process(process.pid), time.monotonic() - began)
    finally:
        _stop(process)


@contextmanager
def busy_programs(count: int) -> Iterator[None]:
    """Run ``count`` other programs that each use a whole core."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    programs = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


async def settled() -> None:
    """Wait until the processes that this one started are idle, so that none slows the next side.

    vLLM's worker processes poll for a second before they sleep. After ``SETTLE_SECONDS`` a line
    says that they are still busy.
    """
    until = time.monotonic() + SETTLE_SECONDS
    busy = math.inf
    while busy > QUIET_SHARE and time.monotonic() < until:
        before = _started_cpu_seconds()
        await asyncio.sleep(SETTLE_LOOK_SECONDS)
        busy = (_started_cpu_seconds() - before) / SETTLE_LOOK_SECONDS
    if busy > QUIET_SHARE:
        print(f"  idle sides still take {busy:.1f} of a core", file=sys.stderr)


def _started_cpu_seconds() -> float:
    seconds = 0.0
    for process in psutil.Process().children(recursive=True):
        with contextlib.suppress(OSError):  # the process has ended
            seconds += _cpu_seconds(process)
    return seconds


def fivescore_command(model: str, *flags: str) -> list[str]:
    return [sys.executable, "-m", "fivescore", "serve", "--model", model, *flags]


@contextmanager
def fivescore_server(model: str, log: Path, *flags: str) -> Iterator[str]:
    """A running fivescore; the body gets its URL."""
    with server(fivescore_command(model, *flags), "/health/ready", log) as running:
        yield running.url


async def metric(http: httpx.AsyncClient, name: str) -> float:
    """The current sum of a metric over its labels, from the server's ``/metrics``.

    Raises:
        RuntimeError: the server has no such metric.
    """
    lines = (await http.get("/metrics")).text.splitlines()
    starts = (name + " ", name + "{")
    values = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(starts)]
    if not values:
        raise RuntimeError(f"{http.base_url}: no metric {name}")
    return sum(values)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if httpx.get(url).is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(LOOK_SECONDS)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text()[-LOG_TAIL:]}")


def _stop(process: subprocess.Popen[Any]) -> None:
    """Terminate a process; kill it with its children if it does not end in time."""
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        print(f"  process {process.pid} did not end in {STOP_SECONDS} s: killed", file=sys.stderr)
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        process.kill()
        process.wait()


class Engine:
    """vLLM's engine in a process of its own, with the service's engine settings."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def score(self, token_ids: Sequence[list[int]], at_once: int) -> dict[str, Any]:
        """Score sequences, ``at_once`` at a time.

        Returns ``seconds``, ``cpu_seconds`` of vLLM's client, ``latencies`` and ``outputs``.
        """
        assert self._process.stdin is not None
        request = {"token_ids": list(token_ids), "at_once": at_once}
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """The process's next result; other lines of its output are skipped.

        Raises:
            RuntimeError: the process ended.
        """
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError("the engine's process ended: its log says why")


@contextmanager
def engine(
    kind: str, model: str, log: Path, options: Mapping[str, str], extra: Mapping[str, str]
) -> Iterator[Engine]:
    """A loaded engine, ``async`` or ``offline``: see ``loadtest.engine_limit``."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.engine_limit", kind, model, json.dumps(dict(options))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
            env=_environment(extra),
        )
    try:
        loaded = Engine(process)
        loaded.read()
        yield loaded
    finally:
        assert process.stdin is not None
        process.stdin.close()  # which makes the process and its engine end
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _stop(process)
