"""Two ways to ask a server: once and as it comes, or with the client that tries again."""

from __future__ import annotations

import asyncio
import io
import json
import time
from collections.abc import Sequence
from types import TracebackType
from typing import Any, NamedTuple, Self

import aiohttp
import httpx

from fivescore.client import AsyncRewardClient
from tests.faults.judging import counted, judged
from tests.faults.known import Known
from tests.faults.result import Tally

LONGEST_SECONDS = 600.0
"""No scenario waits longer for one answer: then it is lost."""


class Answer(NamedTuple):
    """One request's end, by ``time.monotonic``, and the seconds since it was to be sent."""

    tally: Tally
    ended: float
    seconds: float


class Asker:
    """Asks one server, each request once, over as many connections as there are requests."""

    def __init__(self, url: str) -> None:
        self._session = aiohttp.ClientSession(
            url,
            connector=aiohttp.TCPConnector(limit=0),
            timeout=aiohttp.ClientTimeout(total=LONGEST_SECONDS),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._session.close()

    async def ask(self, known: Sequence[Known], due: float | None = None) -> Answer:
        """One request of these pairs; ``due`` is when it was to be sent, if that was before."""
        due = time.monotonic() if due is None else due
        try:
            async with self._session.post("/score", data=io.BytesIO(body_of(known))) as answer:
                content = await answer.read()
                tally = judged(answer.status, answer.headers, content, known)
        except (aiohttp.ClientError, TimeoutError, OSError):
            tally = Tally(1, len(known), lost=len(known))
        ended = time.monotonic()
        return Answer(tally, ended, ended - due)

    async def ready(self) -> bool:
        """Whether it is there, and takes requests."""
        try:
            async with self._session.get("/health/ready") as answer:
                return answer.status == 200
        except (aiohttp.ClientError, TimeoutError, OSError):
            return False

    async def one_by_one(self, known: Sequence[Known]) -> list[Answer]:
        """A request for each pair, one after the other."""
        return [await self.ask([pair]) for pair in known]

    async def until_right(self, pair: Known) -> Tally:
        """Ask for one pair until it is answered with its score; all that came before that."""
        tally = Tally()
        async with asyncio.timeout(LONGEST_SECONDS):
            while not tally.right:
                tally.add((await self.ask([pair])).tally)
                await asyncio.sleep(0.05)
        return tally


def body_of(known: Sequence[Known]) -> bytes:
    """The body of one ``POST /score``."""
    return json.dumps({"pairs": [pair.body for pair in known]}).encode()


class Counting(httpx.AsyncHTTPTransport):
    """httpx's own transport, which counts the client's tries."""

    def __init__(self) -> None:
        super().__init__()
        self.requests = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.requests += 1
        return await super().handle_async_request(request)


async def score_all(url: str, known: Sequence[Known], **options: Any) -> Tally:
    """The repository's own client over these pairs; how they ended for it."""
    counting = Counting()
    async with AsyncRewardClient(url, transport=counting, **options) as client:
        results = await client.score([(p.prompt, p.response) for p in known], errors="return")
    tally = counted(results, known)
    tally.requests = counting.requests
    return tally
