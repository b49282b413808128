"""Relays the output of the engine's processes, and finds in it why they failed to start.

vLLM's engine runs in processes of its own that write to our standard output and error. When one
fails, the cause is only there, inside a traceback. This module passes the lines on, but holds
tracebacks back while the engine starts, so that one line can report the failure.
"""

from __future__ import annotations

import contextlib
import logging
import os
import re
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from fivescore.telemetry.logging import relayed as relayed_line

log = logging.getLogger(__name__)

_TROUBLE = re.compile(rb"\bERROR\b|Traceback \(most recent call last\)")
_CHATTER = re.compile(rb"\b(?:DEBUG|INFO|WARNING) \d\d-\d\d |^\[W\d|^Triton is installed")
_PREFIX = re.compile(r"^((?:\(\S+ pid=\d+\) )*)(?:ERROR \S+ \S+ \[\S+\] ?)?")
_LEVEL = re.compile(r"^(?:\(\S+ pid=\d+\) )*(DEBUG|INFO|WARNING|ERROR|CRITICAL) \d\d-\d\d ")
_RAISED = re.compile(r"^([A-Za-z_][\w.]*)(?:: (.*))?$")
_PLACE = re.compile(r'^ +File "(?:.*/)?([^"/]+)", line (\d+)')
_ELSEWHERE = re.compile(r"[Ss]ee (?:root cause|stack trace)")
_TRACEBACK = "Traceback (most recent call last):"
_DIRECT_CAUSE = "The above exception was the direct cause of the following exception:"
MOST_LINES = 2000
"""Lines held back while an engine starts; the first ones are dropped when there are more."""
QUIET_SECONDS = 0.2
SETTLE_SECONDS = 5.0


def level_of(text: str) -> int:
    """The level of a line of vLLM's log; INFO for any other line."""
    found = _LEVEL.match(text)
    return logging.getLevelNamesMapping()[found[1]] if found else logging.INFO


class StartupOutput:
    """Passes on what processes write; holds it back from the first error on; see ``relayed``.

    Args:
        terminal: the file descriptor that lines are passed on to.
        quiet: leave out vLLM's ordinary log lines until the engine runs.
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
            self._write(line)

    def _write(self, line: bytes) -> None:
        """Pass a line on; where nobody can have it (a full disk, a closed pipe) it is lost.

        The relay has to go on reading: an engine whose pipe is full waits for ever.
        """
        rest = relayed_line(line, level_of)
        with contextlib.suppress(OSError):
            while rest:
                rest = rest[os.write(self._terminal, rest) :]

    def release(self) -> None:
        """The engine runs, so the lines held back were harmless: pass them on."""
        self.starting = False
        while self._held:
            self._write(self._held.popleft())

    def cause(self, *, waits: bool = False) -> str | None:
        """The root cause among the lines held back, or None; the lines go to the debug log.

        Args:
            waits: there must be one, so if it has not been read yet, wait for it.
        """
        give_up = time.monotonic() + SETTLE_SECONDS
        while time.monotonic() < give_up and (
            time.monotonic() < self._last + QUIET_SECONDS or (waits and not self._found())
        ):
            time.sleep(QUIET_SECONDS / 4)  # a process that failed may still be writing why
        for line in self._lines():
            log.debug("engine: %s", line)
        return self._found()

    def _lines(self) -> list[str]:
        return [raw.decode(errors="replace").rstrip() for raw in list(self._held)]

    def _found(self) -> str | None:
        return root_cause(self._lines())


class _Traceback:
    """One traceback of a chain as its lines arrive."""

    def __init__(self, caused_by: _Traceback | None) -> None:
        self.caused_by = caused_by
        self.message: str | None = None
        self._place = ""

    def add(self, line: str) -> None:
        if self.message is not None:
            return
        if place := _PLACE.match(line):
            self._place = f"{place[1]} line {place[2]}"
        elif raised := _RAISED.match(line):
            kind, text = raised[1].rpartition(".")[2], (raised[2] or "").strip()
            if not text:
                self.message = f"{kind} in {self._place}"
            else:  # the text of a KeyError, say, is a bare word
                self.message = text if " " in text else f"{kind}: {text}"


def root_cause(lines: Iterable[str]) -> str | None:
    """What the first exception of a failure says, or None where there is no traceback.

    Several processes report one failure: a worker, the engine that waited for it, and the one that
    waited for the engine. The first to report is where it happened; of its last chain of exceptions
    the one that started the chain is the cause.
    """
    last: dict[str, _Traceback] = {}
    linked: set[str] = set()
    for raw in lines:
        prefix = _PREFIX.match(raw)
        assert prefix is not None
        process, line = prefix[1], raw[prefix.end() :]
        if line.strip() == _TRACEBACK:
            before = last.get(process) if process in linked else None
            last[process] = _Traceback(before)
            linked.discard(process)
        elif line.strip() == _DIRECT_CAUSE:
            linked.add(process)
        elif process in last:
            last[process].add(line)
    # Ours, without a prefix, reports only that the engine's process failed.
    for _, found in sorted(last.items(), key=lambda item: not item[0]):
        while found.caused_by is not None:
            found = found.caused_by
        if found.message and not points_on(found.message):
            return found.message
    return None


def points_on(message: str) -> bool:
    """Whether vLLM's message says only that the cause is in another process's output."""
    return _ELSEWHERE.search(message) is not None


@contextmanager
def relayed() -> Iterator[StartupOutput]:
    """Relay standard output and error of the processes that the body starts.

    Lines of this process pass through the same relay while the body runs. The started processes
    write to the relay for their whole life.
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
