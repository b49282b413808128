"""The output of the engine's processes, and what it says when they fail to start.

vLLM's engine runs in processes of its own that write to our standard output and error; when one
fails, the cause is only there, inside a traceback. This module passes those lines on, but keeps
tracebacks back while the engine starts, so that a failure can be told in one line.
"""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager

from fivescore.telemetry.logging import relayed as relayed_line

log = logging.getLogger(__name__)

_TROUBLE = re.compile(rb"\bERROR\b|Traceback \(most recent call last\)")
_CHATTER = re.compile(rb"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d |^\[W\d|^Triton is installed")
_PREFIX = re.compile(r"^(\(\S+ pid=\d+\) )*(ERROR \S+ \S+ \[\S+\] )?")
_CAUSE = re.compile(r"^(?:[\w.]+\.)?(\w*(?:Error|Exception|Interrupt)): (.+)")
_UNTOLD = ("Engine core initialization failed", "WorkerProc initialization failed")
MOST_LINES = 2000
QUIET_SECONDS = 0.2
SETTLE_SECONDS = 5.0


class StartupOutput:
    """Collects what processes started meanwhile write; see ``relayed``.

    Args:
        terminal: the file descriptor that lines are passed on to.
        quiet: leave vLLM's log lines out until the engine runs; progress bars pass.
    """

    def __init__(self, terminal: int, quiet: bool = False) -> None:
        self._terminal = terminal
        self._quiet = quiet
        self._held: deque[bytes] = deque(maxlen=MOST_LINES)
        self._holding = False
        self._last = time.monotonic()
        self.starting = True

    def relay(self, source: int) -> None:
        """Pass lines on until every process that can write them has ended."""
        pending = b""
        while chunk := os.read(source, 65536):
            *lines, pending = (pending + chunk).splitlines(keepends=True) or [b""]
            if pending.endswith((b"\n", b"\r")):
                lines, pending = [*lines, pending], b""
            for line in lines:
                self._take(line)
        if pending:
            self._take(pending)
        os.close(source)

    def _take(self, line: bytes) -> None:
        self._last = time.monotonic()
        if self.starting and (self._holding or _TROUBLE.search(line)):
            self._holding = True
            self._held.append(line)
        elif not (self.starting and self._quiet and _CHATTER.search(line)):
            os.write(self._terminal, relayed_line(line))

    def release(self) -> None:
        """The engine runs: what was kept back is of interest after all."""
        self.starting = False
        while self._held:
            os.write(self._terminal, relayed_line(self._held.popleft()))

    def cause(self) -> str | None:
        """The innermost error among the lines kept back; the lines go to the debug log."""
        give_up = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < min(give_up, self._last + QUIET_SECONDS):
            time.sleep(QUIET_SECONDS / 4)  # a process that failed may still be writing why
        cause = None
        for raw in list(self._held):
            line = _PREFIX.sub("", raw.decode(errors="replace").rstrip())
            log.debug("engine: %s", line)
            match = _CAUSE.match(line)
            if match and not match[2].startswith(_UNTOLD):
                cause = match[2]
        return cause


@contextmanager
def relayed() -> Iterator[StartupOutput]:
    """Relay standard output and error of the processes that the body starts.

    Lines of this process pass through the same relay while the body runs. The started processes
    keep it for their whole life.
    """
    terminal = os.dup(2)
    source, sink = os.pipe()
    saved = [os.dup(1), os.dup(2)]
    output = StartupOutput(terminal, quiet=not log.isEnabledFor(logging.DEBUG))
    threading.Thread(target=output.relay, args=(source,), name="engine-output", daemon=True).start()
    try:
        os.dup2(sink, 1)
        os.dup2(sink, 2)
        yield output
    finally:
        for descriptor, original in zip((1, 2), saved, strict=True):
            os.dup2(original, descriptor)
            os.close(original)
        os.close(sink)
