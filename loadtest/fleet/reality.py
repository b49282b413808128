"""Holds the simulator against two real engines on a CPU, one core each.

The constants come from loads on one engine without shared prompts; predicted is how long steps of k
prompts with n responses take over both engines, where prefix hits and routing decide.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from fivescore.settings import DEMO
from fivescore.types import Pair
from loadtest.driver import Driver, Request
from loadtest.fleet.calibration import Point, fit
from loadtest.fleet.engine import Sequence as Tokens
from loadtest.fleet.engine import ServiceTimes
from loadtest.fleet.routing import ByHash, ByLoad, Router
from loadtest.fleet.simulation import Fleet
from loadtest.fleet.workload import Arrivals
from loadtest.model import Measured
from loadtest.processes import Running, fivescore_command, server, settled
from loadtest.texts import Texts, endless

CORES = (0, 1)
STEP_TOKENS, BLOCK = 768, 32
"""Of the demo on a CPU: ``CPU_STEP_TOKENS`` and ``CPU_BLOCK_SIZE`` of
``fivescore.engine.vllm.arguments``."""
STEP_SEQUENCES = 256
"""vLLM's default on a CPU."""
CACHE_TOKENS = 62_000
"""Tokens in 256 MiB, the service's KV cache on a CPU (``LEAST_KV_CACHE_BYTES``): ten times the
5,800 of ``loadtest.loads.SMALL``'s 24 MiB."""
CALIBRATION = ((1024, 64), (384, 192), (96, 640))
"""Pairs in a POST and tokens of each, without shared prompts."""
SINGLES = 24
"""Pairs of a POST each, which give the overhead of a step."""
LOADS = ((128, 8, 300), (96, 16, 150), (256, 3, 200))
"""Prompts, responses to each, and tokens of a prompt; responses have about 70."""
ROUTERS: dict[str, type[Router]] = {"hash": ByHash, "load": ByLoad}
ROUNDS = 3
BAR = 0.1
"""The largest relative error of a prediction."""


class Measurement(NamedTuple):
    """Seconds until the last answer, and the pairs that each engine got."""

    seconds: float
    pairs: list[int]


class Pool:
    """The running engines, and texts that no cache has seen."""

    def __init__(self, running: Sequence[Running], model: Measured, texts: Texts) -> None:
        self.running = running
        self._urls = [one.url + "/score" for one in running]
        self._model = model
        self.texts = texts

    async def send(self, parts: Sequence[Sequence[Pair]]) -> Measurement:
        """Send each engine its part in one POST, all at the same time.

        Raises:
            RuntimeError: a request failed.
        """
        requests = [_request(part) for part in parts]
        await settled()
        async with contextlib.AsyncExitStack() as stack:
            drivers = [await stack.enter_async_context(Driver(url)) for url in self._urls]
            began = time.perf_counter()
            sent = zip(drivers, requests, strict=False)
            runs = await asyncio.gather(*(driver.closed([one], 1) for driver, one in sent))
            seconds = time.perf_counter() - began
        if failed := [run.failed for run in runs if run.failed]:
            raise RuntimeError(f"requests failed: {failed}")
        return Measurement(seconds, [run.pairs for run in runs])

    async def single(self, engine: int, pairs: Sequence[Pair]) -> float:
        """The median latency of pairs that are sent one after another, in seconds."""
        await settled()
        async with Driver(self._urls[engine]) as driver:
            run = await driver.closed([_request([pair]) for pair in pairs], 1)
        return statistics.median(run.latencies)

    async def points(self, engine: int) -> list[Point]:
        """The calibration's loads on one engine, while the others are idle."""
        found = []
        for count, tokens in CALIBRATION:
            pairs = self.texts.of_length(count, tokens)
            alone = Pool(self.running[engine : engine + 1], self._model, self.texts)
            seconds = (await alone.send([pairs])).seconds
            found.append(self._point(f"{count} x {tokens} tokens", seconds, pairs))
        pairs = self.texts.of_length(SINGLES, 192)
        seconds = await self.single(engine, pairs)
        single = self._point("single pairs, 192 tokens", seconds, pairs[:1])
        return [*found, single]

    def _point(self, name: str, seconds: float, pairs: Sequence[Pair]) -> Point:
        lengths = [len(ids) for ids in self._model.ids(pairs)]
        tokens, attended = sum(lengths), sum(length**2 for length in lengths) / 2
        return Point(name, seconds, math.ceil(tokens / STEP_TOKENS), len(pairs), tokens, attended)

    def groups(self, prompts: int, responses: int, tokens: int) -> tuple[list[Pair], Arrivals]:
        """A step of new texts, and what the simulator has to know about it."""
        pairs = self.texts.groups(prompts, responses, tokens)
        ids = self._model.ids(pairs)
        groups = [ids[i : i + responses] for i in range(0, len(ids), responses)]
        common = [common(group) for group in groups]
        shared = np.repeat(common, responses)
        own = np.array([len(one) for one in ids]) - shared
        prompt = np.repeat(np.arange(prompts), responses)
        return pairs, Arrivals(np.zeros(len(pairs)), prompt, shared, own)


