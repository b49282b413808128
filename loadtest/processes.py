"""What a benchmark starts and stops: a fivescore server, and vLLM's offline engine."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

READY_SECONDS = 600
STOP_SECONDS = 60
LOG_TAIL = 2000


def free_port() -> int:
    """A port that nothing listens on now."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


@contextmanager
def fivescore_server(model: str, log: Path, *flags: str) -> Iterator[str]:
    """A running fivescore; the body gets its URL.

    Raises:
        RuntimeError: it does not become ready; the log says why.
    """
    port = free_port()
    command = [sys.executable, "-m", "fivescore", "serve", "--model", model, "--port", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen([*command, *flags], stdout=output, stderr=output)
    try:
        _wait_ready(f"http://127.0.0.1:{port}", process, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        _stop(process)


def _wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    give_up = time.monotonic() + READY_SECONDS
    while time.monotonic() < give_up and process.poll() is None:
        try:
            if httpx.get(f"{url}/health/ready").is_success:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.2)
    raise RuntimeError(f"the server did not become ready:\n{log.read_text()[-LOG_TAIL:]}")


def _stop(process: subprocess.Popen[Any]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


class Offline:
    """vLLM's offline ``LLM.encode`` in a process of its own, with the server's engine settings."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def seconds(self, token_ids: Sequence[list[int]]) -> float:
        """How long one ``LLM.encode`` of all sequences takes."""
        return float(self._ask({"token_ids": list(token_ids)})["seconds"])

    def _ask(self, question: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
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
        raise RuntimeError("the offline engine ended: see its log")


@contextmanager
def offline_engine(model: str, log: Path) -> Iterator[Offline]:
    """A loaded offline engine."""
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "loadtest.offline", model],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=output,
            text=True,
        )
    try:
        offline = Offline(process)
        offline.read()
        yield offline
    finally:
        assert process.stdin is not None
        process.stdin.close()  # it ends by itself then, and its engine with it
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            _stop(process)
