"""Two sequences of one engine become the outputs of a gated head."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

import pytest

from fivescore.engine import gated
from fivescore.engine.fake import FakeEngine
from fivescore.engine.gated import GatedEngine
from fivescore.errors import EngineDead, EngineError, NoGate
from fivescore.model import gating
from fivescore.model.head import Gate, GatedHead
from fivescore.settings import DEMO
from fivescore.types import ModelInfo, Output
from tests.unit.engines import DEMO_INFO, RecordingEngine, turns

AT = (8, 9)
PROMPT = [1, 2, 3]
HEAD = GatedHead(kind="gated", gate=Gate(at=AT, scale=2.0))


def pair(*response: int, prompt: list[int] = PROMPT) -> list[int]:
    return [*prompt, *AT, *response]


class HeldEngine(RecordingEngine):
    """Answers when it is told to; remembers what was aborted."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: dict[tuple[int, ...], asyncio.Future[Output]] = {}
        self.aborted: list[list[int]] = []

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        await super().encode(token_ids, request_id, trace_headers, priority, rank, prefix)
        answer = asyncio.get_running_loop().create_future()
        self.waiting[tuple(token_ids)] = answer
        try:
            return await answer  # type: ignore[no-any-return]
        except asyncio.CancelledError:
            self.aborted.append(token_ids)
            raise

    def answer(self, ids: list[int], *values: float) -> None:
        self.waiting[tuple(ids)].set_result(Output(list(values), cached_tokens=len(ids)))


GATE = [*PROMPT, AT[0]]


async def fake(head: GatedHead = HEAD, **options: str) -> GatedEngine:
    engine = GatedEngine(FakeEngine(DEMO, options, 6), head)
    await engine.load()
    return engine


async def test_outputs_are_of_the_pair_and_weights_of_its_prompt() -> None:
    engine = await fake()
    assert (await engine.load()).outputs == 4
    plain = FakeEngine(DEMO, {}, 6)
    await plain.load()
    whole, gate = [(await plain.encode(ids, "r")).values for ids in (pair(4, 5), GATE)]
    found = await engine.encode(pair(4, 5), "r")
    assert found.values == gating.combined(whole, gating.weights(gate, HEAD.gate))
    assert len(found.values) == 4


async def test_without_a_place_the_gate_is_read_where_the_outputs_are() -> None:
    inner = HeldEngine()
    engine = GatedEngine(inner, GatedHead(kind="gated"))
    task = asyncio.create_task(engine.encode(PROMPT, "r"))
    await turns()
    inner.answer(PROMPT, 1.0, 3.0, 0.0, 0.0)
    assert await task == Output([1.0, 3.0, 2.0], cached_tokens=3)
    assert inner.submitted == [PROMPT]


async def test_a_prompt_s_gate_is_asked_for_once() -> None:
    inner = HeldEngine()
    engine = GatedEngine(inner, HEAD)
    both = [asyncio.create_task(engine.encode(pair(n), f"r{n}")) for n in (4, 5)]
    await turns()
    assert inner.submitted == [GATE, pair(4), pair(5)]
    assert inner.request_ids[0] == "r4-gate"
    inner.answer(GATE, 0.0, 0.0)
    for n in (4, 5):
        inner.answer(pair(n), float(n), 0.0)
    found = await asyncio.gather(*both)
    assert [one.values for one in found] == [[4.0, 8.0], [5.0, 10.0]]
    assert found[0].cached_tokens == len(pair(4))

    later = asyncio.create_task(engine.encode(pair(6), "later"))
    await turns()
    assert inner.submitted[3:] == [pair(6)]
    inner.answer(pair(6), 6.0, 0.0)
    assert (await later).values == [6.0, 12.0]


async def test_the_memory_of_gates_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gated, "REMEMBERED", 2)
    engine = await fake()
    for n in range(5):
        await engine.encode(pair(4, prompt=[n]), "r")
    assert len(engine._known) == 2
    assert not engine._asked


async def test_cancelling_one_pair_leaves_the_gate_to_the_others() -> None:
    inner = HeldEngine()
    engine = GatedEngine(inner, HEAD)
    both = [asyncio.create_task(engine.encode(pair(n), f"r{n}")) for n in (4, 5)]
    await turns()
    both[0].cancel()
    await turns()
    assert inner.aborted == [pair(4)]
    inner.answer(GATE, 0.0, 0.0)
    inner.answer(pair(5), 5.0, 0.0)
    assert (await both[1]).values == [5.0, 10.0]


async def test_the_last_pair_that_is_cancelled_aborts_the_gate_too() -> None:
    inner = HeldEngine()
    engine = GatedEngine(inner, HEAD)
    task = asyncio.create_task(engine.encode(pair(4), "r"))
    await turns()
    task.cancel()
    await turns()
    assert sorted(inner.aborted) == sorted([GATE, pair(4)])
    assert task.cancelled()
    assert not engine._asked


@pytest.mark.parametrize("failed", [GATE, pair(4)])
async def test_what_fails_of_a_pair_fails_it_and_aborts_the_rest(failed: list[int]) -> None:
    inner = HeldEngine()
    engine = GatedEngine(inner, HEAD)
    task = asyncio.create_task(engine.encode(pair(4), "r"))
    await turns()
    inner.waiting[tuple(failed)].set_exception(EngineError("this one failed"))
    with pytest.raises(EngineError, match="this one failed"):
        await task
    await turns()
    assert inner.aborted == [ids for ids in (GATE, pair(4)) if ids != failed]

    again = asyncio.create_task(engine.encode(pair(4), "r"))
    await turns()
    inner.answer(GATE, 0.0, 0.0)
    inner.answer(pair(4), 1.0, 0.0)
    assert (await again).values == [1.0, 2.0], "a failure is not remembered"


async def test_a_gate_that_is_not_finite_is_not_remembered() -> None:
    inner = HeldEngine()
    engine = GatedEngine(inner, HEAD)
    for value, expected in ((math.nan, math.nan), (0.0, 2.0)):
        task = asyncio.create_task(engine.encode(pair(4), "r"))
        await turns()
        inner.answer(GATE, 0.0, value)
        inner.answer(pair(4), 1.0, 0.0)
        assert (await task).values == pytest.approx([1.0, expected], nan_ok=True)


async def test_a_pair_without_the_gate_s_tokens_is_never_submitted() -> None:
    inner = HeldEngine()
    with pytest.raises(NoGate):
        await GatedEngine(inner, HEAD).encode([1, 2, 3], "r")
    assert not inner.submitted


async def test_its_life_is_the_inner_engine_s() -> None:
    engine = await fake(latency_seconds="60")
    task = asyncio.create_task(engine.encode(pair(4), "r"))
    await turns()
    before = engine.alive
    engine.kill()
    with pytest.raises(EngineDead):
        await task
    assert (before, engine.alive) == (True, False)
    await engine.close()


async def test_an_engine_without_a_gate_is_refused() -> None:
    class Five(RecordingEngine):
        async def load(self) -> ModelInfo:
            return DEMO_INFO

    with pytest.raises(Exception, match="the engine has 5"):
        await GatedEngine(Five(), HEAD).load()
