"""From loading to draining, and the ways in which it goes wrong."""

from __future__ import annotations

import asyncio
import dataclasses
import shutil
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

import pytest

from fivescore.errors import ConfigurationError, ModelChanged
from fivescore.settings import DEMO
from fivescore.types import ModelInfo, Output
from tests.integration.service import OTHER, PAIR, Service, assert_problem, serving
from tests.unit.engines import DEMO_INFO, HeldEngine, RecordingEngine, SlowToLoad


async def probes(service: Service) -> list[tuple[int, str]]:
    """What live and ready say."""
    answers = [await service.http.get(f"/health/{name}") for name in ("live", "ready")]
    return [(answer.status_code, answer.json()["status"]) for answer in answers]


async def test_while_loading_probes_and_metrics_answer_and_scoring_is_asked_to_wait() -> None:
    engine = SlowToLoad()
    async with serving(engine, settle=False) as service:
        assert await probes(service) == [(200, "loading"), (503, "loading")]
        health = await service.http.get("/health")
        assert (health.status_code, health.json()) == (503, {"status": "loading"})
        assert await service.metric("fivescore_engine_state", state="loading") == 1
        assert (await service.http.get("/version")).json()["engine"] is None
        assert_problem(await service.score(PAIR), 503, "loading")
        for path in ("/manifest", "/v1/models"):
            assert_problem(await service.http.get(path), 503, "loading")
        engine.loaded.set()
        await service.settled()
        assert await probes(service) == [(200, "ready"), (200, "ready")]
        assert (await service.score(PAIR)).status_code == 200


async def test_the_service_can_stop_while_it_loads() -> None:
    engine = SlowToLoad()
    async with serving(engine, settle=False) as service:
        assert await probes(service) == [(200, "loading"), (503, "loading")]
    assert service.failures == []  # stopping is no failure


async def test_a_load_that_fails_is_reported_once_with_its_cause() -> None:
    async with serving(options={"load_error": "out of memory"}) as service:
        (failure,) = service.failures
        assert isinstance(failure, ConfigurationError)
        assert failure.detail == "out of memory"
        assert await probes(service) == [(503, "failed"), (503, "failed")]
        assert_problem(await service.score(PAIR), 503, "engine_dead")


class WrongHead(RecordingEngine):
    async def load(self) -> ModelInfo:
        return dataclasses.replace(DEMO_INFO, outputs=9)


async def test_a_manifest_that_does_not_fit_the_head_is_a_failed_load() -> None:
    engine = WrongHead()
    async with serving(engine) as service:
        (failure,) = service.failures
        assert isinstance(failure, ConfigurationError)
        assert "outputs: 5" in failure.detail
    assert engine.closed


class Broken(RecordingEngine):
    async def load(self) -> ModelInfo:
        raise ZeroDivisionError("a bug")


async def test_an_unexpected_error_while_loading_is_a_failed_load_too() -> None:
    async with serving(Broken()) as service:
        assert [str(failure) for failure in service.failures] == ["a bug"]
        assert await probes(service) == [(503, "failed"), (503, "failed")]


async def test_draining_finishes_what_was_accepted_and_takes_no_more() -> None:
    engine = HeldEngine()
    async with serving(engine) as service:
        accepted = asyncio.create_task(service.score(PAIR))
        await engine.busy.wait()
        service.scorer.service.drain()
        assert await probes(service) == [(200, "draining"), (503, "draining")]
        assert_problem(await service.score(OTHER), 503, "draining")
        engine.gate.set()
        assert (await accepted).status_code == 200
    assert engine.closed


async def test_a_lost_engine_is_replaced_and_shows_in_the_probes() -> None:
    async with serving(options={"die_after": 2}) as service:
        assert (await service.score(PAIR)).status_code == 200
        response = await service.score({"pairs": [OTHER, PAIR]})
        assert_problem(response, 503, "engine_dead")
        assert int(response.headers["Retry-After"]) >= 1
        assert await probes(service) == [(200, "restarting"), (503, "restarting")]
        assert_problem(await service.score(PAIR), 503, "engine_dead")
        assert await service.metric("fivescore_engine_state", state="restarting") == 1
        await service.until(lambda: service.scorer.service.state == "ready")
        assert await service.metric("fivescore_engine_restarts_total") == 1
        assert (await service.score(PAIR)).status_code == 200
        assert service.failures == []


