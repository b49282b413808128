"""Identical sequences in flight are computed once."""

from __future__ import annotations

import asyncio

import pytest

from fivescore.errors import EngineError
from fivescore.scoring.inflight import Flights, Headers
from fivescore.types import Output
from tests.unit.engines import turns


class Encode:
    """An engine's ``encode`` that waits until the test lets it go."""

    def __init__(self) -> None:
        self.submitted: list[tuple[list[int], str]] = []
        self.headers: list[Headers] = []
        self.aborted: list[str] = []
        self.gate = asyncio.Event()
        self.fault: Exception | None = None
        self.flights = Flights(self)

    async def __call__(
        self, token_ids: list[int], request_id: str, headers: Headers, priority: int, prefix: int
    ) -> Output:
        self.submitted.append((token_ids, request_id))
        self.headers.append(headers)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            self.aborted.append(request_id)
            raise
        if self.fault is not None:
            raise self.fault
        return Output([float(sum(token_ids))])


@pytest.fixture
def encode() -> Encode:
    return Encode()


async def test_the_same_sequence_is_submitted_once_and_answers_all(encode: Encode) -> None:
    joined = [encode.flights.join([1, 2], f"r-{n}") for n in range(3)]
    other = encode.flights.join([2, 1], "other")
    encode.gate.set()
    answers = await asyncio.gather(*(flight.wait() for flight in (*joined, other)))
    assert answers == [Output([3.0])] * 4
    assert encode.submitted == [([1, 2], "r-0"), ([2, 1], "other")]


async def test_what_has_landed_is_computed_again(encode: Encode) -> None:
    encode.gate.set()
    for name in ("first", "second"):
        flight = encode.flights.join([1], name)
        await flight.wait()
        encode.flights.leave(flight)
    assert [name for _, name in encode.submitted] == ["first", "second"]
    assert encode.aborted == []


async def test_an_answer_is_shared_until_the_last_has_left(encode: Encode) -> None:
    encode.gate.set()
    first = encode.flights.join([1], "first")
    await first.wait()
    later = encode.flights.join([1], "later")
    assert await later.wait() == await first.wait()
    encode.flights.leave(first)
    assert encode.flights.join([1], "latest") is first
    assert [name for _, name in encode.submitted] == ["first"]


async def test_a_failure_is_not_shared_with_whoever_comes_later(encode: Encode) -> None:
    encode.gate.set()
    encode.fault = EngineError("failed")
    first = encode.flights.join([1], "first")
    with pytest.raises(EngineError):
        await first.wait()
    encode.fault = None
    later = encode.flights.join([1], "later")
    assert (await later.wait()).values == [1.0]


async def test_the_last_to_leave_aborts_it(encode: Encode) -> None:
    first, second = encode.flights.join([1], "a"), encode.flights.join([1], "b")
    await turns()
    encode.flights.leave(first)
    await turns()
    assert encode.aborted == []
    encode.flights.leave(second)
    await turns()
    assert encode.aborted == ["a"]


async def test_a_cancelled_waiter_leaves_the_others_work_alone(encode: Encode) -> None:
    flight = encode.flights.join([1], "a")
    assert encode.flights.join([1], "b") is flight
    impatient, patient = asyncio.create_task(flight.wait()), asyncio.create_task(flight.wait())
    await turns()
    impatient.cancel()
    encode.flights.leave(flight)
    await turns()
    assert impatient.cancelled()
    encode.gate.set()
    assert await patient == Output([1.0])


async def test_an_error_reaches_all_that_wait(encode: Encode) -> None:
    encode.fault = EngineError("broken")
    joined = [encode.flights.join([1], f"r-{n}") for n in range(3)]
    encode.gate.set()
    answers = await asyncio.gather(*(f.wait() for f in joined), return_exceptions=True)
    assert answers == [encode.fault] * 3


async def test_a_join_after_an_abort_starts_anew_and_outlives_the_abort(encode: Encode) -> None:
    flight = encode.flights.join([1], "gone")
    await turns()
    encode.flights.leave(flight)
    again = encode.flights.join([1], "again")  # before the aborted task has even ended
    await turns()  # it lands here
    assert encode.flights.join([1], "joins") is again
    encode.gate.set()
    assert await again.wait() == Output([1.0])
    assert [name for _, name in encode.submitted] == ["gone", "again"]
    assert encode.aborted == ["gone"]


