"""Batches the work of all callers that wait, on a thread beside the event loop or on the loop.

Nothing waits on a timer. Work starts at once when the thread is idle, and what arrives while it is
busy forms the next batch. Callers bring chunks: a large request's first chunk is in the engine
while its next one is tokenised, and small requests pass between the chunks.

Short texts take less time than starting the thread, and run on the event loop. A batch is then what
the loop's last turns have brought: requests that arrive together reach the engine together, which
saves it steps of one or two sequences.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, NamedTuple, TypeVar

QUIET_TURNS = 2
"""Turns of the event loop without a new caller, after which requests that arrived are parsed."""
GATHER_SECONDS = 0.005
"""The most seconds that a caller waits for others while each turn brings more."""

In = TypeVar("In")
Out = TypeVar("Out")


class _Caller(NamedTuple, Generic[In, Out]):
    items: Sequence[In]
    size: int
    answer: asyncio.Future[list[Out]]


class Batcher(Generic[In, Out]):
    """Runs ``work`` over the items of all callers that wait.

    Args:
        work: returns one result per item, in order.
        most: the most items per call of ``work``, unless a single caller brings more.
        most_size: the largest sum of the callers' sizes per call, likewise.
        on_loop: run ``work`` on the event loop instead of a thread.
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
        """The results of one caller's items, in order.

        Raises:
            Exception: what ``work`` raised for these items.
        """
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
        """Wait while each turn of the event loop brings more callers, but not for long."""
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
        """Let the thread end, without waiting for it."""
        if self._thread is not None:
            self._thread.shutdown(wait=False, cancel_futures=True)
