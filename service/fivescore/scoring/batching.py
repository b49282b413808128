"""One tokeniser call for everything that waits, on a thread beside the event loop or on it.

Nothing waits on a timer: when the thread is idle, work starts at once; what arrives while it is
busy forms the next batch. Callers hand in chunks, so that a large request's first chunk is in the
engine while its next is tokenised, and so that small requests pass between its chunks.

Small texts take less time than a thread to begin. On the event loop a batch is what its last turns
have brought: requests that come at once are tokenised and handed to the engine together, which
spares it steps of one or two.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

QUIET_TURNS = 2
"""Of the event loop, without anybody who comes: what had arrived is then read and parsed."""
GATHER_SECONDS = 0.005
"""The longest that the first waits for others, where each turn brings more."""

In = TypeVar("In")
Out = TypeVar("Out")


class _Caller(NamedTuple, Generic[In, Out]):
    items: Sequence[In]
    size: int
    answer: asyncio.Future[list[Out]]


class Batcher(Generic[In, Out]):
    """Runs ``work`` over the items of all callers that wait.

    Args:
        work: answers a batch, one result per item, in order.
        most: the most items in one call of ``work``, unless a single caller brings more.
        most_size: the same of the callers' sizes.
        on_loop: run it on the event loop, not on a thread.
    """

    def __init__(
        self,
        work: Callable[[list[In]], list[Out]],
        most: int,
        most_size: int,
        *,
        on_loop: bool = False,
    ) -> None:
        self._work = work
        self._most = most
        self.most_size = most_size
        self._thread = (
            None if on_loop else ThreadPoolExecutor(1, thread_name_prefix="fivescore-tokenizer")
        )
        self._waiting: deque[_Caller[In, Out]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[In], size: int) -> list[Out]:
        """The results for one caller's items, in order."""
        answer: asyncio.Future[list[Out]] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Caller(items, size, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                if self._thread is None:
                    await self._gather()
                if callers := self._take():
                    await self._run_batch(callers)
        finally:
            self._running = None

    async def _gather(self) -> None:
        """Wait while each turn of the event loop brings more, but not for long."""
        until = time.monotonic() + GATHER_SECONDS
        quiet = seen = 0
        while quiet < QUIET_TURNS and seen < self._most and time.monotonic() < until:
            await asyncio.sleep(0)
            quiet = 0 if len(self._waiting) > seen else quiet + 1
            seen = len(self._waiting)

    async def _run_batch(self, callers: list[_Caller[In, Out]]) -> None:
        items = [item for caller in callers for item in caller.items]
        try:
            if self._thread is None:
                results = self._work(items)
            else:
                loop = asyncio.get_running_loop()
                results = await loop.run_in_executor(self._thread, self._work, items)
        except Exception as error:
            if len(callers) > 1:  # one caller's items must not fail the others'
                for caller in callers:
                    await self._run_batch([caller])
            elif not callers[0].answer.done():
                callers[0].answer.set_exception(error)
            return
        start = 0
        for caller in callers:
            end = start + len(caller.items)
            if not caller.answer.done():
                caller.answer.set_result(results[start:end])
            start = end

    def _take(self) -> list[_Caller[In, Out]]:
        callers: list[_Caller[In, Out]] = []
        items = size = 0
        while self._waiting:
            caller = self._waiting[0]
            if not caller.answer.cancelled():
                items += len(caller.items)
                size += caller.size
                if callers and (items > self._most or size > self.most_size):
                    break
                callers.append(caller)
            self._waiting.popleft()
        return callers

    def close(self) -> None:
        """Let the thread end; nothing waits for it."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
