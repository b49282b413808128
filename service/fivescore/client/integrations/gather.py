"""Scores samples that a trainer brings one by one, in requests of those that are waiting."""

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
    """Sends what arrives in the same moment together, and what arrives while requests are under
    way with the next one. It has no timer, and no more than ``FEW_REQUESTS`` requests at a time.

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
            FivescoreError: the pair, or the request that it went with, failed for good.
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
                if batch:
                    self._submit(batch)

    def _submit(self, batch: list[Waiting]) -> None:
        pairs = [pair for pair, _ in batch]
        try:
            asked = self._client.submit(pairs, **self._options, errors="return")
        except BaseException as error:  # the batch is of several callers: each must hear of it
            _settle(batch, [error] * len(batch))
            return
        self._requests += 1
        asked.add_done_callback(partial(self._answer, batch))

    def _answer(self, batch: list[Waiting], asked: Future[Any]) -> None:
        try:
            results = asked.result()
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
