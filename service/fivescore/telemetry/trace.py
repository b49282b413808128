"""Where a request's time goes: the same values for metric, log line, header and spans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

STAGES = ("admit", "render", "tokenise", "engine", "reward")
"""A request's stages, in order.

``render`` and ``tokenise`` are the times of the batches that the request's pairs were in, and
``render`` includes the wait for the thread that does both. ``engine`` is the time from the first
submission to the last answer. A large request is tokenised while the engine works: stages overlap,
and their sum may exceed the request's own time.
"""

ENGINE_SPANS = 64
"""The most sequences per request that have a span in the engine: thousands would fill the queue of
spans, and other requests' spans would be lost."""


@dataclass(slots=True)
class Stage:
    """``seconds`` of work between ``began`` and ``ended`` (``time.perf_counter``, seconds)."""

    began: float
    ended: float
    seconds: float


@dataclass(slots=True)
class Trace:
    """One request's id, its place in the client's trace, and its stages so far.

    ``headers`` are the W3C trace context of the engine's spans, and ``unsampled`` that of sequences
    without a span: with no header the engine would begin traces of its own.
    """

    request_id: str = "score"
    trace_id: str = ""
    headers: Mapping[str, str] | None = None
    unsampled: Mapping[str, str] | None = None
    stages: dict[str, Stage] = field(default_factory=dict)

    def add(self, name: str, began: float, ended: float) -> None:
        """Add work on one of ``STAGES`` between two times (``time.perf_counter``, seconds)."""
        stage = self.stages.get(name)
        if stage is None:
            self.stages[name] = Stage(began, ended, ended - began)
        else:
            if began < stage.began:  # faster than min(), and there is one addition per pair
                stage.began = began
            if ended > stage.ended:
                stage.ended = ended
            stage.seconds += ended - began

    def engine_headers(self, place: int) -> Mapping[str, str] | None:
        """The trace headers of the pair at ``place``, for the engine."""
        return self.headers if place < ENGINE_SPANS else self.unsampled

    def seconds(self) -> dict[str, float]:
        """Seconds by stage, in order, without the stages that the request did not reach."""
        return {name: self.stages[name].seconds for name in STAGES if name in self.stages}
