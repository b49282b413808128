"""Identical sequences in flight are computed once."""

from __future__ import annotations

import asyncio

import pytest

from fivescore.errors import EngineError
from fivescore.scoring.inflight import Flights, Headers
from fivescore.types import Output


class Encode:
    """An engine's ``encode`` that waits until the test lets it go."""

    def __init__(self) -> None:
        self.submitted: list[tuple[list[int], str]] = []
        self.headers: list[Headers] = []
        self.aborted: list[str] = []
        self.gate = asyncio.Event()
        self.fault: Exception | None = None

    async def __call__(
        self, token_ids: list[int], request_id: str, headers: Headers, priority: int
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


@pytest.fixture
def flights(encode: Encode) -> Flights:
    return Flights(encode)


async def turn() -> None:
    """Let tasks that were started or cancelled take their step."""
    for _ in range(5):
        await asyncio.sleep(0)


async def test_the_same_sequence_is_submitted_once_and_answers_all(
    flights: Flights, encode: Encode
) -> None:
    joined = [flights.join([1, 2], f"r-{n}") for n in range(3)]
    other = flights.join([2, 1], "other")
    encode.gate.set()
    answers = await asyncio.gather(*(flight.wait() for flight in (*joined, other)))
    assert answers == [Output([3.0])] * 4
    assert encode.submitted == [([1, 2], "r-0"), ([2, 1], "other")]


async def test_what_has_landed_is_computed_again(flights: Flights, encode: Encode) -> None:
    encode.gate.set()
    for name in ("first", "second"):
        flight = flights.join([1], name)
        await flight.wait()
        flights.leave(flight)
    assert [name for _, name in encode.submitted] == ["first", "second"]
    assert encode.aborted == []


async def test_an_answer_is_shared_until_the_last_has_left(
    flights: Flights, encode: Encode
) -> None:
    encode.gate.set()
    first = flights.join([1], "first")
    await first.wait()
    later = flights.join([1], "later")
    assert await later.wait() == await first.wait()
    flights.leave(first)
    assert flights.join([1], "latest") is first
    assert [name for _, name in encode.submitted] == ["first"]


async def test_a_failure_is_not_shared_with_whoever_comes_later(
    flights: Flights, encode: Encode
) -> None:
    encode.gate.set()
    encode.fault = EngineError("failed")
    first = flights.join([1], "first")
    with pytest.raises(EngineError):
        await first.wait()
    encode.fault = None
    later = flights.join([1], "later")
    assert (await later.wait()).values == [1.0]


async def test_the_last_to_leave_aborts_it(flights: Flights, encode: Encode) -> None:
    first, second = flights.join([1], "a"), flights.join([1], "b")
    await turn()
    flights.leave(first)
    await turn()
    assert encode.aborted == []
    flights.leave(second)
    await turn()
    assert encode.aborted == ["a"]


async def test_a_cancelled_waiter_leaves_the_others_work_alone(
    flights: Flights, encode: Encode
) -> None:
    flight = flights.join([1], "a")
    assert flights.join([1], "b") is flight
    impatient, patient = asyncio.create_task(flight.wait()), asyncio.create_task(flight.wait())
    await turn()
    impatient.cancel()
    flights.leave(flight)
    await turn()
    assert impatient.cancelled()
    encode.gate.set()
    assert await patient == Output([1.0])


async def test_an_error_reaches_all_that_wait(flights: Flights, encode: Encode) -> None:
    encode.fault = EngineError("broken")
    joined = [flights.join([1], f"r-{n}") for n in range(3)]
    encode.gate.set()
    answers = await asyncio.gather(*(f.wait() for f in joined), return_exceptions=True)
    assert answers == [encode.fault] * 3


async def test_a_join_after_an_abort_starts_anew(flights: Flights, encode: Encode) -> None:
    flight = flights.join([1], "gone")
    await turn()
    flights.leave(flight)
    again = flights.join([1], "again")  # before the aborted task has even ended
    encode.gate.set()
    assert await again.wait() == Output([1.0])
    assert [name for _, name in encode.submitted] == ["gone", "again"]
    assert encode.aborted == ["gone"]


async def test_an_abort_that_ends_late_does_not_forget_the_new_flight(
    flights: Flights, encode: Encode
) -> None:
    flight = flights.join([1], "gone")
    await turn()
    flights.leave(flight)
    again = flights.join([1], "again")
    await turn()  # the aborted task lands here
    assert flights.join([1], "joins") is again


async def test_an_error_that_nobody_waits_for_any_more_is_not_reported_as_lost(
    flights: Flights, encode: Encode
) -> None:
    reported: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(context))
    encode.fault = EngineError("broken")
    flight = flights.join([1], "a")
    encode.gate.set()
    await turn()
    assert flight.landed
    flights.leave(flight)
    del flight
    await turn()
    assert reported == []


