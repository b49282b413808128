"""A real ``fivescore serve`` process, and what tests ask of one."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx

START_SECONDS = 240.0
STOP_SECONDS = 60.0
ANSWER_SECONDS = 200.0
PAUSE_SECONDS = 0.05
_SAMPLE = re.compile(r"^(?P<name>[a-z_:]+)(?:\{(?P<labels>.*)\})? (?P<value>\S+)$")


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, without settings of the developer's own, and offline."""
    inherited = {k: v for k, v in os.environ.items() if not k.startswith("FIVESCORE_")}
    return {**inherited, "HF_HUB_OFFLINE": "1", **(extra or {})}


def command(*flags: str, module: str = "fivescore") -> list[str]:
    return [sys.executable, "-m", module, "serve", *flags]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Server:
    """A server process; its output goes to ``log``.

    Args:
        before: a command that becomes the server, which comes after it.
        variables: of its environment, beside this process's own.
    """

    def __init__(
        self,
        log: Path,
        *flags: str,
        module: str = "fivescore",
        before: Sequence[str] = (),
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.log = log
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [*before, *command("--port", str(self.port), *flags, module=module)]
        self._environment = environment(variables)
        self.process = self._start()
        self.http = httpx.Client(base_url=self.url, timeout=ANSWER_SECONDS, trust_env=False)

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                env=self._environment,
            )

    def restart(self) -> None:
        """Stop the process and start it again on the same port; it is not ready yet."""
        self.terminate()
        self.process.wait(STOP_SECONDS)
        self.process = self._start()

    def tail(self, lines: int = 40) -> str:
        """The end of the server's output."""
        text = self.log.read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    def status(self, path: str) -> int | None:
        """The status of a GET; None when nothing listens."""
        with suppress(httpx.TransportError):
            return self.http.get(path).status_code
        return None

    def until(
        self, what: str, condition: Callable[[], bool], seconds: float = ANSWER_SECONDS
    ) -> None:
        """Wait for ``condition`` while the process runs; fail with its output."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not in {seconds} s: {what}\n{self.tail()}"
            # The pause between two looks ends early when the process does.
            with suppress(subprocess.TimeoutExpired):
                code = self.process.wait(PAUSE_SECONDS)
                raise AssertionError(f"exit {code}, before: {what}\n{self.tail()}")

    def until_ready(self) -> None:
        self.until("ready", lambda: self.status("/health/ready") == 200, START_SECONDS)

    def until_idle(self) -> None:
        """Wait until neither the service nor vLLM has work."""
        self.until(
            "the engine has no unfinished work",
            lambda: (
                not any(
                    self.metric(name)
                    for name in (
                        "fivescore_inflight_pairs",
                        "vllm:num_requests_running",
                        "vllm:num_requests_waiting",
                    )
                )
            ),
        )

    def post(self, body: Any) -> httpx.Response:
        return self.http.post("/score", json=body)

    def score(self, pairs: list[Any], **options: Any) -> list[dict[str, Any]]:
        """The answers to ``pairs``, in order."""
        answer = self.post({"pairs": pairs, **options})
        assert answer.status_code == 200, answer.text
        scores: list[dict[str, Any]] = answer.json()["scores"]
        assert len(scores) == len(pairs)
        return scores

    def metric(self, name: str, labels: str = "") -> float:
        """The sum of a metric's samples whose labels contain ``labels``."""
        found = [
            float(match["value"])
            for match in map(_SAMPLE.match, self.http.get("/metrics").text.splitlines())
            if match and match["name"] == name and labels in (match["labels"] or "")
        ]
        assert found, f"/metrics has no {name}"
        return sum(found)

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """End the process, whatever state it is in."""
        self.http.close()
        self.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@contextmanager
def running(log: Path, *flags: str, module: str = "fivescore") -> Iterator[Server]:
    """A server that has just been started, and is stopped at the end."""
    server = Server(log, *flags, module=module)
    try:
        yield server
    finally:
        server.stop()
