"""The questions to the simulator, each with rows as its answer."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Collection
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from loadtest.fleet import calibration
from loadtest.fleet.engine import ServiceTimes
from loadtest.fleet.routing import ROUTERS, Bounded, ByHash, ByLoad, Modulo, Router
from loadtest.fleet.simulation import Fleet, Loss, Outcome
from loadtest.fleet.workload import Arrivals, Shape, at_once, poisson

Row = dict[str, Any]
Make = Callable[[int], Router]
MODEL = "8b-bf16"
ENGINES = (1, 3, 10, 30, 100, 300, 1000)
SHARE = 0.7
"""Offered load as a share of the ideal, where latencies are asked for."""
SEQUENCES = 300_000
"""Arrivals of an open load, about; more where ``LEAST_SECONDS`` bring more."""
LEAST_SECONDS = 6.0
"""Seconds in which an open load's steps begin, at least."""
SEEDS = 5
"""Drawings of prompts and lengths."""
FACTORS = (1.05, 1.1, 1.25, 1.5, 2.0)
"""Bounds, as factors of the mean tokens outstanding."""
PER_ENGINE = (1, 8, 64, 512)
"""Prompts per engine in a step."""
OWN = (70, 300, 1000)
"""Mean tokens of a response."""
BEHIND_ONE = (1, 2, 4, 8, 16, 32, 64)
"""Engines behind one HTTP process."""
OVERLOADED = 0.2
"""An open load is overloaded if its answers end later than its arrivals by more than this share of
its duration: then its latencies grow for as long as it lasts."""


def scaling(case: str) -> list[Row]:
    """One step of 64 prompts per engine, all at once, from 1 to 1,000 engines."""
    times = calibration.h100(case)
    rows = []
    for engines in ENGINES:
        arrivals = at_once(Shape(prompts=64 * engines))
        for name, router in ROUTERS.items():
            row = _step(arrivals, times, router(engines))
            rows.append({"model": case, "engines": engines, "routing": name, **row})
    return rows


def seeds() -> list[Row]:
    """The share of the ideal in ``scaling`` with other prompts and lengths."""
    times = calibration.h100(MODEL)
    makes: dict[str, Make] = {"hash": ByHash, "hash, escape to the next": Bounded}
    rows = []
    for engines, (name, make) in itertools.product((10, 100, 1000), makes.items()):
        shares = []
        for seed in range(SEEDS):
            step = at_once(Shape(prompts=64 * engines), seed=seed)
            other = replace(step, prompt=step.prompt + seed * 10**8)
            shares.append(_step(other, times, make(engines))["share of ideal"])
        rows.append({"engines": engines, "routing": name, "seeds": SEEDS,
                     "least share": min(shares), "largest share": max(shares)})  # fmt: skip
    return rows


def latency(case: str, engines: int) -> list[Row]:
    """Steps of 64 prompts x 8 responses of independent trainers, at ``SHARE`` of the ideal."""
    times = calibration.h100(case)
    arrivals, seconds = _open(times, engines, SHARE)
    return [
        {"model": case, "engines": engines, "routing": name,
         **_percentiles(Fleet(times, router(engines)).run(arrivals), times, seconds)}
        for name, router in ROUTERS.items()
    ]  # fmt: skip


def factors(engines: int = 100) -> list[Row]:
    """The bound of hash with escape to the next: locality against balance."""
    times = calibration.h100(MODEL)
    step = at_once(Shape(prompts=64 * engines))
    arrivals, seconds = _open(times, engines, SHARE)
    rows = []
    for factor in FACTORS:
        row = _step(step, times, Bounded(engines, factor))
        outcome = Fleet(times, Bounded(engines, factor)).run(arrivals)
        rows.append({"factor": factor, **row, **_percentiles(outcome, times, seconds)})
    return rows


