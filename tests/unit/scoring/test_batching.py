"""One call of the work for all that waits; nothing waits when it is idle."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from fivescore.scoring.batching import Batcher


class Work:
    """Doubles its items. Each call waits until the test lets it go; records what it was given."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.started = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)
        self.poison: int | None = None
        """An item that makes the whole call fail."""

    def __call__(self, items: list[int]) -> list[int]:
        self.calls.append(items)
        self.started.release()
        assert self.gate.acquire(timeout=60)
        if self.poison in items:
            raise ValueError("poison")
        return [2 * item for item in items]

    async def begun(self) -> None:
        assert await asyncio.to_thread(self.started.acquire, timeout=60)


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
async def batcher(work: Work) -> AsyncIterator[Batcher[int, int]]:
    batcher = Batcher(work, 8)
    yield batcher
    work.gate.release(100)
    batcher.close()


async def queued(batcher: Batcher[int, int], *items: int) -> asyncio.Task[list[int]]:
    """A caller whose items wait: one turn of the loop brings its task to its await."""
    task = asyncio.create_task(batcher(items))
    await asyncio.sleep(0)
    return task


async def test_when_idle_the_first_caller_is_worked_on_at_once_and_alone(
    batcher: Batcher[int, int], work: Work
) -> None:
    caller = await queued(batcher, 1, 2)
    await work.begun()  # nobody else has come, and no timer was needed
    assert work.calls == [[1, 2]]
    work.gate.release()
    assert await caller == [2, 4]


async def test_what_comes_while_busy_forms_one_batch_and_is_split_right(
    batcher: Batcher[int, int], work: Work
) -> None:
    first = await queued(batcher, 1)
    await work.begun()
    later = [await queued(batcher, *items) for items in ((10,), (20, 21, 22), (30, 31))]
    work.gate.release(2)
    assert await asyncio.gather(first, *later) == [[2], [20], [40, 42, 44], [60, 62]]
    assert work.calls == [[1], [10, 20, 21, 22, 30, 31]]


async def test_a_batch_has_a_most_and_callers_keep_their_order(
    batcher: Batcher[int, int], work: Work
) -> None:
    first = await queued(batcher, 0)
    await work.begun()
    later = [await queued(batcher, *range(5 * n, 5 * n + 5)) for n in (1, 2, 3)]
    work.gate.release(4)
    await asyncio.gather(first, *later)
    assert work.calls == [[0], [5, 6, 7, 8, 9], [10, 11, 12, 13, 14], [15, 16, 17, 18, 19]]


async def test_a_single_caller_may_bring_more_than_the_most(
    batcher: Batcher[int, int], work: Work
) -> None:
    work.gate.release()
    assert await batcher(range(20)) == list(range(0, 40, 2))


async def test_an_error_of_the_work_reaches_the_caller_whose_items_caused_it_and_no_other(
    batcher: Batcher[int, int], work: Work
) -> None:
    first = await queued(batcher, 1)
    await work.begun()
    callers = [await queued(batcher, *items) for items in ((2,), (3, 4), (5,))]
    work.poison = 4
    work.gate.release(100)
    assert await first == [2]
    with pytest.raises(ValueError, match="poison"):
        await callers[1]
    assert (await callers[0], await callers[2]) == ([4], [10])
    assert work.calls[1] == [2, 3, 4, 5]  # they did share a call
    assert await batcher([6]) == [12]


async def test_a_caller_that_left_before_its_turn_does_not_disturb_the_others(
    batcher: Batcher[int, int], work: Work
) -> None:
    first = await queued(batcher, 1)
    await work.begun()
    left, stays = await queued(batcher, 2, 3), await queued(batcher, 4)
    left.cancel()
    work.gate.release(3)
    assert (await first, await stays) == ([2], [8])
    assert left.cancelled()
    assert work.calls[1:] == [[4]]  # nobody waits for 2 and 3: they are not worked on


async def test_a_caller_that_leaves_in_the_middle_does_not_disturb_the_others(
    batcher: Batcher[int, int], work: Work
) -> None:
    first = await queued(batcher, 1)
    await work.begun()
    left, stays = await queued(batcher, 2, 3), await queued(batcher, 4)
    work.gate.release()
    await work.begun()
    assert work.calls[1] == [2, 3, 4]
    left.cancel()
    work.gate.release()
    assert (await first, await stays) == ([2], [8])
    work.gate.release()
    assert await batcher([5]) == [10]
