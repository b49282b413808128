"""A client of a running server: batches out, scores in order, retries what another try may mend."""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import Sequence
from typing import Any, Self

import httpx

log = logging.getLogger(__name__)

RETRIED = frozenset({429, 502, 503})
"""Statuses after which the same request may succeed."""
BACKOFF_SECONDS = (0.5, 30.0)
"""First and longest wait between tries; the server's Retry-After counts where it is longer."""


JSON = {"Content-Type": "application/json"}


class ClientError(Exception):
    """The server refused a request or could not be reached; ``code`` is its problem's code."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class AsyncRewardClient:
    """Scores pairs on a running fivescore.

    Args:
        url: the server's address.
        retry_seconds: how long a request may be tried again; 0 tries once.
        timeout_seconds: how long one try may wait for its answer.
    """

    def __init__(
        self, url: str, *, retry_seconds: float = 600.0, timeout_seconds: float = 600.0
    ) -> None:
        self._retry_seconds = retry_seconds
        try:
            self._http = httpx.AsyncClient(
                base_url=url,
                timeout=httpx.Timeout(timeout_seconds, connect=10.0),
                limits=httpx.Limits(max_connections=8),
            )
        except httpx.InvalidURL as error:
            raise ClientError("bad_url", f"{url}: {error}") from error
        if self._http.base_url.scheme not in ("http", "https") or not self._http.base_url.host:
            raise ClientError("bad_url", f"{url}: give an address such as http://127.0.0.1:8000")

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._http.aclose()

    async def score(self, pairs: Sequence[dict[str, Any]], **options: Any) -> list[dict[str, Any]]:
        """One entry a pair, in order: its scores, or ``error`` with ``code`` and ``detail``.

        Args:
            pairs: as ``POST /score`` takes them.
            options: ``weights``, ``truncate`` and ``timeout_seconds`` of ``POST /score``.

        Raises:
            ClientError: the request as a whole failed for good.
        """
        answer = await self._post("/score", {"pairs": list(pairs), **options})
        scores = answer.get("scores") if isinstance(answer, dict) else None
        if not isinstance(scores, list) or len(scores) != len(pairs):
            raise ClientError(
                "bad_answer", f"{self._http.base_url} did not answer one score a pair"
            )
        return scores

    async def _post(self, path: str, body: dict[str, Any]) -> Any:
        content = json.dumps(body, allow_nan=False)
        give_up = time.monotonic() + self._retry_seconds
        wait, longest = BACKOFF_SECONDS
        told = False
        while True:
            advised = 0.0
            try:
                response = await self._http.post(path, content=content, headers=JSON)
                if response.is_success:
                    return _parsed(response)
                failure = _failure(response)
                if response.status_code not in RETRIED:
                    raise failure
                advised = _retry_after(response)
            except httpx.TransportError as error:
                failure = ClientError(
                    "unreachable", f"{self._http.base_url}: {error or type(error).__name__}"
                )
            pause = max(advised, wait * random.uniform(0.5, 1.0))
            if time.monotonic() + pause > give_up:
                raise failure
            if not told:
                log.warning("%s; trying again for up to %.0f s", failure, self._retry_seconds)
                told = True
            await asyncio.sleep(pause)
            wait = min(2 * wait, longest)


def _parsed(response: httpx.Response) -> Any:
    try:
        return response.json()
    except ValueError as error:
        raise ClientError("bad_answer", f"{response.url} did not answer JSON") from error


def _failure(response: httpx.Response) -> ClientError:
    try:
        problem = response.json()
        return ClientError(problem["code"], problem["detail"])
    except (ValueError, KeyError, TypeError):
        return ClientError(f"http_{response.status_code}", response.text[:200])


def _retry_after(response: httpx.Response) -> float:
    try:
        return float(response.headers.get("Retry-After", 0))
    except ValueError:
        return 0.0