async def test_an_error_that_nobody_waits_for_is_not_reported_as_lost(encode: Encode) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    encode.fault = EngineError("broken")
    flight = encode.flights.join([1], "a")
    encode.gate.set()
    await turns()
    assert flight.landed
    encode.flights.leave(flight)
    del flight
    await turns()
    assert reported == []


async def test_a_sequence_belongs_to_the_trace_of_whoever_submitted_it(encode: Encode) -> None:
    first, second = {"traceparent": "00-a-b-01"}, {"traceparent": "00-c-d-01"}
    joined = [
        encode.flights.join([1], "a", first),
        encode.flights.join([1], "b", second),
        encode.flights.join([2], "c"),
    ]
    encode.gate.set()
    await asyncio.gather(*(flight.wait() for flight in joined))
    assert encode.headers == [first, None]


async def test_a_group_leaves_all_that_it_joined_however_it_ends(encode: Encode) -> None:
    with encode.flights.group() as group:
        for name in ("a", "b"):
            group.join([ord(name)], name, None, 0, 0, lambda: None)
        await turns()
    await turns()
    assert encode.aborted == ["a", "b"]


# A duplicate with another priority


class Queue:
    """An engine that answers one sequence per ``step``, the lowest priority first."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, str, asyncio.Future[Output]]] = []
        self.answered: list[str] = []

    async def __call__(
        self, token_ids: list[int], request_id: str, headers: Headers, priority: int, prefix: int
    ) -> Output:
        answer: asyncio.Future[Output] = asyncio.get_running_loop().create_future()
        entry = (priority, request_id, answer)
        self.waiting.append(entry)
        try:
            return await answer
        finally:
            self.waiting.remove(entry)

    async def step(self, fault: Exception | None = None) -> None:
        await turns()
        _, name, answer = min(self.waiting, key=lambda entry: entry[0])
        self.answered.append(name)
        if fault is not None:
            answer.set_exception(fault)
        else:
            answer.set_result(Output([1.0]))
        await turns()


async def test_a_duplicate_with_a_better_priority_does_not_wait_with_the_worse_one() -> None:
    engine, landed = Queue(), list[int]()
    flights = Flights(engine, lambda: landed.append(1))
    worse = flights.join([1], "worse", None, 9)
    others = [flights.join([n], f"other-{n}", None, 5) for n in (2, 3)]
    better = flights.join([1], "better", None, 0)
    await engine.step()
    assert engine.answered == ["better"]
    assert await better.wait() == await worse.wait() == Output([1.0])
    assert [name for _, name, _ in engine.waiting] == ["other-2", "other-3"]
    assert len(landed) == 2  # the worse one was taken out of the engine
    for flight in (worse, better, *others):
        flights.leave(flight)
    await turns()
    assert (engine.waiting, len(landed)) == ([], 4)


async def test_the_first_answer_counts_whichever_it_is() -> None:
    engine = Queue()
    flights = Flights(engine)
    flight = flights.join([1], "worse", None, 9)
    await turns()
    flights.join([1], "better", None, 0)
    engine.waiting[0][2].set_result(Output([2.0]))  # it was in a step already
    assert await flight.wait() == Output([2.0])
    await turns()
    assert engine.waiting == []


@pytest.mark.parametrize("priority", [9, 10])
async def test_a_duplicate_with_no_better_priority_is_not_submitted_again(priority: int) -> None:
    engine = Queue()
    flights = Flights(engine)
    flights.join([1], "first", None, 9)
    flights.join([1], "second", None, priority)
    await turns()
    assert [name for _, name, _ in engine.waiting] == ["first"]


async def test_an_urgent_waiter_that_leaves_does_not_disturb_the_patient_one() -> None:
    engine = Queue()
    flights = Flights(engine)
    patient = flights.join([1], "patient", None, 9)
    flights.leave(flights.join([1], "urgent", None, 0))
    await engine.step()
    assert await patient.wait() == Output([1.0])
    flights.leave(patient)
    await turns()
    assert engine.waiting == []