def parts(router: Router, pairs: Sequence[Pair], arrivals: Arrivals) -> list[list[Pair]]:
    """Each engine's pairs, as the router chooses when all arrive at once."""
    split: list[list[Pair]] = [[] for _ in router.up]
    columns = (arrivals.prompt.tolist(), arrivals.shared.tolist(), arrivals.own.tolist())
    for number, (pair, *rest) in enumerate(zip(pairs, *columns, strict=True)):
        split[router.send(Tokens(number, *rest))].append(pair)
    return split


@contextlib.contextmanager
def servers(folder: Path) -> Iterator[list[Running]]:
    """One server on each of ``CORES``, with one thread each."""
    with contextlib.ExitStack() as stack:
        running = []
        for core in CORES:
            command = ["taskset", "--cpu-list", str(core), *fivescore_command(str(DEMO))]
            log, extra = folder / f"{core}.log", {"OMP_NUM_THREADS": "1"}
            running.append(stack.enter_context(server(command, "/health/ready", log, extra)))
        yield running


def compare() -> dict[str, Any]:
    """Measure, predict and compare; takes about three minutes and both cores.

    Raises:
        RuntimeError: a server did not start or failed a request.
    """
    model = Measured(str(DEMO))
    texts = endless(model, 512)
    with tempfile.TemporaryDirectory() as folder, servers(Path(folder)) as running:
        return asyncio.run(_compare(Pool(running, model, texts)))


async def _compare(pool: Pool) -> dict[str, Any]:
    await pool.send([pool.texts.take(256), pool.texts.take(256)])  # the first steps are slower
    calibrated: list[Point] = []
    for _, engine in itertools.product(range(ROUNDS), range(len(CORES))):
        calibrated += await pool.points(engine)
    limits = {
        "step_tokens": STEP_TOKENS,
        "step_sequences": STEP_SEQUENCES,
        "block": BLOCK,
        "cache_tokens": CACHE_TOKENS,
    }
    times = fit(_medians(calibrated), **limits)
    rows = []
    for load, (name, router) in itertools.product(LOADS, ROUTERS.items()):
        rows.append({"routing": name, **await _row(pool, times, load, router)})
        print(json.dumps(rows[-1]), file=sys.stderr)
    return {
        "calibration": [one._asdict() for one in calibrated],
        "service times": times.__dict__,
        "loads": rows,
        "largest error": max(abs(row["error"]) for row in rows),
        "bar": BAR,
    }


def _medians(points: Sequence[Point]) -> list[Point]:
    """One point for each load: its median time."""
    names = dict.fromkeys(one.name for one in points)
    same = ([one for one in points if one.name == name] for name in names)
    return [group[0]._replace(seconds=statistics.median(o.seconds for o in group))
            for group in same]  # fmt: skip


async def _row(
    pool: Pool, times: ServiceTimes, load: tuple[int, int, int], router: type[Router]
) -> dict[str, Any]:
    measured, predicted, split = [], [], []
    for _ in range(ROUNDS):
        pairs, arrivals = pool.groups(*load)
        predicted.append(Fleet(times, router(len(CORES))).run(arrivals).seconds)
        one = await pool.send(parts(router(len(CORES)), pairs, arrivals))
        measured.append(one.seconds)
        split.append(one.pairs)
    seconds, expected = statistics.median(measured), statistics.median(predicted)
    return {
        "load": "{} prompts x {} responses, {}-token prompts".format(*load),
        "pairs of each engine": split[0],
        "measured, s": seconds,
        "rounds, s": measured,
        "predicted, s": expected,
        "measured, pairs/s": load[0] * load[1] / seconds,
        "predicted, pairs/s": load[0] * load[1] / expected,
        "error": expected / seconds - 1,
    }


def common(ids: Sequence[list[int]]) -> int:
    """Tokens that all begin with."""
    same = (len(set(tokens)) == 1 for tokens in zip(*ids, strict=False))
    return sum(1 for _ in itertools.takewhile(bool, same))


def _request(pairs: Sequence[Pair]) -> Request:
    body = {"pairs": [{"prompt": p.prompt, "response": p.response} for p in pairs]}
    return Request(json.dumps(body, ensure_ascii=False).encode(), len(pairs))
