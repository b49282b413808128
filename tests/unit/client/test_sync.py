"""The synchronous face: threads, running loops, its end, and what travels between processes."""

from __future__ import annotations

import asyncio
import gc
import os
import pickle
import signal
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest

from fivescore.client import AsyncRewardClient, RewardClient
from fivescore.errors import Unauthorized
from tests.unit.client.fakes import Fleet, Hurry, Request, pairs, problem, scored


def asking(fleet: Fleet, **options: Any) -> RewardClient:
    return RewardClient("http://rm", transport=fleet, clock=Hurry(), **options)


def own_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "fivescore"]


def test_scores_come_in_order_and_errors_are_raised() -> None:
    fleet = Fleet()
    with asking(fleet, batch_size=3) as client:
        assert [score.reward for score in client.score(pairs(20))] == list(range(20))
        fleet.faults["rm"].append(problem(401, "unauthorized"))
        with pytest.raises(Unauthorized):
            client.score(pairs(1))
        assert client.score([]) == []


async def test_it_works_where_a_loop_is_running() -> None:
    with asking(Fleet()) as client:
        assert [score.reward for score in client.score(pairs(3))] == [0, 1, 2]


def test_one_client_serves_eight_threads_on_its_connections() -> None:
    fleet = Fleet()
    together = threading.Barrier(8)

    def ask(client: RewardClient) -> list[float]:
        together.wait()
        return [score.reward for score in client.score(pairs(40))]

    with asking(fleet, batch_size=2, concurrency=5) as client, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, [client] * 8))
        assert len(own_threads()) == 1
    assert found == [list(range(40))] * 8
    assert fleet.most_inflight == 5


def test_a_closed_client_ends_its_thread_and_starts_it_again_when_asked() -> None:
    client = asking(Fleet())
    client.close()
    for _ in range(2):
        client.score(pairs(1))
        assert len(own_threads()) == 1
        client.close()
        client.close()
        assert own_threads() == []


def test_a_client_that_is_forgotten_ends_its_thread() -> None:
    client = asking(Fleet())
    client.score(pairs(1))
    (thread,) = own_threads()
    gone = weakref.ref(client)
    del client
    gc.collect()
    assert gone() is None
    thread.join(30)
    assert not thread.is_alive()


def test_a_client_may_be_collected_by_its_own_thread() -> None:
    """The garbage collector runs wherever it likes."""
    held = [asking(Fleet())]
    held[0].score(pairs(1))
    (thread,) = own_threads()

    async def drop() -> None:
        held.clear()

    running = held[0]._running()
    running.submit(drop()).exception()
    thread.join(30)
    assert not thread.is_alive()


def test_closing_cancels_what_is_asked() -> None:
    asked = threading.Event()

    async def never(request: Request) -> httpx.Response:
        asked.set()
        await asyncio.Event().wait()
        raise AssertionError

    client = asking(Fleet(never))
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(client.score, pairs(1))
        asked.wait()
        client.close()
        assert isinstance(future.exception(), BaseException)


@pytest.mark.usefixtures("interruptible")
def test_interrupting_the_caller_cancels_the_request() -> None:
    """As Ctrl-C does, whose exception comes out of the wait."""
    cancelled = threading.Event()

    async def interrupt(request: Request) -> httpx.Response:
        await asyncio.sleep(0.3)  # until the main thread, which gets the signal, waits in ``score``
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()
        raise AssertionError

    with asking(Fleet(interrupt)) as client:
        with pytest.raises(KeyboardInterrupt):
            client.score(pairs(1))
        assert cancelled.wait(30)


def test_a_wrong_environment_is_told_and_leaves_no_thread() -> None:
    class Broken(AsyncRewardClient):
        async def __aenter__(self) -> Any:
            raise OSError("no certificates")

    client = asking(Fleet())
    client._core = Broken("http://rm")
    for _ in range(2):
        with pytest.raises(OSError, match="no certificates"):
            client.score(pairs(1))
    assert own_threads() == []


def test_an_asynchronous_client_may_be_used_in_one_loop_after_another() -> None:
    client = AsyncRewardClient("http://rm", transport=Fleet())
    for _ in range(3):
        assert [score.reward for score in asyncio.run(client.score(pairs(3)))] == [0, 1, 2]


async def test_an_open_client_may_be_used_in_another_loop() -> None:
    """Its connections and what bounds them belong to the loop that it was opened in."""
    asked, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: Request) -> httpx.Response:
        asked.set()
        await go_on.wait()
        return scored(request)

    fleet = Fleet(held)
    async with AsyncRewardClient("http://rm", transport=fleet, concurrency=1) as client:
        here = [asyncio.create_task(client.score(pairs(2))) for _ in range(2)]
        await asked.wait()
        there = await asyncio.to_thread(lambda: asyncio.run(client.score(pairs(2))))
        go_on.set()
        for found in (there, *await asyncio.gather(*here)):
            assert [score.reward for score in found] == [0, 1]


@pytest.mark.parametrize("make", [RewardClient, AsyncRewardClient])
def test_clients_survive_pickling(make: Callable[..., Any]) -> None:
    client = make(["http://a", "http://u:k@b"], api_key="s3cret", batch_size=3, deadline_seconds=5)
    again = pickle.loads(pickle.dumps(client))
    assert type(again) is make
    core, its_core = (getattr(one, "_core", one) for one in (client, again))
    assert (its_core._addresses, its_core._limits) == (core._addresses, core._limits)
    assert repr(again) == f"{make.__name__}(http://a, http://b)"


def test_a_client_that_was_used_survives_pickling() -> None:
    with RewardClient("http://127.0.0.1:9", deadline_seconds=0) as client:
        assert client.score(pairs(1), errors="none") == [None]
        with pickle.loads(pickle.dumps(client)) as again:
            assert again.score(pairs(1), errors="none") == [None]


IMPORT = """
import sys
import fivescore.client
from fivescore.client.integrations import areal, ms_swift, rewardbench, trl, verl
heavy = {"torch", "fastapi", "starlette", "transformers", "vllm", "numpy", "trl", "verl", "orjson"}
sys.exit(", ".join(sorted(heavy & sys.modules.keys())) or 0)
"""


def test_importing_the_client_imports_nothing_heavy() -> None:
    done = subprocess.run(
        [sys.executable, "-c", IMPORT], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
