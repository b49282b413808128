"""A sequence whose output is not finite is computed again, apart from all others."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from fivescore.errors import EngineDead, EngineError
from fivescore.settings import DEMO

vllm_engine = pytest.importorskip("fivescore.engine.vllm.engine")
NAN = [math.nan, math.inf]
GOOD = [0.5, 1.0]


class Stub:
    """Has the answers of AsyncLLM's ``encode`` in order, and remembers the salts."""

    errored = False

    def __init__(self, *answers: list[float]) -> None:
        self.answers = list(answers)
        self.salts: list[str | None] = []

    async def encode(self, prompt: dict[str, Any], *_: Any, **__: Any) -> AsyncIterator[Any]:
        self.salts.append(prompt.get("cache_salt"))
        data = torch.tensor(self.answers.pop(0))
        yield SimpleNamespace(outputs=SimpleNamespace(data=data), num_cached_tokens=0)


def engine(stub: Stub, zeroes: bool = True) -> Any:
    one = vllm_engine.VllmEngine(DEMO, {})
    one._engine, one._direct, one._zeroes_blocks = stub, False, zeroes
    return one


@pytest.fixture(autouse=True)
def _none_was_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vllm_engine.VllmEngine, "_renewed", -math.inf)


async def test_what_another_sequence_spoiled_is_answered_and_its_cache_is_not_read_again() -> None:
    stub = Stub(GOOD, NAN, GOOD, GOOD, GOOD)
    one = engine(stub)
    answers = [(await one.encode([i], "r")).values for i in range(4)]
    assert answers == [GOOD] * 4
    first, second, alone, *later = stub.salts
    assert first is second is None
    assert alone
    assert later == [alone, alone]
    assert one.alive


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
async def test_what_is_not_finite_by_itself_stays_so_and_others_keep_their_cache(
    value: float,
) -> None:
    stub = Stub(*[[value, value]] * 4, GOOD)
    one = engine(stub)
    for _ in range(2):
        assert not math.isfinite((await one.encode([1], "r")).values[0])
    assert (await one.encode([2], "r")).values == GOOD
    assert len(stub.salts) == 5
    assert len({salt for salt in stub.salts if salt}) == 2, "each is apart from the other"
    assert stub.salts[-1] is None
    assert one.alive


async def test_an_output_that_is_not_finite_beside_one_that_is_comes_from_the_head() -> None:
    stub = Stub([math.nan, 1.0])
    one = engine(stub, zeroes=False)
    assert (await one.encode([1], "r")).values[1] == 1.0
    assert one.alive


async def test_an_engine_that_keeps_such_values_is_replaced_but_not_again_and_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = engine(Stub(GOOD, NAN, NAN), zeroes=False)
    await first.encode([1], "r")
    assert first.alive
    await first.encode([2], "r")
    assert not first.alive
    second = engine(Stub(NAN, NAN), zeroes=False)
    await second.encode([2], "r")
    assert second.alive
    assert len(caplog.records) == 1


async def test_what_fails_with_the_engine_is_to_be_retried_and_is_no_fault_of_the_pair() -> None:
    one = engine(Stub())  # which raises for want of answers
    with pytest.raises(EngineError):
        await one.encode([1], "r")
    one._engine.errored = True
    with pytest.raises(EngineDead):
        await one.encode([1], "r")


async def test_no_engine_starts_beside_one_that_was_killed_and_has_not_ended(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    one = vllm_engine.VllmEngine(DEMO, {})
    monkeypatch.setattr(one, "configure", lambda: None)
    monkeypatch.setattr(vllm_engine.processes, "left", lambda seconds: [1234])
    monkeypatch.setattr(vllm_engine.AsyncLLM, "from_vllm_config", lambda config: pytest.fail("two"))
    with pytest.raises(EngineDead, match="process 1234 does not end"):
        await one.load()


@pytest.mark.parametrize(
    ("status", "said"),
    [
        (-9, "ended by SIGKILL: somebody killed it, or the kernel for want of memory"),
        (-11, "ended by Segmentation fault"),
        (3, "ended by exit status 3"),
        (None, None),
        (255, None),
    ],
)
def test_how_an_engines_process_ended_is_logged(
    status: int | None, said: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    ended = SimpleNamespace(pid=2**22, exitcode=status)  # no process has this number
    stub: Any = Stub()
    one = engine(stub)
    one._processes.children.append(ended)
    one.kill()
    assert len(caplog.messages) == (said is not None)
    assert not said or said in caplog.text
