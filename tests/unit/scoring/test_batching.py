"""One call of the work for all that waits; nothing waits when it is idle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from fivescore.scoring.batching import QUIET_TURNS, Batcher
from tests.unit.engines import turns


class Work:
    """Doubles its items. Each call waits until the test lets it go; records what it was given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.poison: int | None = None
        """An item that makes the whole call fail."""
        self.batcher = Batcher(self, 8, 1000)

    def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        self.started.release()
        assert self.gate.acquire(timeout=60)
        if self.poison in items:
            raise ValueError("poison")
        return [2 * item for item in items]

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=60)

    async def queued(self, *items: int) -> asyncio.Task[list[int]]:
        """A caller whose items wait: one turn of the loop brings its task to its await."""
        task = asyncio.create_task(self.batcher(items, len(items)))
        await asyncio.sleep(0)
        return task


@pytest.fixture
async def work() -> AsyncIterator[Work]:
    made = Work()
    yield made
    made.gate.release(100)
    made.batcher.close()


async def test_when_idle_the_first_caller_is_worked_on_at_once_and_alone(work: Work) -> None:
    caller = await work.queued(1, 2)
    await work.begun()  # nobody else has come, and no timer was needed
    assert work.calls == [[1, 2]]
    work.gate.release()
    assert await caller == [2, 4]


async def test_what_comes_while_busy_forms_one_batch_and_is_split_right(work: Work) -> None:
    first = await work.queued(1)
    await work.begun()
    later = [await work.queued(*items) for items in ((10,), (20, 21, 22), (30, 31))]
    work.gate.release(2)
    assert await asyncio.gather(first, *later) == [[2], [20], [40, 42, 44], [60, 62]]
    assert work.calls == [[1], [10, 20, 21, 22, 30, 31]]


async def test_a_batch_has_a_most_and_callers_keep_their_order(work: Work) -> None:
    first = await work.queued(0)
    await work.begun()
    later = [await work.queued(*range(5 * n, 5 * n + 5)) for n in (1, 2, 3)]
    work.gate.release(4)
    await asyncio.gather(first, *later)
    assert work.calls == [[0], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]


async def test_a_single_caller_may_bring_more_than_the_most(work: Work) -> None:
    work.gate.release()
    assert await work.batcher(range(20), 20) == list(range(0, 40, 2))


async def test_an_error_of_the_work_reaches_the_caller_whose_items_caused_it_and_no_other(
    work: Work,
) -> None:
    first = await work.queued(1)
    await work.begun()
    callers = [await work.queued(*items) for items in ((2,), (3, 4), (5,))]
    work.poison = 4
    work.gate.release(100)
    assert await first == [2]
    with pytest.raises(ValueError, match="poison"):
        await callers[1]
    assert (await callers[0], await callers[2]) == ([4], [10])
    assert work.calls[1] == [2, 3, 4, 5]  # they did share a call
    assert await work.batcher([6], 1) == [12]


async def test_a_caller_that_left_before_its_turn_does_not_disturb_the_others(work: Work) -> None:
    first = await work.queued(1)
    await work.begun()
    left, stays = await work.queued(2, 3), await work.queued(4)
    left.cancel()
    work.gate.release(3)
    assert (await first, await stays) == ([2], [8])
    assert left.cancelled()
    assert work.calls[1:] == [[4]]  # nobody waits for 2 and 3: they are not worked on


async def test_a_caller_that_leaves_in_the_middle_does_not_disturb_the_others(work: Work) -> None:
    first = await work.queued(1)
    await work.begun()
    left, stays = await work.queued(2, 3), await work.queued(4)
    work.gate.release()
    await work.begun()
    assert work.calls[1] == [2, 3, 4]
    left.cancel()
    work.gate.release()
    assert (await first, await stays) == ([2], [8])
    work.gate.release()
    assert await work.batcher([5], 1) == [10]


# On the event loop


class Quick:
    """Doubles its items at once; records what each call was given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.batcher = Batcher(self, 8, 1000, on_loop=True)

    def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        if 13 in items:
            raise ValueError("13")
        return [2 * item for item in items]


@pytest.fixture
def quick() -> Quick:
    return Quick()


async def test_those_who_come_within_a_few_turns_share_a_call(quick: Quick) -> None:
    async def come(late: int) -> list[int]:
        await turns(late)
        return await quick.batcher([late], 1)

    assert await asyncio.gather(*map(come, range(5))) == [[0], [2], [4], [6], [8]]
    assert quick.calls == [[0, 1, 2, 3, 4]]


async def test_who_comes_alone_waits_for_a_few_turns_and_no_timer(
    quick: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fivescore.scoring.batching.GATHER_SECONDS", 1e9)
    task = asyncio.create_task(quick.batcher([1], 1))
    await turns(QUIET_TURNS + 4)
    assert task.result() == [2]


async def test_however_many_come_the_first_does_not_wait_long(quick: Quick) -> None:
    first = asyncio.create_task(quick.batcher([0], 0))
    others = []
    while not first.done():
        others.append(asyncio.create_task(quick.batcher([1], 0)))
        await asyncio.sleep(0)
    assert quick.calls[0][0] == 0
    assert len(quick.calls[0]) <= 8
    assert [one for one in await asyncio.gather(*others) if one != [2]] == []


@pytest.mark.parametrize(("sizes", "calls"), [
    ([400, 400, 400], [[0, 1], [2]]),
    ([5000, 1, 1], [[0], [1, 2]]),
    ([1, 5000, 1], [[0], [1], [2]]),
])  # fmt: skip
async def test_a_call_has_a_most_of_what_its_callers_bring(
    quick: Quick, sizes: list[int], calls: list[list[int]]
) -> None:
    await asyncio.gather(*(quick.batcher([place], size) for place, size in enumerate(sizes)))
    assert quick.calls == calls


async def test_an_error_on_the_loop_is_its_callers_alone(quick: Quick) -> None:
    answers = await asyncio.gather(
        quick.batcher([1], 1), quick.batcher([13], 1), quick.batcher([2], 1), return_exceptions=True
    )
    assert (answers[0], answers[2]) == ([2], [4])
    assert isinstance(answers[1], ValueError)
    assert await quick.batcher([3], 1) == [6]
