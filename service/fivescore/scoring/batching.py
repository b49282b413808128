"""One tokeniser call for everything that waits, on a thread beside the event loop.

Nothing waits on a timer: when the thread is idle, work starts at once; what arrives while it is
busy forms the next batch. Callers hand in chunks, so that a large request's first chunk is in the
engine while its next is tokenised, and so that small requests pass between its chunks.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Generic, TypeVar

In = TypeVar("In")
Out = TypeVar("Out")
_Caller = tuple[Sequence[In], asyncio.Future[list[Out]]]


class Batcher(Generic[In, Out]):
    """Runs ``work`` on a thread, over the items of all callers that wait.

    Args:
        work: answers a batch, one result per item, in order.
        most: the most items in one call of ``work``, unless a single caller brings more.
    """

    def __init__(self, work: Callable[[list[In]], list[Out]], most: int) -> None:
        self._work = work
        self._most = most
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fivescore-tokenizer")
        self._waiting: deque[_Caller[In, Out]] = deque()
        self._running: asyncio.Task[None] | None = None

    async def __call__(self, items: Sequence[In]) -> list[Out]:
        """The results for one caller's items, in order."""
        answer: asyncio.Future[list[Out]] = asyncio.get_running_loop().create_future()
        self._waiting.append((items, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        try:
            while self._waiting:
                if callers := self._take():
                    await self._run_batch(callers)
        finally:
            self._running = None

    async def _run_batch(self, callers: list[_Caller[In, Out]]) -> None:
        items = [item for mine, _ in callers for item in mine]
        try:
            loop = asyncio.get_running_loop()
            results = await loop.run_in_executor(self._thread, self._work, items)
        except Exception as error:
            if len(callers) > 1:  # one caller's items must not fail the others'
                for caller in callers:
                    await self._run_batch([caller])
            elif not callers[0][1].done():
                callers[0][1].set_exception(error)
            return
        start = 0
        for mine, answer in callers:
            if not answer.done():
                answer.set_result(results[start : start + len(mine)])
            start += len(mine)

    def _take(self) -> list[_Caller[In, Out]]:
        callers: list[_Caller[In, Out]] = []
        size = 0
        while self._waiting and (not size or size + len(self._waiting[0][0]) <= self._most):
            caller = self._waiting.popleft()
            if not caller[1].cancelled():
                callers.append(caller)
                size += len(caller[0])
        return callers

    def close(self) -> None:
        """Let the thread end; nothing waits for it."""
        self._thread.shutdown(wait=False, cancel_futures=True)
