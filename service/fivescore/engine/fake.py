"""A deterministic engine without a model, for tests and for trying the service without vLLM.

``--backend fake`` selects it, and ``--engine.NAME VALUE`` sets its options.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import time
from array import array
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from fivescore.errors import ConfigurationError, EngineDead, EngineError
from fivescore.types import ModelInfo, Output

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class FakeOptions(BaseModel):
    """The engine's latency and faults. Counts are numbers of sequences; 0 means never."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    outputs: Annotated[int, Field(ge=1)] | None = None
    """Number of head outputs; None takes the manifest's, where its head is not linear, else the
    number of labels in the checkpoint's config.json."""
    load_seconds: Seconds = 0.0
    stuck_load_seconds: Seconds = 0.0
    """How long a thread that nothing can stop is at work while it loads."""
    stuck_close_seconds: Seconds = 0.0
    """The same while it closes."""
    load_error: str = ""
    """The detail of the error with which loading fails; empty: it does not fail."""
    latency_seconds: Seconds = 0.0
    fail_every: Annotated[int, Field(ge=0)] = 0
    """Every n-th sequence fails, without effect on others."""
    nan_every: Annotated[int, Field(ge=0)] = 0
    """Every n-th sequence has NaN outputs."""
    hang_after: Annotated[int, Field(ge=0)] = 0
    """The n-th sequence and later ones are not answered until the engine is killed."""
    poison: Annotated[int, Field(ge=0)] = 0
    """A token id; the engine dies of every sequence that contains it."""
    die_after: Annotated[int, Field(ge=0)] = 0
    """The engine dies at the n-th sequence."""
    ranks: Annotated[int, Field(ge=1)] = 1
    """Copies of the model in data parallel."""
    hang_rank: int = -1
    """The rank that answers nothing until the engine is killed."""


class FakeEngine:
    """Answers with a hash of the token ids, uniform from 0 to 4: equal ids have equal outputs.

    Args:
        outputs: the head's outputs, unless an option says otherwise; None takes them from
            config.json.

    Raises:
        ConfigurationError: an option is unknown or out of range.
    """

    def __init__(self, model: str, options: dict[str, Any], outputs: int | None = None) -> None:
        self._folder = Path(model)
        self._head_outputs = outputs
        names = {name.replace("-", "_"): value for name, value in options.items()}
        try:
            self._options = FakeOptions.model_validate(names)
        except ValidationError as error:
            fault = error.errors()[0]
            name = ".".join(map(str, fault["loc"])).replace("_", "-")
            raise ConfigurationError(
                f"--engine.{name}: {fault['msg']} (the fake engine has the options"
                f" {', '.join(sorted(FakeOptions.model_fields)).replace('_', '-')})"
            ) from error
        self._submitted = 0
        self._outputs = 0
        self._dead = asyncio.Event()

    async def load(self) -> ModelInfo:
        await asyncio.sleep(self._options.load_seconds)
        await asyncio.to_thread(time.sleep, self._options.stuck_load_seconds)
        if self._options.load_error:
            raise ConfigurationError(self._options.load_error)
        try:
            config = json.loads((self._folder / "config.json").read_bytes())
        except (OSError, ValueError) as error:
            raise ConfigurationError(f"{self._folder}/config.json: {error}") from error
        declared = self._head_outputs or len(config.get("id2label", (0, 1)))
        self._outputs = self._options.outputs or declared
        return ModelInfo(
            name=str(self._folder),
            outputs=self._outputs,
            max_tokens=config.get("max_position_embeddings", 4096),
            vocab_size=config["vocab_size"],
            dtype="float32",
            device="none",
            engine="fake",
            simulated=True,
            ranks=self._options.ranks,
        )

    async def encode(
        self,
        token_ids: list[int],
        request_id: str,
        trace_headers: Mapping[str, str] | None = None,
        priority: int = 0,
        rank: int = 0,
        prefix: int = 0,
    ) -> Output:
        if self._dead.is_set():
            raise EngineDead("the engine has stopped")
        self._submitted += 1
        number = self._submitted
        await self._work()
        if self._options.poison and self._options.poison in token_ids:
            self._dead.set()
        if rank == self._options.hang_rank or (
            self._options.hang_after and number >= self._options.hang_after
        ):
            await self._dead.wait()
        self._raise_faults(number)
        if _is_nth(number, self._options.nan_every):
            return Output([float("nan")] * self._outputs)
        return Output(_hashed(token_ids, self._outputs))

    async def _work(self) -> None:
        """Wait for the latency, or until the engine is killed."""
        if not self._options.latency_seconds:
            await asyncio.sleep(0)
            return
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._dead.wait(), self._options.latency_seconds)

    def _raise_faults(self, number: int) -> None:
        if self._dead.is_set() or (self._options.die_after and number >= self._options.die_after):
            self._dead.set()
            raise EngineDead("the engine has stopped")
        if _is_nth(number, self._options.fail_every):
            raise EngineError("the fake engine failed on this pair, as --engine.fail-every asks")

    @property
    def alive(self) -> bool:
        return not self._dead.is_set()

    def kill(self) -> None:
        self._dead.set()

    async def close(self) -> None:
        self._dead.set()
        await asyncio.to_thread(time.sleep, self._options.stuck_close_seconds)


def _is_nth(number: int, every: int) -> bool:
    return every > 0 and number % every == 0


def _hashed(token_ids: list[int], outputs: int) -> list[float]:
    data = array("i", token_ids).tobytes()
    return [
        int.from_bytes(hashlib.blake2b(data, digest_size=4, key=b"%d" % i).digest()) / 2**30
        for i in range(outputs)
    ]
