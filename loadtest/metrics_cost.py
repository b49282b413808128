"""Time that the service's metrics take per pair and request: ``python -m loadtest.metrics_cost``.

The event loop spends it, so 100 us per pair would limit the service to 10,000 pairs per second.
Each call is timed against the same loop around an empty call, in alternating rounds. The result is
the difference of the fastest rounds, because disturbances only make rounds slower. The cost of
prometheus_client's histograms is measured too: ``fivescore.telemetry.distribution`` replaces them
for values that are counted per pair.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Histogram

from fivescore.model.manifest import ATTRIBUTES
from fivescore.telemetry.metrics import REWARDS, SCORES, TOKENS, Metrics
from fivescore.telemetry.trace import STAGES, Trace
from fivescore.types import Score
from loadtest.report import RESULTS, save, surroundings

CALLS = 2000
"""Calls per round: few enough that some rounds run undisturbed on a busy machine."""
SCORE = Score(
    dict(zip(ATTRIBUTES, (0.4, 1.3, 2.2, 3.1, 4.0), strict=True)), 4.4, 187, cached_tokens=96
)
Call = Callable[[], object]


def main() -> int:
    arguments = _arguments()
    calls = {
        "nothing": _nothing,
        "a pair": _pair(),
        "a request": _request(),
        "a pair with prometheus_client's histograms": _pair_of_prometheus_client(),
    }
    fastest = _fastest(calls, arguments.rounds)
    cost = {name: 1e6 * (seconds - fastest["nothing"]) for name, seconds in fastest.items()}
    result = {
        "microseconds": {name: round(us, 2) for name, us in cost.items() if name != "nothing"},
        "calls": CALLS,
        "rounds": arguments.rounds,
        **surroundings("metrics_cost", ("fivescore", "prometheus_client")),
    }
    result["versions"]["python"] = platform.python_version()
    save(result, arguments.output, "microseconds")
    return 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="rounds per call [300]")
    parser.add_argument("--output", type=Path, help=f"JSON, such as {RESULTS}/metrics_cost.json")
    return parser.parse_args()


def _fastest(calls: dict[str, Call], rounds: int) -> dict[str, float]:
    """Seconds per call, in the fastest round of each."""
    seconds = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            began = time.perf_counter()
            for _ in range(CALLS):
                call()
            seconds[name] = min(seconds[name], (time.perf_counter() - began) / CALLS)
    return seconds


def _nothing() -> None:
    pass


def _pair() -> Call:
    """The measurements that the scorer makes per pair."""
    metrics, trace = Metrics(), Trace()

    def call() -> None:
        began = time.perf_counter()
        trace.add("reward", began, time.perf_counter())
        metrics.scored(SCORE)

    return call


def _pair_of_prometheus_client() -> Call:
    """The same with prometheus_client's histograms."""
    metrics, trace, registry = Metrics(), Trace(), CollectorRegistry()

    def histogram(name: str, bounds: Any) -> Histogram:
        return Histogram(name, name, buckets=bounds, registry=registry)

    attributes = [(name, histogram(name, SCORES)) for name in ATTRIBUTES]
    reward, tokens = histogram("reward", REWARDS), histogram("tokens", TOKENS)

    def call() -> None:
        began = time.perf_counter()
        trace.add("reward", began, time.perf_counter())
        for name, one in attributes:
            one.observe(SCORE.attributes[name])
        reward.observe(SCORE.reward)
        tokens.observe(SCORE.tokens)
        metrics.cached_tokens.inc(SCORE.cached_tokens)

    return call


def _request() -> Call:
    """The measurements of scorer and middleware for a request with all stages."""
    metrics, trace = Metrics(), Trace()
    for stage in STAGES:
        trace.add(stage, 0.0, 0.01)

    def call() -> None:
        metrics.request_pairs.observe(64)
        metrics.pairs.labels("ok").inc(64)
        metrics.traced(trace)
        metrics.http_seconds.labels("POST", "/score", "200").observe(0.1)

    return call


if __name__ == "__main__":
    raise SystemExit(main())
