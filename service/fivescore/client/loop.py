"""An event loop on its own thread, for callers without one or inside a running one."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from contextlib import AbstractAsyncContextManager
from typing import Any, TypeVar

Result = TypeVar("Result")

_ABANDONED: list[object] = []
"""The parent's loops in a forked child. They stay referenced, because closing one would remove its
sockets from the parent's epoll."""


class LoopThread:
    """Runs coroutines on one loop, with ``resource`` open in it.

    The thread is a daemon, so that a trainer that does not close its client can exit.

    Raises:
        BaseException: what opening ``resource`` raised.
    """

    def __init__(self, resource: AbstractAsyncContextManager[Any]) -> None:
        self._resource = resource
        self._process = os.getpid()
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._lock = threading.Lock()
        self._ended = False
        self._faults: list[BaseException] = []
        started = threading.Event()
        self._thread = threading.Thread(
            target=self._serve, args=[started], name="fivescore", daemon=True
        )
        self._thread.start()
        started.wait()
        if self._faults:
            self._thread.join()
            raise self._faults[0]

    def _serve(self, started: threading.Event) -> None:
        try:
            self._loop.run_until_complete(self._main(started))
        except BaseException as error:
            self._faults.append(error)
        finally:
            started.set()
            # Not asyncio.Runner: it starts a thread to end name look-ups, which fails while the
            # interpreter exits.
            self._loop.close()

    async def _main(self, started: threading.Event) -> None:
        async with self._resource:
            started.set()
            await self._stop.wait()
            with self._lock:
                self._ended = True
            await asyncio.sleep(0)  # so that the last submitted coroutines are tasks to cancel
            tasks = asyncio.all_tasks() - {asyncio.current_task()}
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def submit(self, work: Coroutine[Any, Any, Result]) -> Future[Result]:
        """Start ``work``; it is cancelled when its future is cancelled or the thread ends."""
        with self._lock:
            if not self._ended:
                return asyncio.run_coroutine_threadsafe(work, self._loop)
        work.close()
        future: Future[Result] = Future()
        future.cancel()
        return future

    def end(self) -> None:
        """Tell the thread to cancel its work, close the resource and end; does not wait."""
        if os.getpid() == self._process and self._thread.is_alive():
            with contextlib.suppress(RuntimeError):  # the loop has closed since the check
                self._loop.call_soon_threadsafe(self._stop.set)

    def close(self) -> None:
        """``end`` the thread and wait for it."""
        self.end()
        self._thread.join()

    def abandon(self) -> None:
        """Give the loop up in a forked child, where its thread does not run."""
        _ABANDONED.append((self, self._loop))
