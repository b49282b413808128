"""Replicas without sockets, and a clock without waiting."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import httpx

from fivescore.client.retry import Clock

Json = dict[str, Any]
Answer = (
    httpx.Response | Exception | Callable[["Request"], Awaitable[httpx.Response] | httpx.Response]
)


class Hurry(Clock):
    """Time passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.seconds = 1000.0
        self.slept: list[float] = []

    def now(self) -> float:
        return self.seconds

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.seconds += seconds
        await asyncio.sleep(0)


@dataclass(frozen=True)
class Request:
    """What a replica was asked."""

    host: str
    body: Json
    headers: httpx.Headers

    @property
    def pairs(self) -> list[Json]:
        pairs: list[Json] = self.body["pairs"]
        return pairs

    @property
    def responses(self) -> list[str]:
        return [pair["response"] for pair in self.pairs]


class Fleet(httpx.AsyncBaseTransport):
    """Replicas by their host; each gives its faults first and then scores: the reward of a pair is
    the number that its response says."""

    def __init__(self, *faults: Answer, **faults_of: list[Answer]) -> None:
        self.requests: list[Request] = []
        self.echo = True
        """Whether answers have the id of their request, as a server's own have."""
        self.faults: defaultdict[str, deque[Answer]] = defaultdict(deque)
        self.faults["rm"].extend(faults)
        for host, its_faults in faults_of.items():
            self.faults[host].extend(its_faults)
        self.inflight = self.most_inflight = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(await request.aread())
        asked = Request(request.url.host, body, request.headers)
        self.requests.append(asked)
        faults = self.faults[asked.host]
        answer = faults.popleft() if faults else None
        self.inflight += 1
        self.most_inflight = max(self.most_inflight, self.inflight)
        try:
            await asyncio.sleep(0)
            if isinstance(answer, Exception):
                raise answer
            answered = await _made(answer, asked)
            if self.echo:
                answered.headers["X-Request-Id"] = request.headers["X-Request-Id"]
            return answered
        finally:
            self.inflight -= 1


async def _made(answer: Answer | None, asked: Request) -> httpx.Response:
    if isinstance(answer, httpx.Response):
        return answer
    assert not isinstance(answer, Exception)
    made = scored(asked) if answer is None else answer(asked)
    return await made if inspect.isawaitable(made) else made


def scored(request: Request) -> httpx.Response:
    return scores(*(score(float(pair["response"])) for pair in request.pairs))


def scores(*entries: Json) -> httpx.Response:
    return httpx.Response(200, json={"model": "m", "scores": list(entries), "usage": {}})


def score(reward: float) -> Json:
    return {
        "helpfulness": reward / 2,
        "verbosity": -reward,
        "reward": reward,
        "tokens": 7,
        "cached_tokens": 2,
        "truncated": False,
    }


def problem(status: int, code: str, retry_after: str | None = None, **facts: Any) -> httpx.Response:
    headers = {} if retry_after is None else {"Retry-After": retry_after}
    document = {"code": code, "detail": f"told {code}", "status": status, **facts}
    return httpx.Response(status, json=document, headers=headers)


def pairs(count: int, prompts: int = 7) -> list[Json]:
    """Pairs whose rewards are 0, 1, 2, ..."""
    return [{"prompt": f"Q{n % prompts}", "response": str(n)} for n in range(count)]
