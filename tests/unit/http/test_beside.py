"""Work on large bodies, beside the event loop."""

from __future__ import annotations

import asyncio
import gc
import sys
import threading
from functools import partial

import pytest

from fivescore.errors import Overloaded
from fivescore.http.beside import SWITCH_SECONDS, Beside, free_pairs
from fivescore.http.body import parse_json
from fivescore.http.slices import FEW, free
from fivescore.types import parse_pair


async def test_one_body_is_worked_on_at_a_time_and_the_others_wait_in_order() -> None:
    beside, go, began = Beside(100), threading.Event(), list[int]()

    def work(number: int) -> int:
        began.append(number)
        go.wait(60)
        return number

    works = [asyncio.create_task(beside(1, partial(work, n))) for n in range(3)]
    while not began:  # noqa: ASYNC110  # a thread has no event for the loop
        await asyncio.sleep(0.001)
    assert began == [0]
    go.set()
    assert await asyncio.gather(*works) == began == [0, 1, 2]


async def test_the_event_loop_waits_as_little_as_it_can_in_the_meantime() -> None:
    beside = Beside(100)
    before = gc.isenabled(), sys.getswitchinterval()
    assert before[0]
    assert before[1] > SWITCH_SECONDS
    collects, seconds = await beside(1, lambda: (gc.isenabled(), sys.getswitchinterval()))
    assert not collects
    assert seconds == pytest.approx(SWITCH_SECONDS)
    assert (gc.isenabled(), sys.getswitchinterval()) == before
    gc.disable()
    try:
        await beside(1, gc.isenabled)
        assert not gc.isenabled()
    finally:
        gc.enable()


async def test_bodies_that_wait_have_a_limit_and_one_alone_has_none() -> None:
    refused = list[int]()
    beside, go = Beside(100, lambda: refused.append(1)), threading.Event()
    alone = asyncio.create_task(beside(1000, lambda: go.wait(60)))
    await asyncio.sleep(0)
    with pytest.raises(Overloaded, match=r"1000 bytes together, the limit is 100 ") as caught:
        await beside(1, lambda: None)
    assert refused == [1]
    assert caught.value.reason == "bytes"
    go.set()
    assert await alone
    assert await beside(1, lambda: "room again") == "room again"


async def test_work_that_fails_gives_its_room_back() -> None:
    beside = Beside(1)
    for _ in range(2):
        with pytest.raises(ZeroDivisionError):
            await beside(1, lambda: 1 // 0)


def test_what_is_freed_is_empty_inside_and_out() -> None:
    inner = [1] * (3 * FEW)
    body = {"a": [{"b": inner}, "c"], "d": "e"}
    entry = body["a"][0]
    free(body)
    assert (body, entry, inner) == ({}, {}, [])


def test_pairs_do_not_need_the_body_that_they_were_read_from() -> None:
    turn = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f"}}]}
    read = {"prompt": [{"role": "user", "content": "Q"}, turn, {"role": "tool", "content": "r"}]}
    body = [{**read, "response": "A"}, {"token_ids": [1, 2, 3]}]
    text = str(body).replace("'", '"').encode()
    content = parse_json(text)
    pairs = [parse_pair(one) for one in content]
    free(content)
    assert pairs == [parse_pair(one) for one in parse_json(text)]
    free_pairs(pairs)
    assert pairs == []
