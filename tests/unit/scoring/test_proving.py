"""A service compares every new engine with the proof before it takes a request."""

from __future__ import annotations

import asyncio
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fivescore.engine import supervisor
from fivescore.errors import EngineDead, EngineError, NotProved
from fivescore.model import manifest as manifests
from fivescore.model.checkpoint import Checkpoint
from fivescore.scoring.lifecycle import Service
from fivescore.settings import DEMO, Settings
from fivescore.telemetry.metrics import Metrics
from fivescore.types import ModelInfo, Output
from tests.unit.engines import DEMO_INFO, RecordingEngine, until

SAMPLES = Checkpoint(Settings()).samples()
REAL = replace(DEMO_INFO, simulated=False)


class ProvingEngine(RecordingEngine):
    """Gives the proof's outputs, all of them moved by ``off``."""

    def __init__(self, off: float = 0.0, info: ModelInfo = REAL) -> None:
        super().__init__()
        self._off = off
        self.ranks: list[int] = []
        self._info = info

    async def load(self) -> ModelInfo:
        return self._info

    async def encode(self, token_ids: list[int], *arguments: Any, **others: Any) -> Output:
        if self.closed:
            raise EngineDead("the engine has stopped")
        self.submitted.append(token_ids)
        self.ranks.append(others["rank"])
        for sample in SAMPLES:
            if sample.token_ids == token_ids:
                return Output([value + self._off for value in sample.pair.outputs])
        raise EngineError("no such pair")


def service(
    engines: Sequence[RecordingEngine],
    on_failure: Callable[[Exception], object] = lambda error: None,
    **settings: Any,
) -> Service:
    waiting = iter(engines)
    return Service(Settings(**settings), lambda *_: next(waiting), Metrics(), on_failure=on_failure)


async def test_a_model_that_gives_what_its_proof_says_is_proved() -> None:
    engine = ProvingEngine()
    proved = service([engine])
    await proved.load()
    assert proved.model.proved
    assert sorted(engine.submitted) == sorted(sample.token_ids for sample in SAMPLES)
    await proved.close()


async def test_each_rank_is_proved() -> None:
    engine = ProvingEngine(info=replace(REAL, ranks=3))
    proved = service([engine])
    await proved.load()
    assert sorted(engine.ranks) == sorted([0, 1, 2] * len(SAMPLES))
    await proved.close()


async def test_a_model_that_gives_other_numbers_does_not_start() -> None:
    failures: list[Exception] = []
    engine = ProvingEngine(off=0.1)
    wrong = service([engine], failures.append)
    with pytest.raises(NotProved, match=r"output \d is .* allowed \(float32\)"):
        await wrong.load()
    assert (wrong.state, engine.closed, len(failures)) == ("failed", True, 1)


async def test_an_engine_that_fails_on_a_pair_of_the_proof_does_not_start() -> None:
    class Failing(ProvingEngine):
        async def encode(self, *arguments: Any, **others: Any) -> Output:
            raise EngineError("the engine failed on this pair")

    with pytest.raises(NotProved, match="cannot be compared: pair 0 "):
        await service([Failing()]).load()


async def test_a_restarted_engine_is_compared_too_and_is_not_tried_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.01)
    failed: asyncio.Future[Exception] = asyncio.get_running_loop().create_future()
    good, other = ProvingEngine(), ProvingEngine(off=0.1)
    running = service([good, other], failed.set_result)
    await running.load()
    good.kill()
    assert isinstance(await asyncio.wait_for(failed, 20), NotProved)
    assert (running.state, other.closed) == ("failed", True)
    await running.close()


async def test_a_service_that_drains_goes_on_draining_when_its_engine_is_replaced(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.01)
    first, second = ProvingEngine(), ProvingEngine()
    running = service([first, second])
    await running.load()
    running.drain()
    states = {running.state}
    first.kill()
    async with asyncio.timeout(20):
        while len(second.submitted) < len(SAMPLES):
            await asyncio.sleep(0.01)
            states.add(running.state)
    await asyncio.sleep(0.05)
    assert states | {running.state} == {"draining"}
    await running.close()


async def test_what_is_said_of_a_model_is_said_once_and_not_at_every_restart(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(supervisor, "BACKOFF_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.01)
    fit, fitted = Checkpoint.fit, list[ModelInfo]()

    def counted(self: Checkpoint, info: ModelInfo) -> Any:
        fitted.append(info)
        return fit(self, info)

    monkeypatch.setattr(Checkpoint, "fit", counted)
    first, second = ProvingEngine(), ProvingEngine()
    running = service([first, second])
    await running.load()
    first.kill()
    await until(lambda: len(second.submitted) == len(SAMPLES) and running.state == "ready")
    assert (len(fitted), running.model.proved) == (1, True)
    await running.close()


async def test_a_restart_counts_when_the_engine_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "WATCH_SECONDS", 0.01)
    first, second = ProvingEngine(), ProvingEngine()
    running = service([first, second])
    await running.load()
    first.kill()
    await until(lambda: running.state != "ready")
    (metric,) = running.metrics.restarts.collect()
    assert [s.value for s in metric.samples if s.name.endswith("_total")] == [1.0]
    await running.close()


async def test_a_model_without_a_proof_is_served_and_said_to_be_unproved(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = Path(shutil.copytree(DEMO, tmp_path / "mine"))
    written = manifests.read(str(folder / "reward.json"))
    manifests.write(folder / "reward.json", written.model_copy(update={"proof": None}))
    engine = ProvingEngine()
    unproved = service([engine], model=str(folder))
    with caplog.at_level(logging.WARNING):
        await unproved.load()
    assert not unproved.model.proved
    assert not engine.submitted
    (line,) = [r.getMessage() for r in caplog.records if "unproved" in r.getMessage()]
    assert f"fivescore check {folder} --write" in line
    await unproved.close()


@pytest.mark.parametrize(
    ("info", "settings", "why"),
    [(DEMO_INFO, {}, "simulated"), (REAL, {"max_tokens": 5}, "fits into")],
)
async def test_what_cannot_be_compared_is_unproved(
    info: ModelInfo, settings: dict[str, Any], why: str, caplog: pytest.LogCaptureFixture
) -> None:
    info = replace(info, max_tokens=settings.get("max_tokens", info.max_tokens))
    unproved = service([ProvingEngine(info=info)], **settings)
    with caplog.at_level(logging.WARNING):
        await unproved.load()
    assert not unproved.model.proved
    assert any("unproved" in r.getMessage() and why in r.getMessage() for r in caplog.records)
    await unproved.close()
