"""Two ranks behind one address: right scores, a prompt on one of them, and none that is lost."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from fivescore.settings import DEMO
from tests.e2e.server import Server, running
from tests.faults.asking import score_all
from tests.faults.known import Pairs
from tests.faults.target import Target

PROMPTS, RESPONSES = 12, 4
LEAST_CACHED = 0.8
"""Share of a long prompt that its later responses find: whole blocks only."""
PAIRS = 400


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    log = tmp_path_factory.mktemp("ranks") / "server.log"
    with running(log, "--engine.data-parallel-size", "2") as server:
        server.until_ready()
        yield server


def test_each_rank_is_proved_and_has_its_share_of_the_cores(server: Server) -> None:
    log = server.log.read_text()
    assert log.count("proved: ") == 1
    assert "computing with" not in log
    assert len(Target(server).engines()) == 2


def test_a_prompt_stays_on_one_rank(server: Server) -> None:
    for response in range(RESPONSES):
        for prompt in range(PROMPTS):
            text = f"Number {prompt}. " + f"What is {prompt} times this and that? " * 20
            (score,) = server.score([{"prompt": text, "response": f"It is {response}."}])
            if response:
                assert score["cached_tokens"] >= LEAST_CACHED * score["tokens"]
    for rank in (0, 1):
        assert server.metric("vllm:request_success_total", f'engine="{rank}"') > RESPONSES
    assert server.metric("fivescore_escaped_sequences_total") == 0


def test_a_rank_that_is_killed_takes_no_pair_with_it(server: Server) -> None:
    target, known = Target(server), Pairs(Path(DEMO)).known(PAIRS)
    before = target.engines()

    async def killed_in_the_middle() -> None:
        scored = await target.metric("fivescore_pairs_total", 'outcome="ok"')
        call = asyncio.create_task(score_all(server.url, known, batch_size=16))

        async def enough() -> bool:
            done = await target.metric("fivescore_pairs_total", 'outcome="ok"')
            return done >= scored + PAIRS / 4

        await target.until("a quarter is scored", enough)
        before[1].send_signal(signal.SIGKILL)
        tally = await call
        assert not tally.errors
        assert (tally.right, tally.lost, tally.wrong) == (PAIRS, 0, 0)

    asyncio.run(killed_in_the_middle())
    assert server.metric("fivescore_engine_restarts_total") == 1
    assert len(target.engines()) == 2
    assert not [one for one in before if psutil.pid_exists(one.pid)]