async def test_a_sequence_belongs_to_the_trace_of_whoever_submitted_it(
    flights: Flights, encode: Encode
) -> None:
    first, second = {"traceparent": "00-a-b-01"}, {"traceparent": "00-c-d-01"}
    joined = [flights.join([1], "a", first), flights.join([1], "b", second), flights.join([2], "c")]
    encode.gate.set()
    await asyncio.gather(*(flight.wait() for flight in joined))
    assert encode.headers == [first, None]


async def test_a_group_leaves_all_that_it_joined_however_it_ends(
    flights: Flights, encode: Encode
) -> None:
    with flights.group() as group:
        for name in ("a", "b"):
            group.join([ord(name)], name, None, 0, lambda: None)
        await turn()
    await turn()
    assert encode.aborted == ["a", "b"]


# A duplicate with another priority


class Queue:
    """An engine that answers one sequence per ``step``, the lowest priority first."""

    def __init__(self) -> None:
        self.waiting: list[tuple[int, str, asyncio.Future[Output]]] = []
        self.answered: list[str] = []

    async def __call__(
        self, token_ids: list[int], request_id: str, headers: Headers, priority: int
    ) -> Output:
        answer: asyncio.Future[Output] = asyncio.get_running_loop().create_future()
        entry = (priority, request_id, answer)
        self.waiting.append(entry)
        try:
            return await answer
        finally:
            self.waiting.remove(entry)

    async def step(self, fault: Exception | None = None) -> None:
        await turn()
        _, name, answer = min(self.waiting, key=lambda entry: entry[0])
        self.answered.append(name)
        if fault is not None:
            answer.set_exception(fault)
        else:
            answer.set_result(Output([1.0]))
        await turn()


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
    await turn()
    assert (engine.waiting, len(landed)) == ([], 4)


async def test_the_first_answer_counts_whichever_it_is() -> None:
    engine = Queue()
    flights = Flights(engine)
    flight = flights.join([1], "worse", None, 9)
    await turn()
    flights.join([1], "better", None, 0)
    engine.waiting[0][2].set_result(Output([2.0]))  # it was in a step already
    assert await flight.wait() == Output([2.0])
    await turn()
    assert engine.waiting == []


@pytest.mark.parametrize("priority", [9, 10])
async def test_a_duplicate_with_no_better_priority_is_not_submitted_again(priority: int) -> None:
    engine = Queue()
    flights = Flights(engine)
    flights.join([1], "first", None, 9)
    flights.join([1], "second", None, priority)
    await turn()
    assert [name for _, name, _ in engine.waiting] == ["first"]


async def test_an_urgent_waiter_that_leaves_does_not_disturb_the_patient_one() -> None:
    engine = Queue()
    flights = Flights(engine)
    patient = flights.join([1], "patient", None, 9)
    flights.leave(flights.join([1], "urgent", None, 0))
    await engine.step()
    assert await patient.wait() == Output([1.0])
    flights.leave(patient)
    await turn()
    assert engine.waiting == []
