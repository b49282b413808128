"""What the scoring core asks of an engine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from fivescore.types import ModelInfo, Output


class Engine(Protocol):
    """Token ids in, raw head outputs out. One engine is loaded once and closed once."""

    async def load(self) -> ModelInfo:
        """Load the model; may take minutes, and other tasks run meanwhile.

        Raises:
            ConfigurationError: the model or a setting cannot work; the detail says why.
        """

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
    ) -> Output:
        """The head's outputs at the last token. Cancelling aborts the work in the engine.

        There is at least one of ``token_ids``; they are in the model's vocabulary and no more than
        its ``max_tokens``: the caller has looked, and nothing after it does.

        ``trace_headers`` are the W3C trace context that the engine's own spans belong to. Of what
        waits in the engine, the lowest ``priority`` goes first.

        Raises:
            EngineError: this sequence failed; others are not touched.
            EngineDead: the engine stopped; it will not score again.
        """

    @property
    def alive(self) -> bool:
        """False once it has stopped for good; asks nobody, so that it can be looked at often."""

    def kill(self) -> None:
        """End its processes at once, whatever they do, and fail what is in it with EngineDead.

        Called on the event loop; ``close`` still cleans up.
        """

    async def close(self) -> None:
        """Stop the engine and its processes. May be called before, during and after ``load``."""
