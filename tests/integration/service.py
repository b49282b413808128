"""The app with an engine of the test's choice, its lifespan running, and a client of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import httpx
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from fivescore.engine.base import Engine
from fivescore.http.app import create_app
from fivescore.scoring.lifecycle import Service as Lifecycle
from fivescore.scoring.scorer import Scorer
from fivescore.serve import make_engine
from fivescore.settings import Settings
from fivescore.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from fivescore.telemetry.tracing import Tracing

Json = dict[str, Any]


@dataclass
class Service:
    """A running app; ``http`` asks it without a socket."""

    http: httpx.AsyncClient
    app: FastAPI
    scorer: Scorer
    failures: list[Exception]
    """What ``on_failure`` was called with."""

    async def score(self, body: Any, **headers: str) -> httpx.Response:
        return await self.http.post("/score", json=body, headers=headers)

    async def scores(self, *pairs: Any, **options: Any) -> list[Json]:
        """The entries of a batch that is answered with 200."""
        response = await self.score({"pairs": pairs, **options})
        assert response.status_code == 200, response.text
        entries: list[Json] = strict(response)["scores"]
        return entries

    async def until(self, reached: Callable[[], bool]) -> None:
        async with asyncio.timeout(60):
            while not reached():  # noqa: ASYNC110  # there is no event for it
                await asyncio.sleep(0.005)

    async def settled(self) -> None:
        """Wait until the model is loaded or could not be."""
        await self.until(lambda: self.scorer.service.state != "loading")

    async def metric(self, name: str, **labels: str) -> float:
        return metric((await self.http.get("/metrics")).text, name, **labels)


def metric(text: str, name: str, **labels: str) -> float:
    """The value of one series of an exposition."""
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name == name and sample.labels == labels:
                return sample.value
    raise AssertionError(f"{name}{labels} is not in the metrics")


@asynccontextmanager
async def serving(
    engine: Engine | None = None,
    options: Json | None = None,
    *,
    settle: bool = True,
    tracing: Tracing | None = None,
    **settings: Any,
) -> AsyncIterator[Service]:
    """Run the app with ``engine``, or the fake one with ``options``."""
    config = Settings(backend="fake", engine=options or {}, **settings)
    make = make_engine if engine is None else lambda *_: engine
    failures: list[Exception] = []
    lifecycle = Lifecycle(config, make, Metrics(), on_failure=failures.append)
    scorer = Scorer(lifecycle)
    app = create_app(config, scorer, tracing)
    transport = httpx.ASGITransport(app)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=60) as http,
    ):
        service = Service(http, app, scorer, failures)
        if settle:
            await service.settled()
        yield service


def strict(response: httpx.Response) -> Json:
    """The body as JSON proper, without NaN and Infinity."""
    body: Json = json.loads(response.content, parse_constant=_refuse)
    return body


def _refuse(constant: str) -> NoReturn:
    raise AssertionError(f"{constant} in a body")


def assert_problem(response: httpx.Response, status: int, code: str) -> Json:
    """Check the canonical shape of every error; returns the document."""
    assert response.status_code == status, response.text
    assert response.headers["Content-Type"] == "application/problem+json"
    body = strict(response)
    assert body["type"] == f"urn:fivescore:{code}"
    assert body["code"] == code
    assert body["status"] == status
    assert body["title"]
    assert body["detail"]
    assert body["request_id"]
    assert body["request_id"] == response.headers["X-Request-Id"]
    if status in (429, 503):
        assert 1 <= int(response.headers["Retry-After"]) <= 60
    return body


PAIR = {"prompt": "What is 1+1?", "response": "1+1=2"}
OTHER = {"prompt": "What is 1+1?", "response": "3"}
