"""On Ray Serve: every protocol, a prompt on one engine, and none that goes missing with one."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

import psutil

from fivescore.settings import DEMO
from tests.e2e.server import Server
from tests.e2e.test_protocols import PAIRS, TALK, ask, assert_close, every, rewards_of
from tests.faults.asking import score_all
from tests.faults.known import Pairs
from tests.integration.protocols.protocols import Protocol

PROMPTS, RESPONSES = 12, 4
LEAST_CACHED = 0.8
"""Share of a long prompt that its later responses find: whole blocks only."""
MANY = 2000
ENGINE = "ray::ServeReplica:fivescore:engines"
"""How Ray titles the process of an engine replica."""


def replicas(server: Server) -> list[psutil.Process]:
    below = psutil.Process(server.process.pid).children(recursive=True)
    return [one for one in below if ENGINE in " ".join(one.cmdline())]


@every
def test_a_pair_gets_the_reward_of_score(demo: Server, protocol: Protocol) -> None:
    pairs = list(PAIRS.values())
    found = [ask(demo, protocol, protocol.one(pair))[0] for pair in pairs]
    assert_close(found, rewards_of(demo, pairs))


def test_scores_are_those_of_transformers(demo: Server) -> None:
    known = Pairs(Path(DEMO)).known(100)
    scores = demo.score([one.body for one in known])
    assert all(one.agrees(score) for one, score in zip(known, scores, strict=True))


def test_a_prompt_stays_on_one_engine(demo: Server) -> None:
    for response in range(RESPONSES):
        for prompt in range(PROMPTS):
            text = f"Number {prompt}. " + f"What is {prompt} times this and that? " * 20
            (score,) = demo.score([{"prompt": text, "response": f"It is {response}."}])
            if response:
                assert score["cached_tokens"] >= LEAST_CACHED * score["tokens"]


def test_a_replica_that_is_killed_takes_no_pair_with_it(demo: Server) -> None:
    known = Pairs(Path(DEMO)).known(MANY)
    before = replicas(demo)
    assert len(before) == 2

    async def killed_in_the_middle() -> None:
        call = asyncio.create_task(score_all(demo.url, known, batch_size=16))
        await asyncio.sleep(3)
        assert not call.done()
        before[0].send_signal(signal.SIGKILL)
        tally = await call
        assert (tally.right, tally.lost, tally.wrong) == (MANY, 0, 0)

    asyncio.run(killed_in_the_middle())
    demo.until("two replicas again", lambda: len(replicas(demo)) == 2)
    assert_close(rewards_of(demo, [TALK]), rewards_of(demo, [TALK]))