def steps(engines: int = 100) -> list[Row]:
    """One step with few or many prompts per engine, and with long responses."""
    times = calibration.h100(MODEL)
    shapes = [Shape(prompts=each * engines) for each in PER_ENGINE]
    shapes += [Shape(prompts=64 * engines, own=own) for own in OWN[1:]]
    makes: dict[str, Make] = {"load": ByLoad, "hash": ByHash, "hash, escape to the next": Bounded}
    return [
        {"prompts per engine": shape.prompts // engines, "own tokens": shape.own, "routing": name,
         **_step(at_once(shape), times, make(engines))}
        for shape in shapes
        for name, make in makes.items()
    ]  # fmt: skip


def example() -> list[Row]:
    """The worked example of ``docs/scale.md``: a step of 1,024 prompts x 16 responses."""
    times = calibration.h100(MODEL)
    arrivals = at_once(Shape(prompts=1024, responses=16))
    return [
        {"engines": engines, **_step(arrivals, times, Bounded(engines))} for engines in (10, 14, 18)
    ]


def http(case: str) -> list[Row]:
    """Engines behind one HTTP process, which takes its CPU time for each pair, one by one."""
    times, each = calibration.h100(case), calibration.http_seconds(case)
    rows = []
    for engines in BEHIND_ONE:
        arrivals = at_once(Shape(prompts=64 * engines))
        ideal = arrivals.ideal_seconds(times, engines)
        outcome = Fleet(times, Bounded(engines)).run(arrivals.through(each))
        seconds = float(outcome.answered.max())
        alone = Fleet(times, Bounded(engines)).run(arrivals).seconds
        rows.append({
            "model": case, "engines": engines, "pairs/s": len(arrivals) / seconds,
            "share of ideal": ideal / seconds, "of many HTTP processes": alone / seconds,
            "HTTP process at most, pairs/s": 1 / each,
            "engine at most, pairs/s": len(arrivals) / ideal / engines,
        })  # fmt: skip
    return rows


