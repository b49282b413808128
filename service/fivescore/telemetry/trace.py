"""Where a request's time goes: one value for the metric, the log line, the header and the spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STAGES = ("admit", "render", "tokenise", "engine", "reward")
"""In the order in which a request meets them.

``render`` and ``tokenise`` are of the batches that the request's pairs were in; ``render`` includes
waiting for the thread that does both. ``engine`` is from the first sequence handed over to the last
answer. A large request is tokenised while the engine works, so that stages overlap and their sum
may exceed the request's own time.
"""

ENGINE_SPANS = 64
"""Sequences of one request that have a span in the engine: a request of thousands would fill the
queue of spans, and push other requests' out."""


@dataclass(slots=True)
class Stage:
    """``seconds`` spent between ``began`` and ``ended``, both on ``time.perf_counter``'s clock."""

    began: float
    ended: float
    seconds: float


@dataclass(slots=True)
class Trace:
    """One request: its id, its place in the client's trace, and its stages so far.

    ``headers`` are W3C trace context for the engine's own spans, and ``unsampled`` the same for
    sequences that shall have none; without either the engine would begin traces of its own.
    """

    request_id: str = "score"
    trace_id: str = ""
    headers: Mapping[str, str] | None = None
    unsampled: Mapping[str, str] | None = None
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(self, name: str, began: float, ended: float) -> None:
        """Add work on one of ``STAGES``, between two readings of ``time.perf_counter``."""
        stage = self.stages.get(name)
        if stage is None:
            self.stages[name] = Stage(began, ended, ended - began)
        else:
            stage.began = min(stage.began, began)
            stage.ended = max(stage.ended, ended)
            stage.seconds += ended - began

    def engine_headers(self, place: int) -> Mapping[str, str] | None:
        """Headers for the engine's span of the request's pair at ``place``."""
        return self.headers if place < ENGINE_SPANS else self.unsampled

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in order; stages that the request did not reach are left out."""
        return {name: self.stages[name].seconds for name in STAGES if name in self.stages}
