"""Gathers samples that a trainer scores one by one into shared requests."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from fivescore.client import RewardClient
from fivescore.client.batches import PairLike
from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS
from fivescore.types import Score

Waiting = tuple[PairLike, Future[Score]]


class Gatherer:
    """Sends pairs that arrive in one turn of the event loop together.

    At most ``FEW_REQUESTS`` requests run at a time; what arrives meanwhile shares the next one.
    There is no timer.

    Args:
        options: of ``RewardClient.score``, except ``errors``.
    """

    def __init__(self, client: RewardClient, **options: Any) -> None:
        self._client = client
        self._options = options
        self._lock = threading.RLock()
        self._waiting: list[Waiting] = []
        self._requests = 0

    async def score(self, pair: PairLike) -> Score:
        """The score of one pair, from any event loop.

        Raises:
            FivescoreError: the pair, or the request that carried it, failed for good.
        """
        future: Future[Score] = Future()
        with self._lock:
            self._waiting.append((pair, future))
        await asyncio.sleep(0)
        self._send()
        return await asyncio.wrap_future(future)

    def _send(self) -> None:
        with self._lock:
            while self._waiting and self._requests < FEW_REQUESTS:
                batch, self._waiting = self._waiting[:BATCH_SIZE], self._waiting[BATCH_SIZE:]
                batch = [one for one in batch if one[1].set_running_or_notify_cancel()]
                if batch:  # not all callers were cancelled
                    self._submit(batch)

    def _submit(self, batch: list[Waiting]) -> None:
        pairs = [pair for pair, _ in batch]
        try:
            request = self._client.submit(pairs, **self._options, errors="return")
        except BaseException as error:  # several callers wait for the batch: each gets the error
            _settle(batch, [error] * len(batch))
            return
        self._requests += 1
        request.add_done_callback(partial(self._answer, batch))

    def _answer(self, batch: list[Waiting], request: Future[Any]) -> None:
        try:
            results = request.result()
        except BaseException as error:
            results = [error] * len(batch)
        _settle(batch, results)
        with self._lock:
            self._requests -= 1
        self._send()


def _settle(batch: list[Waiting], results: Sequence[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if isinstance(result, Score):
            future.set_result(result)
        else:
            future.set_exception(result)