def lost(engines: int, seconds: float) -> list[Row]:
    """An engine is lost in the middle and does not come back; against the same run without that."""
    times = calibration.h100(MODEL)
    makes: dict[str, tuple[Make, float]] = {
        "hash": (ByHash, SHARE), "hash, escape to the next": (Bounded, SHARE),
        "load": (ByLoad, 0.25), "hash modulo engines": (Modulo, SHARE),
    }  # fmt: skip
    rows = []
    for name, (make, share) in makes.items():
        rate = share * _ideal_rate(times) * engines
        arrivals = poisson(Shape(), rate, seconds, spread=seconds / 8)
        loss = Loss(engine=engines // 2, at=seconds / 2)
        before = Fleet(times, make(engines)).run(arrivals)
        after = Fleet(times, make(engines)).run(arrivals, [loss])
        row = _cost(before, after, loss.at)
        rows.append({"engines": engines, "routing": name, "load": share, **row})
    return rows


def lost_in_step() -> list[Row]:
    """An engine is lost half-way through a step whose 64 prompts per engine came all at once."""
    times = calibration.h100(MODEL)
    makes: dict[str, Make] = {"load": ByLoad, "hash": ByHash, "hash, escape to the next": Bounded}
    rows = []
    for engines in (10, 100, 1000):
        arrivals = at_once(Shape(prompts=64 * engines))
        for name, make in makes.items():
            before = Fleet(times, make(engines)).run(arrivals)
            loss = Loss(engine=engines // 2, at=before.seconds / 2)
            after = Fleet(times, make(engines)).run(arrivals, [loss])
            rows.append({
                "engines": engines, "routing": name,
                "unanswered": int(np.isnan(after.answered).sum()),
                "sent again": after.resent,
                "tokens computed more": round(after.computed / before.computed - 1, 4) + 0.0,
                "step without, s": before.seconds, "step with it, s": after.seconds,
            })  # fmt: skip
    return rows


def _cost(before: Outcome, after: Outcome, at: float) -> Row:
    """What a loss at ``at`` seconds changed."""
    prompts = len(np.unique(after.arrivals.prompt))
    window = at - 1, at + 4  # what arrived a second before the loss may have been lost
    return {
        "sequences": len(after.arrivals),
        "unanswered": int(np.isnan(after.answered).sum()),
        "sent again": after.resent,
        "tokens computed more": round(after.computed / before.computed - 1, 4) + 0.0,
        "prompts on several engines": (after.moved - before.moved) / prompts,
        "p99 without, s": float(np.quantile(before.latencies(*window), 0.99)),
        "p99 around it, s": float(np.quantile(after.latencies(*window), 0.99)),
    }


def _step(arrivals: Arrivals, times: ServiceTimes, router: Router) -> Row:
    outcome = Fleet(times, router).run(arrivals)
    engines = len(router.up)
    return {
        "share of ideal": arrivals.ideal_seconds(times, engines) / outcome.seconds,
        "prefix hits": _hits(outcome, times),
        "seconds": outcome.seconds,
    }


def _hits(outcome: Outcome, times: ServiceTimes) -> float:
    """Tokens found in a cache, as a share of what could have been."""
    arrivals = outcome.arrivals
    return outcome.hit / (arrivals.tokens - arrivals.least_tokens(times))


def _percentiles(outcome: Outcome, times: ServiceTimes, seconds: float) -> Row:
    p50, p99 = np.quantile(outcome.latencies(), [0.5, 0.99]).tolist()
    late = float(outcome.answered.max() - outcome.arrivals.at[-1])
    return {"p50, s": p50, "p99, s": p99, "hits at this load": _hits(outcome, times),
            "overloaded": late > OVERLOADED * seconds}  # fmt: skip


def _open(times: ServiceTimes, engines: int, share: float) -> tuple[Arrivals, float]:
    """Arrivals of trainers that wait for their whole batch, and their duration in seconds."""
    rate = share * _ideal_rate(times) * engines
    seconds = max(LEAST_SECONDS, SEQUENCES / rate)
    return poisson(Shape(), rate, seconds), seconds


@functools.cache
def _ideal_rate(times: ServiceTimes) -> float:
    """Sequences per second of one engine with each prompt computed once, in full steps."""
    sample = at_once(Shape(prompts=1024))
    return len(sample) / sample.ideal_seconds(times, 1)


def results(processes: int, only: Collection[str] = ()) -> dict[str, Any]:
    """All studies by name, or only some, in as many processes; and the constants behind them."""
    models = (MODEL, "0.6b-bf16")
    parts: dict[str, list[tuple[Callable[..., list[Row]], tuple[Any, ...]]]] = {
        "lost": [(lost, (1000, 10.0)), (lost, (100, 40.0)), (lost, (10, 40.0))],
        "seeds": [(seeds, ())],
        "lost in step": [(lost_in_step, ())],
        "scaling": [(scaling, (case,)) for case in models],
        "latency": [(latency, (MODEL, engines)) for engines in (1000, 100, 10, 1)],
        "factors": [(factors, ())],
        "steps": [(steps, ())],
        "example": [(example, ())],
        "http": [(http, (case,)) for case in calibration.MODELS],
    }
    with ProcessPoolExecutor(processes) as pool:
        running: dict[str, list[Future[list[Row]]]] = {
            name: [pool.submit(study, *arguments) for study, arguments in calls]
            for name, calls in parts.items()
            if not only or name in only
        }
        rows = {name: [row for one in futures for row in one.result()]
                   for name, futures in running.items()}  # fmt: skip
    return rows | {
        "service times": {case: vars(calibration.h100(case)) for case in calibration.MODELS},
        "fit": {case: calibration.compared(case) for case in calibration.MODELS},
        "ideal pairs/s per engine": {
            case: _ideal_rate(calibration.h100(case)) for case in calibration.MODELS
        },
        "single pairs per second of one HTTP process": 1 / calibration.single_http_seconds(),
    }
