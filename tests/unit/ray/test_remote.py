"""What an HTTP replica asks of engine replicas, and what it makes of their answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

import pytest
from ray.exceptions import RayActorError

from fivescore.errors import EngineDead, EngineError, Loading, NoGate
from fivescore.ray import remote
from fivescore.ray.remote import RemoteEngine
from fivescore.ray.wire import Answer, Failed
from fivescore.ray.wire import Sequence as Asked
from fivescore.types import Output
from tests.unit.engines import DEMO_INFO, turns, until

GOOD = Output([1.0] * 5)
Answers = Callable[[Sequence[Asked]], list[Answer]]
request_of_ray: ContextVar[str] = ContextVar("request", default="none")


class Response:
    """A call's, awaited as Ray's is."""

    def __init__(self, answers: Any) -> None:
        self._answers = answers
        self.cancelled = False

    def __await__(self) -> Any:
        return self._answers.__await__()

    def cancel(self) -> None:
        self.cancelled = True


class Handle:
    """Gives its answers in order, the last one again and again; remembers each call's session."""

    def __init__(self, *answers: Answers | Exception | None) -> None:
        self._answers = list(answers)
        self.calls: list[tuple[str, int]] = []
        self.contexts: list[str] = []
        self.responses: list[Response] = []
        self.encode = self.describe = self

    def options(self, *, session_id: str) -> Handle:
        self._session = session_id
        return self

    def remote(self, sequences: Sequence[Asked] | None = None) -> Response:
        if sequences is None:
            return Response(_soon(DEMO_INFO))
        self.calls.append((self._session, len(sequences)))
        self.contexts.append(request_of_ray.get())
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if answer is None:
            waits: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
            self.responses.append(Response(waits))
        else:
            self.responses.append(Response(_soon(answer, sequences)))
        return self.responses[-1]


async def _soon(answer: Any, sequences: Any = None) -> Any:
    if isinstance(answer, Exception):
        raise answer
    return answer(sequences) if callable(answer) else answer


def good(sequences: Sequence[Asked]) -> list[Answer]:
    return [GOOD] * len(sequences)


def failed(kind: Any) -> Answers:
    return lambda sequences: [Failed(kind, f"it is {kind}")] * len(sequences)


@pytest.fixture(autouse=True)
def _quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote, "PAUSE_SECONDS", (0.001, 0.002))
    monkeypatch.setattr(remote, "PATIENCE_SECONDS", 0.1)


async def encode(engine: RemoteEngine, prefix: int) -> Output:
    return await engine.encode([1], "r", prefix=prefix)


async def test_sequences_of_a_prompt_that_come_at_once_are_one_call() -> None:
    handle = Handle(good)
    engine = RemoteEngine(handle, 2)
    answers = await asyncio.gather(*(encode(engine, prefix) for prefix in (7, 8, 7, 7)))
    assert answers == [GOOD] * 4
    assert sorted(handle.calls) == [("7", 3), ("8", 1)]


async def test_a_call_belongs_to_no_request() -> None:
    handle = Handle(good)
    request_of_ray.set("a request that may end before its neighbours")
    await encode(RemoteEngine(handle, 1), 7)
    assert handle.contexts == ["none"]


@pytest.mark.parametrize("fault", [failed("away"), RayActorError()])
async def test_a_replica_that_cannot_answer_is_passed_over(fault: Any) -> None:
    handle = Handle(fault, fault, good)
    assert await encode(RemoteEngine(handle, 2), 7) == GOOD
    assert [session for session, _ in handle.calls] == ["7", "7.1", "7.2"]


async def test_what_was_in_an_engine_that_died_waits_for_that_engine() -> None:
    handle = Handle(failed("died"), failed("died"), good)
    assert await encode(RemoteEngine(handle, 2), 7) == GOOD
    assert [session for session, _ in handle.calls] == ["7"] * 3


async def test_only_what_has_no_answer_yet_is_asked_for_again() -> None:
    def one_of_two(sequences: Sequence[Asked]) -> list[Answer]:
        return [GOOD, Failed("died", "")]

    handle = Handle(one_of_two, good)
    engine = RemoteEngine(handle, 2)
    assert [*await asyncio.gather(encode(engine, 7), encode(engine, 7))] == [GOOD, GOOD]
    assert [count for _, count in handle.calls] == [2, 1]


@pytest.mark.parametrize(("kind", "error"), [("error", EngineError), ("no_gate", NoGate)])
async def test_a_sequences_own_fault_is_its_own(kind: str, error: type[Exception]) -> None:
    handle = Handle(failed(kind))
    with pytest.raises(error, match=f"it is {kind}"):
        await encode(RemoteEngine(handle, 2), 7)
    assert len(handle.calls) == 1


async def test_without_any_replica_a_request_is_to_come_later() -> None:
    with pytest.raises(Loading, match="it is away") as raised:
        await encode(RemoteEngine(Handle(failed("away")), 2), 7)
    assert raised.value.retry_after > 0


async def test_a_call_is_cancelled_when_the_last_has_left() -> None:
    handle = Handle(None)
    engine = RemoteEngine(handle, 2)
    first, last = (asyncio.create_task(encode(engine, 7)) for _ in range(2))
    await until(lambda: bool(handle.responses))
    first.cancel()
    await turns()
    assert not handle.responses[0].cancelled
    last.cancel()
    await turns()
    assert handle.responses[0].cancelled


async def test_whoever_waits_is_told_when_the_service_ends() -> None:
    handle = Handle(None)
    engine = RemoteEngine(handle, 2)
    waiting = asyncio.create_task(encode(engine, 7))
    await until(lambda: bool(handle.responses))
    await engine.close()
    with pytest.raises(EngineDead):
        await waiting


async def test_all_replicas_together_have_room_for_what_one_has_and_more() -> None:
    info = await RemoteEngine(Handle(good), 3).load()
    assert info.step_sequences == 3 * DEMO_INFO.step_sequences
    assert info.ranks == 1
