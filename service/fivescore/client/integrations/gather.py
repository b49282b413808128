"""Gathers samples that a trainer scores one by one into shared requests."""

from __future__ import annotations

import asyncio
import functools
import json
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

from fivescore.client import RewardClient
from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS
from fivescore.client.rows import PairLike
from fivescore.types import Score

Waiting = tuple[PairLike, Future[Score]]


class Gatherer:
    """Sends pairs that arrive in one turn of the event loop together.

    At most ``FEW_REQUESTS`` requests run at a time; what arrives meanwhile shares the next one. A
    request whose callers were all cancelled is cancelled. There is no timer.

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
        future = self._wait_for(pair)
        await asyncio.sleep(0)
        self._send()
        return await asyncio.wrap_future(future)

    def submit(self, pair: PairLike) -> Future[Score]:
        """A future of one pair's score, for callers that are threads.

        The first ones are sent at once; those that come while requests run share the next one.
        """
        future = self._wait_for(pair)
        self._send()
        return future

    def _wait_for(self, pair: PairLike) -> Future[Score]:
        future: Future[Score] = Future()
        with self._lock:
            self._waiting.append((pair, future))
        return future

    def _send(self) -> None:
        with self._lock:
            while self._waiting and self._requests < FEW_REQUESTS:
                batch, self._waiting = self._waiting[:BATCH_SIZE], self._waiting[BATCH_SIZE:]
                # Futures stay pending, so that they can be cancelled until their scores are there.
                if batch := [one for one in batch if not one[1].cancelled()]:
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
        for _, future in batch:
            future.add_done_callback(partial(_give_up, batch, request))

    def _answer(self, batch: list[Waiting], request: Future[Any]) -> None:
        try:
            results = request.result()
        except BaseException as error:
            results = [error] * len(batch)
        _settle(batch, results)
        with self._lock:
            self._requests -= 1
        self._send()


def shared_gatherer(
    urls: str | Sequence[str] | None = None,
    weights: Mapping[str, float] | None = None,
    truncate: str = "prompt_start",
) -> Gatherer:
    """This process's gatherer of these options, for trainers that make an object per sample.

    Args:
        urls, weights, truncate: as ``RewardClient`` and its ``score`` take them; lists and mappings
            may be OmegaConf's.
    """
    options = {"weights": weights, "truncate": truncate}
    return _gatherer_of(os.getpid(), _encoded(urls), _encoded(options))


@functools.cache
def _gatherer_of(process: int, urls: str, options: str) -> Gatherer:
    return Gatherer(RewardClient(json.loads(urls)), **json.loads(options))


def _encoded(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=_plain)


def _plain(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else list(value)


def _give_up(batch: list[Waiting], request: Future[Any], _: Future[Score]) -> None:
    if all(future.cancelled() for _, future in batch):
        request.cancel()


def _settle(batch: list[Waiting], results: Sequence[Any]) -> None:
    for (_, future), result in zip(batch, results, strict=True):
        if not future.set_running_or_notify_cancel():
            continue
        if isinstance(result, Score):
            future.set_result(result)
        else:
            future.set_exception(result)