async def test_an_engine_that_is_lost_for_good_ends_the_service() -> None:
    async with serving(options={"die_after": 2}, engine_restarts=0) as service:
        response = await service.score({"pairs": [OTHER, PAIR]})
        assert_problem(response, 503, "engine_dead")
        await service.until(lambda: bool(service.failures))
        assert await probes(service) == [(503, "failed"), (503, "failed")]
        assert_problem(await service.score(PAIR), 503, "engine_dead")
        assert await service.metric("fivescore_engine_state", state="failed") == 1


async def test_an_engine_does_not_load_another_model_than_the_first(tmp_path: Path) -> None:
    model = shutil.copytree(DEMO, tmp_path / "model")
    async with serving(options={"die_after": 2}, model=str(model)) as service:
        assert (await service.score(PAIR)).status_code == 200
        weights = model / "model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-4] + b"zero")
        assert_problem(await service.score({"pairs": [OTHER, PAIR]}), 503, "engine_dead")
        await service.until(lambda: bool(service.failures))
        (failure,) = service.failures
        assert isinstance(failure, ModelChanged)
        assert "model.safetensors was changed since the model was loaded" in failure.detail
        assert await probes(service) == [(503, "failed"), (503, "failed")]


class Writing(RecordingEngine):
    """A file of the model is replaced while this engine loads it."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    async def load(self) -> ModelInfo:
        self.file.write_text(self.file.read_text().replace("0", "1"))
        return await super().load()


async def test_a_model_that_changes_while_it_loads_is_not_served(tmp_path: Path) -> None:
    model = shutil.copytree(DEMO, tmp_path / "model")
    engine = Writing(model / "reward.json")
    async with serving(engine, model=str(model)) as service:
        (failure,) = service.failures
        assert "reward.json was changed since the model began to load" in str(failure)
        assert await probes(service) == [(503, "failed"), (503, "failed")]
    assert engine.closed


class Surprising(RecordingEngine):
    async def encode(self, *_: Any, **__: Any) -> Output:
        raise ZeroDivisionError("secret internals")


async def test_an_unexpected_error_is_a_problem_that_tells_no_internals() -> None:
    async with serving(Surprising()) as service:
        response = await service.score(PAIR)
        assert_problem(response, 500, "internal_error")
        assert "secret" not in response.text
        assert "ZeroDivisionError" not in response.text


class Connection:
    """A client's connection by hand, which can break."""

    def __init__(self, body: bytes, complete: bool = True) -> None:
        self._messages: list[dict[str, Any]] = [
            {"type": "http.request", "body": body, "more_body": not complete}
        ]
        self.broken = asyncio.Event()
        self.sent: list[MutableMapping[str, Any]] = []
        self.scope: dict[str, Any] = {
            "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "scheme": "http",
            "method": "POST", "path": "/score", "raw_path": b"/score", "root_path": "",
            "query_string": b"", "headers": [],
            "client": ("127.0.0.1", 1), "server": ("127.0.0.1", 2),
        }  # fmt: skip

    async def receive(self) -> dict[str, Any]:
        if self._messages:
            return self._messages.pop(0)
        await self.broken.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        self.sent.append(message)

    async def run(self, service: Service) -> None:
        await service.app(self.scope, self.receive, self.send)


async def test_a_client_that_goes_away_while_it_sends_is_no_error_of_ours(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as service:
        connection = Connection(b'{"prompt": "Q', complete=False)
        connection.broken.set()
        await connection.run(service)
        assert (await service.score(PAIR)).status_code == 200
    assert [record for record in caplog.records if record.levelname == "ERROR"] == []
