"""What a benchmark starts and stops: servers, and vLLM's engine alone."""

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
SETTLE_SECONDS = 5.0
SETTLE_LOOK_SECONDS = 0.2
QUIET_SHARE = 0.3
"""Of a core, by all sides together: an idle engine takes about 0.02."""


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@dataclass(frozen=True)
class Running:
    """A server: ``seconds`` are from its start to being ready."""

    url: str
    process: psutil.Process
    seconds: float

    def cpu_seconds(self) -> float:
        """Of the process that speaks HTTP."""
        return _cpu_seconds(self.process)


def _cpu_seconds(process: psutil.Process) -> float:
    """By its clock (clock_getcpuclockid(3)): /proc counts in hundredths of a second, a turn's time
    of a process that speaks HTTP is a tenth."""
    return time.clock_gettime((~process.pid << 3) | 2)


def _environment(extra: Mapping[str, str] | None) -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", **(extra or {})}


@contextmanager
def server(
    command: Sequence[str], ready: str, log: Path, extra: Mapping[str, str] | None = None
) -> Iterator[Running]:
    """A running server; ``--port`` is added to its command, ``extra`` to its environment.

    Raises:
        RuntimeError: it does not answer at the path ``ready``; the log says why.
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
    """Other programs that compute while the body runs, each on one core."""
    command = [sys.executable, "-S", "-c", "while True: pass"]
    programs = [subprocess.Popen(command) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


async def settled() -> None:
    """Wait until what this process has started computes nothing, so that one side's end does not
    slow the next: vLLM's worker processes look for work for a second before they sleep. One that
    never rests is told of and not waited for."""
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
        with contextlib.suppress(OSError):  # it has ended
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
    """The sum over its labels, as the server's ``/metrics`` tells it now.

    Raises:
        RuntimeError: the server has no such metric.
    """
    lines = (await http.get("/metrics")).text.splitlines()
    starts = (name + " ", name + "{")
    found = [float(line.rsplit(" ", 1)[1]) for line in lines if line.startswith(starts)]
    if not found:
        raise RuntimeError(f"{http.base_url}: no metric {name}")
    return sum(found)


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
    """Ask it to end; one that does not is killed, with all that it has started."""
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
        """``seconds``, ``cpu_seconds`` of vLLM's client, ``latencies`` and ``outputs`` of all
        sequences; ``at_once`` of them are submitted when those before are answered."""
        assert self._process.stdin is not None
        question = {"token_ids": list(token_ids), "at_once": at_once}
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self.read()

    def read(self) -> dict[str, Any]:
        """The process's next answer; its other output is passed over."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("{"):
                answer: dict[str, Any] = json.loads(line)
                return answer
        raise RuntimeError("the engine ended: see its log")


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
        found = Engine(process)
        found.read()
        yield found
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself then, and its engine with it
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _stop(process)
