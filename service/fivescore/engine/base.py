"""The interface of an engine, as the path of a pair uses it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fivescore.types import ModelInfo, Output


class Engine(Protocol):
    """Turns token ids into the head's raw outputs. An engine is loaded once and closed once."""

    async def load(self) -> ModelInfo:
        """Load the model and describe it. May take minutes, while other tasks run.

        Raises:
            ConfigurationError: the model or a setting cannot work; the detail says why.
        """

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        """The head's outputs at the last token; cancelling it aborts the work in the engine.

        Args:
            token_ids: at least one and at most the model's ``max_tokens``, all of its vocabulary.
                The caller has checked that; the engine does not.
            trace_headers: the W3C trace context that the engine's own spans belong to.
            priority: of the sequences that wait in the engine, the lowest number runs first.
            rank: which of the ``ModelInfo.ranks`` computes it.
            prefix: the same number for sequences that begin alike, for an engine of which the parts
                are elsewhere.

        Raises:
            EngineError: this sequence failed; others are not affected.
            NoGate: it lacks the tokens at which a gated head computes its gate.
            EngineDead: the engine stopped and will not score again.
        """

    @property
    def alive(self) -> bool:
        """False once the engine has stopped for good; a cheap look that asks no other process."""

    def kill(self) -> None:
        """End the engine's processes at once, and fail the work in it with EngineDead.

        Called on the event loop; ``close`` still cleans up.
        """

    async def close(self) -> None:
        """Stop the engine and its processes; allowed before, during and after ``load``."""
