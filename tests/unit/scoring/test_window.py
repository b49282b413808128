"""Room in the engine: who waits for it, who goes first, and that it comes back."""

from __future__ import annotations

import asyncio

import pytest

from fivescore.scoring.window import LEAST, STEPS, Room, Window
from tests.unit.engines import turns


def window(limit: int) -> Window:
    made = Window()
    made.limit = limit
    return made


async def stay(one: Window, sequences: int, priority: int | None = None) -> Room:
    """A chunk whose sequences stay in the engine after it."""
    async with one.room(sequences, priority) as room:
        for _ in range(sequences):
            room.hand_over()
    return room


async def test_there_is_room_until_the_limit_is_reached() -> None:
    one = window(4)
    await stay(one, 3, 0)
    await stay(one, 3, 0)
    assert one.inside == 6
    waiting = asyncio.create_task(stay(one, 1, 0))
    await turns()
    assert not waiting.done()
    one.leave(2)
    await turns()
    assert not waiting.done()
    one.leave()
    await waiting
    assert one.inside == 4


async def test_places_that_no_sequence_took_are_given_back_however_the_chunk_ends() -> None:
    async def chunk() -> None:
        async with one.room(4, 0) as room:
            room.hand_over()
            assert one.inside == 4
            raise ZeroDivisionError

    one = window(4)
    with pytest.raises(ZeroDivisionError):
        await chunk()
    assert one.inside == 1


async def test_the_lowest_priority_goes_first_and_equals_in_their_order() -> None:
    one, went = window(1), list[str]()
    await stay(one, 1)

    async def go(name: str, priority: int) -> None:
        async with one.room(1, priority):
            went.append(name)

    tasks = [
        asyncio.create_task(go(name, priority))
        for name, priority in (("late", 9), ("first", -5), ("second", 3), ("third", 3))
    ]
    await turns()
    assert went == []
    one.leave()
    await asyncio.gather(*tasks)
    assert went == ["first", "second", "third", "late"]
    assert one.inside == 0


async def test_nobody_overtakes_those_who_wait() -> None:
    one = window(1)
    await stay(one, 2)
    first = asyncio.create_task(stay(one, 5, 1))
    await turns()
    one.inside = 0
    second = asyncio.create_task(stay(one, 1, 0))
    await turns()
    assert not first.done()
    assert not second.done()
    one.leave(0)
    await second
    assert not first.done()
    one.leave()
    await first


async def test_a_chunk_without_a_priority_does_not_wait_and_counts() -> None:
    one = window(1)
    await stay(one, 8)
    await stay(one, 8)
    assert one.inside == 16


@pytest.mark.parametrize("let_in", [False, True])
async def test_whoever_is_cancelled_leaves_no_trace(let_in: bool) -> None:
    one = window(1)
    await stay(one, 1)
    gone = asyncio.create_task(stay(one, 7, 0))
    await turns()
    if let_in:
        one.leave()
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    if not let_in:
        one.leave()
    assert one.inside == 0
    await asyncio.wait_for(stay(one, 1, 0), 1)


@pytest.mark.parametrize(("step", "limit"), [(1, LEAST), (10 * LEAST, STEPS * 10 * LEAST)])
def test_the_limit_follows_the_engine(step: int, limit: int) -> None:
    one = Window()
    one.fit(step)
    assert one.limit == limit
