"""How a process that has served ends: without waiting for threads that nothing can stop.

A thread that imports a library, reads a file from a slow disk or loads a model goes on for as long
as that takes, and asyncio and Python wait for it. Nobody needs what it does once the service ends.
"""

from __future__ import annotations

import atexit
import contextlib
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

SETTLE_SECONDS = 0.2
"""How long threads without work may take to end."""


class Unwaited(ThreadPoolExecutor):
    """Threads for ``asyncio.to_thread``, for which the end of the event loop does not wait."""

    used = False

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        Unwaited.used = True

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


class _End:
    """The exit status of this process, once it has served."""

    status: int | None = None


def skip_finalization() -> None:
    """Let this process, once it has served, end as soon as its exit functions have run: to take
    its million objects apart, as Python then does, takes seconds.

    To be called before libraries register exit functions: they run in the opposite order.
    """
    atexit.register(_end, os.getpid())


def _end(pid: int) -> None:
    if _End.status is None or os.getpid() != pid:
        return
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(_End.status)


def leave(status: int) -> int:
    """Returns the exit status; where the process has served and a thread of it is still at work,
    the process ends with it now."""
    if not Unwaited.used:
        return status
    _End.status = status
    give_up = time.monotonic() + SETTLE_SECONDS
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join(max(0.0, give_up - time.monotonic()))
            if thread.is_alive():
                os._exit(status)
    return status


def leave_within(seconds: float, last: Callable[[], int]) -> None:
    """End the process after so long, if it has not ended by itself and whatever it does then.

    Nothing is flushed: whoever reads the output may be what the process waits for.

    Args:
        last: called just before; returns the exit status.
    """

    def end() -> None:
        status = 1
        with contextlib.suppress(Exception):
            status = last()
        os._exit(status)

    timer = threading.Timer(seconds, end)
    timer.daemon = True
    timer.start()
