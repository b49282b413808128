"""A server in a process of its own, with the fake engine."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

LONGEST_SECONDS = 180
SERVE = (sys.executable, "-m", "fivescore", "serve", "--backend", "fake", "--port", "0")


class ServerProcess:
    """``fivescore serve`` on a free port; a thread reads its log so that it never blocks.

    Args:
        redirections: those of a shell that becomes it.
    """

    def __init__(self, *flags: str, redirections: str = "") -> None:
        self._process = subprocess.Popen(
            ["sh", "-c", f'exec "$@" {redirections}', "sh", *SERVE, *flags],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: list[str] = []
        self._news = threading.Condition()
        self._ended = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stderr is not None
        for line in self._process.stderr:
            with self._news:
                self._lines.append(line)
                self._news.notify_all()
        with self._news:
            self._ended = True
            self._news.notify_all()

    @property
    def log(self) -> str:
        with self._news:
            return "".join(self._lines)

    def wait_for(self, pattern: str) -> str:
        """Wait until the log has ``pattern``; returns its first group."""

        def found() -> re.Match[str] | None:
            return re.search(pattern, "".join(self._lines))

        with self._news:
            self._news.wait_for(lambda: found() or self._ended, LONGEST_SECONDS)
            match = found()
        assert match, f"no {pattern!r} in the log:\n{self.log}"
        return match.group(1)

    @property
    def url(self) -> str:
        return self.wait_for(r"listening on (http://\S+)")

    def ready(self) -> ServerProcess:
        self.wait_for(r"(ready after)")
        return self

    def signal(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def exit_status(self) -> int:
        status = self._process.wait(LONGEST_SECONDS)
        self._reader.join(LONGEST_SECONDS)
        return status

    def end(self) -> None:
        """Whatever the test left: nothing may outlive it."""
        self._process.kill()
        self._process.wait(LONGEST_SECONDS)
        self._reader.join(LONGEST_SECONDS)
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextmanager
def server(*flags: str, redirections: str = "") -> Iterator[ServerProcess]:
    process = ServerProcess(*flags, redirections=redirections)
    try:
        yield process
    finally:
        process.end()


def refused(*flags: str) -> str:
    """All that a server says that does not start; its last line is the reason."""
    done = subprocess.run([*SERVE, *flags], capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert done.stderr.splitlines()[-1].startswith("fivescore: error: ")
    return done.stdout + done.stderr
