"""Scenario 1: ten times as many pairs as the service can score."""

from __future__ import annotations

import time

from tests.faults.asking import Asker
from tests.faults.bench import Bench
from tests.faults.load import Batch, Load, batches_of, closed_loop, open_loop, quantile
from tests.faults.result import Result, Tally, at_least, at_most, only, total
from tests.faults.target import Peak, Target

TIMES = 10
BATCH = 128
"""Pairs a request. Small ones would measure the load: to make and refuse ten times what the engine
does takes this machine's time too."""
POOL = 4
"""How many times the pairs that may be in flight: none is sent again before it is answered, and a
request for which none is left is not sent, which counts against what was offered."""
SINGLES = 20
LATER = 3.0
"""How many times the queue's own time an answer and the recovery may take."""
SLOWER = 5.0
"""What counts as quiet again, as a ratio to before."""
MEMORY = 1.25


async def overload(bench: Bench) -> Result:
    """Measure what the service can do, offer ten times that, and see what comes of it."""
    scale = bench.scale
    target = await bench.server("--max-inflight-pairs", str(scale.inflight_pairs))
    known = await bench.known(POOL * scale.inflight_pairs)
    async with Asker(target.url) as asker:
        batches = batches_of(known, BATCH)
        concurrency = scale.inflight_pairs // BATCH
        await closed_loop(asker, batches, concurrency, scale.capacity_seconds / 2)  # warm-up
        singles = known[:SINGLES]
        before = await asker.one_by_one(singles)
        calm = await closed_loop(asker, batches, concurrency, scale.capacity_seconds)
        memory = target.usage().memory
        rate = TIMES * calm.right_per_second / BATCH
        async with Peak(target) as peak:
            load = await open_loop(asker, batches, rate, scale.overload_seconds)
        quiet = quantile([answer.seconds for answer in before], 0.5)
        recovery, probes = await _recover(asker, singles, load, quiet)
        after = await asker.one_by_one(singles)
    alone = total(answer.tally for answer in [*before, *after])
    tally = total([alone, calm.tally, load.tally, probes])
    queue = scale.inflight_pairs / calm.right_per_second
    return Result(
        f"{TIMES}x the capacity of {calm.right_per_second:.0f} pairs/s offered for"
        f" {scale.overload_seconds:.0f} s, --max-inflight-pairs {scale.inflight_pairs}",
        tally,
        [
            only(tally, "overloaded"),
            only(total([alone, calm.tally])),
            at_least("offered, x capacity,", _offered(load) / calm.right_per_second, 0.9 * TIMES),
            at_least("goodput, x capacity,", load.right_per_second / calm.right_per_second, 0.9),
            at_most("p99 latency, s,", quantile(load.latencies, 0.99), LATER * queue),
            at_most("peak memory, x before,", peak.bytes / memory, MEMORY),
            at_most("recovery, s,", recovery, LATER * queue),
        ],
        recovery,
        _numbers(target, calm, load),
    )


def _offered(load: Load) -> float:
    return len(load.lags) * BATCH / load.seconds


async def _recover(asker: Asker, singles: Batch, load: Load, quiet: float) -> tuple[float, Tally]:
    """Seconds from the end of the load until a pair takes about what it took before."""
    tally = Tally()
    while True:
        (answer,) = await asker.one_by_one(singles[:1])
        tally.add(answer.tally)
        if answer.tally.right and answer.seconds <= SLOWER * quiet:
            return time.monotonic() - (load.began + load.seconds), tally


def _numbers(target: Target, calm: Load, load: Load) -> dict[str, float]:
    return {
        "capacity, pairs/s": calm.right_per_second,
        "goodput, pairs/s": load.right_per_second,
        "requests not sent": float(load.dropped),
        "p50 latency, s": quantile(load.latencies, 0.5),
        "p99 latency, s": quantile(load.latencies, 0.99),
        "p99 send lag, s": quantile(load.lags, 0.99),
    }
