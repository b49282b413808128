"""An engine replica: one whole service without HTTP, which other processes ask for outputs."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence as Several

from fivescore.engine.vllm import entrance
from fivescore.errors import EngineDead, FivescoreError, NoGate
from fivescore.model.checkpoint import check
from fivescore.ray.wire import Answer, Failed, Sequence
from fivescore.scoring.lifecycle import Service
from fivescore.serve import make_engine
from fivescore.settings import load
from fivescore.telemetry import logging as logs
from fivescore.telemetry.metrics import Metrics
from fivescore.types import ModelInfo

SEQUENCES = "sequences"
"""The name under which a replica tells Ray how many it has."""


class EngineReplica:
    """Loads the model of ``FIVESCORE_MODEL``, proves it, and replaces its engine when it dies.

    Raises:
        ConfigurationError: the model cannot be loaded, or gives what its proof does not say.
    """

    async def __init__(self) -> None:  # type: ignore[misc]  # Ray awaits it
        settings = load({})
        logs.configure(settings.log_level, settings.log_format)
        check(settings.model)
        if settings.backend == "vllm":
            entrance.prepare(settings)
        self._vllm = settings.backend == "vllm"
        self._failure: Exception | None = None
        self._sequences = 0
        self._service = Service(settings, make_engine, Metrics(), on_failure=self._fail)
        await self._service.load()

    def _fail(self, error: Exception) -> None:
        self._failure = error

    def describe(self) -> ModelInfo:
        """The model that is loaded."""
        return self._service.model.info

    async def encode(self, sequences: Several[Sequence]) -> list[Answer]:
        """The outputs of sequences, or why they have none, in their order."""
        self._sequences += len(sequences)
        try:
            return await asyncio.gather(*map(self._encode, sequences))
        finally:
            self._sequences -= len(sequences)

    async def _encode(self, sequence: Sequence) -> Answer:
        if self._service.state != "ready":
            return Failed("away", f"the engine is {self._service.state}")
        try:
            return await self._service.encode(*sequence)
        except EngineDead as error:
            return Failed("died", error.detail)
        except NoGate as error:
            return Failed("no_gate", error.detail)
        except FivescoreError as error:
            return Failed("error", error.detail)

    def record_autoscaling_stats(self) -> dict[str, float]:
        """For Ray's autoscaler: the sequences that this replica has."""
        return {SEQUENCES: float(self._sequences)}

    def check_health(self) -> None:
        """For Ray, which replaces a replica that raises.

        Raises:
            Exception: why its engine is lost for good.
        """
        if self._failure is not None:
            raise self._failure

    async def __del__(self) -> None:
        service = getattr(self, "_service", None)
        if service is not None:
            service.drain()
            await service.close()
            if self._vllm:
                await asyncio.to_thread(entrance.end_processes)
