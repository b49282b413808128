"""One server and the results that it has answered; each pair is requested once."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from tqdm import tqdm

from fivescore.client import AsyncRewardClient
from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS, RETRY_SECONDS
from fivescore.client.served import Served, served_at
from fivescore.data.reader import Source, read
from fivescore.errors import InvalidPair, ServiceUnavailable
from fivescore.evaluation.requests import Requests, Truncate
from fivescore.evaluation.store import Failure, Result, Store, pair_key
from fivescore.types import Score, parse_pair

PROBE = {"prompt": "What is 1+1?", "response": "1+1=2"}
"""Scored at each start to recognise other weights that are served under the same name."""
MOST_FAILURES_SHOWN = 100
"""The most failed pairs that a report lists."""


@dataclass(frozen=True)
class Options:
    """The options of every evaluation; ``retry_seconds`` limits one request with all its tries."""

    command: Sequence[str]
    output: Path
    data: Sequence[str]
    split: str
    url: str | None = None
    truncate: Truncate = "never"
    batch_size: int = BATCH_SIZE
    concurrency: int = FEW_REQUESTS
    retry_seconds: float = RETRY_SECONDS
    limit: int | None = None
    fresh: bool = False

    def sources(self) -> list[Source]:
        """The first ``limit`` rows of each source in ``data``.

        Raises:
            ConfigurationError: one cannot be read.
        """
        return [read(origin, self.split, self.limit) for origin in self.data]


class Session:
    """Scores pairs on one server, and stores the results in ``file_name`` in the output folder.

    Raises:
        FivescoreError: the server cannot be reached, or the store holds another model's scores.
    """

    def __init__(self, options: Options, file_name: str = "scores.jsonl") -> None:
        self._options = options
        self.served: Served = served_at(options.url, options.retry_seconds)
        probe = asyncio.run(self._probe())
        self.store = Store(options.output / file_name, self.served.identity, probe, options.fresh)
        self._results: dict[str, Result] = {}
        self.known_before = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.store.close()

    def _client(self) -> AsyncRewardClient:
        return AsyncRewardClient(
            self._options.url,
            batch_size=self._options.batch_size,
            concurrency=self._options.concurrency,
            deadline_seconds=self._options.retry_seconds,
        )

    async def _probe(self) -> Score | None:
        async with self._client() as client:
            (score,) = await client.score([PROBE], errors="none")
        return score

    def score(self, pairs: Sequence[dict[str, Any]]) -> list[Result]:
        """One result per pair ``{"prompt": ..., "response": ...}``, in order.

        Raises:
            ServiceUnavailable: the server became unavailable; its results so far are stored.
        """
        keys = [pair_key(pair, self._options.truncate) for pair in pairs]
        wanted = dict(zip(keys, pairs, strict=True))
        self.known_before += sum(key in self.store for key in wanted)
        self._refuse_malformed(wanted)
        missing = {key: pair for key, pair in wanted.items() if key not in self.store}
        asyncio.run(self._request(missing, len(wanted)))
        self._results.update({key: self.store[key] for key in wanted})
        return [self.store[key] for key in keys]

    def _refuse_malformed(self, wanted: dict[str, dict[str, Any]]) -> None:
        parsed = {key: parse_pair(pair) for key, pair in wanted.items()}
        self.store.add_temporary(
            {
                key: Failure(error.code, error.detail)
                for key, error in parsed.items()
                if isinstance(error, InvalidPair)
            }
        )

    async def _request(self, missing: dict[str, dict[str, Any]], total: int) -> None:
        options = self._options
        with tqdm(
            total=total, initial=total - len(missing), unit="pair", desc=self.served.model
        ) as bar:
            async with self._client() as client:
                requests = Requests(client, self.store, options.truncate, options.batch_size, bar)
                try:
                    await requests.run(missing, options.concurrency)
                except ExceptionGroup as errors:  # all workers fail for the same reason
                    raise errors.exceptions[0] from None
        left = sum(key not in self.store for key in missing)
        if left and requests.unavailable:
            raise ServiceUnavailable(
                f"{left} of {total} pairs are not scored: {requests.unavailable.detail}; the others"
                f" are stored in {self.store.path}: run the same command again to continue"
            )

    def summary(self) -> dict[str, Any]:
        """The server and the counts of results, for a report."""
        failures = {
            key: result for key, result in self._results.items() if isinstance(result, Failure)
        }
        scores = [result for result in self._results.values() if isinstance(result, Score)]
        return {
            "server": {
                "urls": list(self.served.urls),
                "model": self.served.model,
                "manifest": self.served.manifest,
                **self.served.versions,
            },
            "pairs": {
                "asked": len(self._results),
                "known_before": self.known_before,
                "scored": len(scores),
                "failed": len(failures),
                "truncated": sum(score.truncated for score in scores),
                "tokens": sum(score.tokens for score in scores),
            },
            "failures": {
                "by_code": dict(Counter(failure.code for failure in failures.values())),
                "first": [
                    {"pair": key, "code": failure.code, "detail": failure.detail}
                    for key, failure in list(failures.items())[:MOST_FAILURES_SHOWN]
                ],
            },
        }
