"""A control group of memory, of version 1 or 2, that a scenario makes and takes away."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import sys
import time
from pathlib import Path

from tests.faults.result import NotRun

ROOT = Path("/sys/fs/cgroup")
ROOM = 32 * 2**20
"""Bytes that are left when the limit is set."""
PATIENCE_SECONDS = 60.0
HOG = """
import os, sys
open("/proc/self/oom_score_adj", "w").write("-1000")
open(sys.argv[1], "w").write(str(os.getpid()))
held = []
while True:
    held.append(b"x" * 2**22)
    if len(held) > 2 * int(sys.argv[2]) // 2**22:
        break
"""
"""Takes memory in the group, and is never what the kernel kills for it."""


class MemoryGroup:
    """One group; ``words`` before a command put it there.

    Raises:
        NotRun: this machine, or this user, can make none.
    """

    def __init__(self, name: str) -> None:
        self._second = (ROOT / "cgroup.controllers").exists()
        place = ROOT if self._second else ROOT / "memory"
        self._folder = place / f"{name}-{os.getpid()}"
        self._limit = self._folder / ("memory.max" if self._second else "memory.limit_in_bytes")
        try:
            self._folder.mkdir()
            self._limit.read_text()
        except OSError as error:
            with contextlib.suppress(OSError):
                self._folder.rmdir()
            raise NotRun(f"no control group of memory can be made here: {error}") from error
        self._members = self._folder / "cgroup.procs"
        self.words = ("sh", "-c", f'echo $$ > {self._members}; exec "$@"', "sh")

    def kills(self) -> int:
        """How many processes of it the kernel has killed for want of memory."""
        events = self._folder / ("memory.events" if self._second else "memory.oom_control")
        found = re.search(r"^oom_kill (\d+)$", events.read_text(), re.MULTILINE)
        return int(found[1]) if found else 0

    def exhaust(self) -> None:
        """Limit its memory to what it holds, and take what is left until something was killed."""
        usage = self._folder / ("memory.current" if self._second else "memory.usage_in_bytes")
        before = self.kills()
        self._limit.write_text(str(int(usage.read_text()) + ROOM))
        hog = subprocess.Popen(
            [sys.executable, "-c", HOG, str(self._members), str(ROOM)], stdin=subprocess.DEVNULL
        )
        try:
            give_up = time.monotonic() + PATIENCE_SECONDS
            while self.kills() == before and time.monotonic() < give_up:
                time.sleep(0.02)
        finally:
            self._limit.write_text("max" if self._second else "-1")
            hog.kill()
            hog.wait()

    def close(self) -> None:
        """Take it away, once what was in it has ended."""
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self._members.read_text() and time.monotonic() < give_up:
            time.sleep(0.1)
        self._folder.rmdir()
