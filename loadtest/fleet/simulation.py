"""The discrete-event simulation of a fleet."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import count
from typing import NamedTuple

import numpy as np

from loadtest.fleet.engine import Engine, Sequence, ServiceTimes
from loadtest.fleet.routing import Router
from loadtest.fleet.workload import Arrivals, Floats

CHUNK = 65536
"""Arrivals that are Python numbers at a time; all of them as such would not fit into memory."""


class Loss(NamedTuple):
    """An engine that is lost, and comes back with an empty cache.

    Its sequences are sent again ``detected`` seconds after the loss.
    """

    engine: int
    at: float
    """Seconds from the start."""
    back: float = math.inf
    """Seconds from the start."""
    detected: float = 0.5
    """Seconds. The client's first backoff (``fivescore.client.retry.BACKOFF_SECONDS``); the client
    itself tries another replica at once when a connection breaks."""


@dataclass
class Outcome:
    """What came of all arrivals."""

    arrivals: Arrivals
    answered: Floats
    """When each sequence was answered, in seconds from the start; NaN: never."""
    answers: int
    """Answers in all; more than sequences if one was answered twice."""
    computed: int
    """Tokens."""
    hit: int
    """Tokens that were in a cache."""
    resent: int
    """Sequences that were sent again after a loss."""
    moved: int
    """Prompts with sequences on several engines."""

    @property
    def seconds(self) -> float:
        """From the first arrival to the last answer."""
        return float(np.max(self.answered) - self.arrivals.at[0])

    def latencies(self, begin: float = 0.0, end: float = math.inf) -> Floats:
        """Seconds from arrival to answer, of what arrived from ``begin`` until ``end``."""
        at = self.arrivals.at
        return (self.answered - at)[(at >= begin) & (at < end)]


class Fleet:
    """Engines behind a router.

    Args:
        times: those of every engine.
        router: as many engines as it has are simulated.
    """

    def __init__(self, times: ServiceTimes, router: Router) -> None:
        self.engines = [Engine(times) for _ in router.up]
        self.router = router
        self._events: list[tuple[float, int, int, object]] = []
        """Time, a number that orders equal times, engine, and what happens there: the generation
        whose step ends, sequences to send again, or a loss."""
        self._numbers = count()
        self._generation = [0] * len(self.engines)
        """How often each engine was lost: a step of an earlier generation does not end."""
        self._places: dict[int, int] = {}
        """The engine of each prompt's first sequence, or -1 once others went elsewhere."""
        self._resent = 0

    def run(self, arrivals: Arrivals, losses: Iterable[Loss] = ()) -> Outcome:
        """Send all arrivals and wait for their answers."""
        answered = np.full(len(arrivals), np.nan)
        answers = 0
        for loss in losses:
            self._at(loss.at, loss.engine, loss)
        coming = _sequences(arrivals)
        at, sequence = next(coming, (math.inf, None))
        while sequence or self._events:
            if sequence and (not self._events or at <= self._events[0][0]):
                now, batch = at, []
                while sequence and at == now:
                    batch.append(sequence)
                    at, sequence = next(coming, (math.inf, None))
                self._send(now, batch)
                continue
            now, _, engine, event = heapq.heappop(self._events)
            for done in self._happen(now, engine, event):
                answered[done.number] = now
                answers += 1
        moved = sum(place < 0 for place in self._places.values())
        computed = sum(engine.computed for engine in self.engines)
        hit = sum(engine.hit for engine in self.engines)
        return Outcome(arrivals, answered, answers, computed, hit, self._resent, moved)

    def _at(self, time: float, engine: int, event: object) -> None:
        heapq.heappush(self._events, (time, next(self._numbers), engine, event))

    def _happen(self, now: float, engine: int, event: object) -> list[Sequence]:
        """Let an event happen; returns the sequences that are answered with it."""
        match event:
            case int() if event == self._generation[engine]:
                finished = self.engines[engine].finish()
                self.router.answered(engine, sum(one.shared + one.own for one in finished))
                self._start(now, engine)
                return finished
            case Loss():
                self._lose(now, event)
            case list():
                self._resent += len(event)
                self._send(now, event)
            case None:
                self.router.restore(engine)
        return []

    def _send(self, now: float, sequences: list[Sequence]) -> None:
        engines, places, send = self.engines, self._places, self.router.send
        idle: dict[int, None] = {}
        for sequence in sequences:
            chosen = send(sequence)
            engine = engines[chosen]
            engine.queue.append(sequence)
            if places.setdefault(sequence.prompt, chosen) != chosen:
                places[sequence.prompt] = -1
            if not engine.busy:
                idle[chosen] = None
        for chosen in idle:
            self._start(now, chosen)

    def _start(self, now: float, engine: int) -> None:
        if self.engines[engine].queue:
            self._at(now + self.engines[engine].step(), engine, self._generation[engine])

    def _lose(self, now: float, loss: Loss) -> None:
        self.router.lose(loss.engine)
        self._generation[loss.engine] += 1
        if lost := self.engines[loss.engine].lose():
            self._at(now + loss.detected, loss.engine, lost)
        if loss.back < math.inf:
            self._at(loss.back, loss.engine, None)


def _sequences(arrivals: Arrivals) -> Iterator[tuple[float, Sequence]]:
    number = count()
    for first in range(0, len(arrivals), CHUNK):
        part = slice(first, first + CHUNK)
        columns = (arrivals.at, arrivals.prompt, arrivals.shared, arrivals.own)
        for at, *rest in zip(*(column[part].tolist() for column in columns), strict=True):
            yield at, Sequence(next(number), *rest)
