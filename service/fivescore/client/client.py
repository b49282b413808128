"""Clients of running servers: pairs in, scores out in their order."""

from __future__ import annotations

import asyncio
import atexit
import functools
import os
import threading
import weakref
from collections.abc import AsyncIterator, Sequence
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, Literal, Self, overload

import httpx
from tqdm import tqdm

from fivescore.client.batches import PairLike, encoded_options
from fivescore.client.call import Call, Limits, Pool
from fivescore.client.defaults import BATCH_SIZE, CONCURRENCY, RETRY_SECONDS
from fivescore.client.loop import LoopThread
from fivescore.client.replicas import Replicas, addresses
from fivescore.client.retry import Clock
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.types import Score

CONNECT_SECONDS = 10.0
Truncate = Literal["never", "prompt_start"]
Errors = Literal["raise", "none", "return"]

# One for all clients: reading the certificates takes longer than scoring a pair.
_tls = functools.cache(httpx.create_ssl_context)


class AsyncRewardClient:
    """Scores pairs on one or more running fivescore servers.

    ``async with`` keeps its connections open; outside of it every call opens its own. So it may be
    used in any event loop, and be pickled.

    Args:
        urls: address or addresses of replicas; a text may have several, with commas
            [FIVESCORE_URL, else http://127.0.0.1:8000]. ``http://user:KEY@host`` gives a key.
        api_key: the servers' key [the first of FIVESCORE_API_KEY].
        batch_size: pairs per request; a request that is too much for the server is halved.
        concurrency: requests at a time.
        deadline_seconds: how long one request may take, with all its tries and waits; 0 asks every
            replica once.
        timeout_seconds: how long one try may take; with several replicas less than the deadline,
            so that another one can stand in for one that hangs.
        transport: how httpx connects, where not as usual; cannot be pickled.
        clock: tests bring their own.

    Raises:
        ConfigurationError: an argument is out of range, or an address is none.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        api_key: str | None = None,
        batch_size: int = BATCH_SIZE,
        concurrency: int = CONCURRENCY,
        deadline_seconds: float = RETRY_SECONDS,
        timeout_seconds: float = RETRY_SECONDS,
        transport: httpx.AsyncBaseTransport | None = None,
        clock: Clock | None = None,
    ) -> None:
        if min(batch_size, concurrency) < 1:
            raise ConfigurationError("batch_size and concurrency must be at least 1")
        if not (deadline_seconds >= 0 and timeout_seconds > 0):
            raise ConfigurationError("deadline_seconds may be 0, timeout_seconds must be more")
        self._limits = Limits(batch_size, concurrency, deadline_seconds, timeout_seconds)
        self._addresses = addresses(urls, api_key)
        self._transport = transport
        self._clock = clock or Clock()
        self._start()

    def _start(self) -> None:
        self._replicas = Replicas(self._addresses)
        self._pool: Pool | None = None

    def __getstate__(self) -> dict[str, Any]:
        # What it learned of its replicas is by this process's clock, its pool is of this loop.
        fresh = ("_replicas", "_pool")
        return {name: value for name, value in vars(self).items() if name not in fresh}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(address.url for address in self._addresses)})"

    async def __aenter__(self) -> Self:
        self._pool = self._new_pool()
        return self

    async def __aexit__(self, *exception: object) -> None:
        pool, self._pool = self._pool, None
        if pool is not None:
            await pool.http.aclose()

    def _new_pool(self) -> Pool:
        # Waiting for a connection is bounded by ``slots``, one try by its own deadline.
        http = httpx.AsyncClient(
            verify=_tls(),
            timeout=httpx.Timeout(None, connect=CONNECT_SECONDS),
            limits=httpx.Limits(max_connections=self._limits.concurrency),
            transport=self._transport,
        )
        slots = asyncio.Semaphore(self._limits.concurrency)
        return Pool(http, slots, asyncio.get_running_loop())

    @asynccontextmanager
    async def _connected(self) -> AsyncIterator[Pool]:
        if self._pool is not None and self._pool.loop is asyncio.get_running_loop():
            yield self._pool
            return
        pool = self._new_pool()
        async with pool.http:
            yield pool

    @overload
    async def score(
        self, pairs: Sequence[PairLike], *, weights: dict[str, float] | None = ...,
        truncate: Truncate = ..., errors: Literal["raise"] = ..., progress: bool = ...,
    ) -> list[Score]: ...  # fmt: skip
    @overload
    async def score(
        self, pairs: Sequence[PairLike], *, weights: dict[str, float] | None = ...,
        truncate: Truncate = ..., errors: Literal["none"], progress: bool = ...,
    ) -> list[Score | None]: ...  # fmt: skip
    @overload
    async def score(
        self, pairs: Sequence[PairLike], *, weights: dict[str, float] | None = ...,
        truncate: Truncate = ..., errors: Literal["return"], progress: bool = ...,
    ) -> list[Score | FivescoreError]: ...  # fmt: skip
    async def score(
        self,
        pairs: Sequence[PairLike],
        *,
        weights: dict[str, float] | None = None,
        truncate: Truncate = "never",
        errors: Errors = "raise",
        progress: bool = False,
    ) -> Sequence[Score | FivescoreError | None]:
        """One score per pair, in the order of the pairs.

        Args:
            pairs: as ``POST /score`` takes them, ``Pair`` objects, or (prompt, response) tuples.
            weights: ``{attribute: weight}``, another combined reward than the manifest's.
            truncate: ``prompt_start`` drops the oldest tokens of a pair that is too long.
            errors: what stands for a pair that failed for good: ``raise`` raises its error at
                once, ``none`` puts None in its place, ``return`` puts the error there.
            progress: show a bar.

        Raises:
            RequestError: the request is wrong whatever its pairs are: key, address or options.
            FivescoreError: with ``errors="raise"``, the first failure: the pair's own, or
                ``Unreachable``, ``BadAnswer`` or the server's when a request has failed for good.
        """
        if errors not in ("raise", "none", "return"):
            raise ConfigurationError(f"errors: {errors!r} is none of raise, none and return")
        options = encoded_options(weights=weights, truncate=truncate)
        with tqdm(total=len(pairs), unit="pair", disable=not progress) as bar:
            async with self._connected() as pool:
                call = Call(
                    pool, self._replicas, self._limits, self._clock, options, errors == "raise", bar
                )
                results = await call.run(pairs)
        if errors == "none":
            return [result if isinstance(result, Score) else None for result in results]
        return results


class RewardClient:
    """Scores pairs on one or more running fivescore servers, from any thread.

    Its requests run on a daemon thread, started when first needed: so it works where an event loop
    is running, and after a fork. ``close`` it or use ``with`` to end the thread early. It may be
    pickled.

    Takes the arguments of ``AsyncRewardClient``.
    """

    def __init__(self, urls: str | Sequence[str] | None = None, **options: Any) -> None:
        self._core = AsyncRewardClient(urls, **options)
        self._start()

    def _start(self) -> None:
        self._lock = threading.Lock()
        self._thread: LoopThread | None = None
        _clients.add(self)

    def __getstate__(self) -> dict[str, Any]:
        return {"_core": self._core}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._start()

    def __repr__(self) -> str:
        return repr(self._core).removeprefix("Async")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """End the thread and its connections; another call starts them again."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.close()

    def _running(self) -> LoopThread:
        with self._lock:
            if self._thread is None:
                self._thread = LoopThread(self._core)
                # Collected in any thread, even its own: it may not wait.
                weakref.finalize(self, self._thread.end).atexit = False
            return self._thread

    def _forked(self) -> None:
        if self._thread is not None:
            self._thread.leave_behind()
        self._start()

    @overload
    def score(
        self, pairs: Sequence[PairLike], *, weights: dict[str, float] | None = ...,
        truncate: Truncate = ..., errors: Literal["raise"] = ..., progress: bool = ...,
    ) -> list[Score]: ...  # fmt: skip
    @overload
    def score(
        self, pairs: Sequence[PairLike], *, weights: dict[str, float] | None = ...,
        truncate: Truncate = ..., errors: Literal["none"], progress: bool = ...,
    ) -> list[Score | None]: ...  # fmt: skip
    @overload
    def score(
        self, pairs: Sequence[PairLike], *, weights: dict[str, float] | None = ...,
        truncate: Truncate = ..., errors: Literal["return"], progress: bool = ...,
    ) -> list[Score | FivescoreError]: ...  # fmt: skip
    def score(self, pairs: Sequence[PairLike], **options: Any) -> Any:
        """``AsyncRewardClient.score``, waited for; interrupting the caller cancels it."""
        future = self.submit(pairs, **options)
        try:
            return future.result()
        finally:
            future.cancel()

    def submit(self, pairs: Sequence[PairLike], **options: Any) -> Future[Any]:
        """``score``, not waited for."""
        return self._running().submit(self._core.score(pairs, **options))


_clients: weakref.WeakSet[RewardClient] = weakref.WeakSet()


def _after_fork() -> None:
    for client in list(_clients):
        client._forked()


def _at_exit() -> None:
    for client in list(_clients):
        client.close()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(_at_exit)
