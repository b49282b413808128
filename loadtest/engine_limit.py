"""vLLM's engine alone in a process that reads requests and writes results as JSON lines.

``async`` is AsyncLLM, which gets all sequences at once, in a process beside the engine's.
``offline`` is ``LLM.encode``. Engine arguments are exactly those that ``fivescore serve`` passes to
AsyncLLM, with the engine options in the third argument, as JSON. Garbage collection is set as in
the server.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any, Protocol

from vllm import LLM, PoolingParams
from vllm.inputs import TokensPrompt
from vllm.inputs.engine import tokens_input
from vllm.v1.engine.async_llm import AsyncLLM

from fivescore.engine.vllm.engine import VllmEngine
from fivescore.engine.vllm.heads import RAW_SCORES
from fivescore.model.checkpoint import Checkpoint
from fivescore.serve import freeze_heap
from fivescore.settings import Settings

Sequences = Sequence[list[int]]
Outputs = list[list[float]]


class Alone(Protocol):
    """An engine that scores token ids."""

    async def all_at_once(self, sequences: Sequences) -> Outputs: ...

    def close(self) -> None: ...


class _Shared(PoolingParams):  # type: ignore[misc]  # vllm is Any to mypy
    """Parameters for all requests, without vLLM's deep copy for each: nothing changes them."""

    def clone(self) -> PoolingParams:
        return self


class Async:
    """AsyncLLM."""

    def __init__(self, engine: VllmEngine) -> None:
        self._engine = AsyncLLM.from_vllm_config(engine.configure())
        self._parameters = _Shared(task=RAW_SCORES.task, use_activation=RAW_SCORES.use_activation)
        self._calls = 0

    async def all_at_once(self, sequences: Sequences) -> Outputs:
        self._calls += 1
        names = (f"{self._calls}-{i}" for i in range(len(sequences)))
        return await asyncio.gather(*map(self._score, sequences, names))

    async def _score(self, token_ids: list[int], name: str) -> list[float]:
        async for answer in self._engine.encode(tokens_input(token_ids), self._parameters, name):
            last = answer
        return last.outputs.data.reshape(-1).tolist()  # type: ignore[no-any-return]

    def close(self) -> None:
        self._engine.shutdown()


class Offline:
    """``LLM.encode``."""

    def __init__(self, engine: VllmEngine) -> None:
        engine.configure()
        self._llm = LLM(**engine_arguments(engine))

    async def all_at_once(self, sequences: Sequences) -> Outputs:
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in sequences]
        answers = self._llm.encode(prompts, RAW_SCORES, use_tqdm=False, pooling_task="classify")
        return [answer.outputs.data.reshape(-1).tolist() for answer in answers]

    def close(self) -> None:
        self._llm.llm_engine.engine_core.shutdown()


def engine_arguments(engine: VllmEngine) -> dict[str, object]:
    """The engine's arguments that differ from vLLM's defaults."""
    arguments = engine.arguments
    defaults = type(arguments)(model=arguments.model)
    names = [field.name for field in dataclasses.fields(arguments)]
    changed = [name for name in names if getattr(arguments, name) != getattr(defaults, name)]
    return {name: getattr(arguments, name) for name in ("model", *changed)}


def _load(kind: str, model: str, options: dict[str, str]) -> Alone:
    limit = Checkpoint(Settings(model=model)).max_tokens
    engine = VllmEngine(model, options, max_tokens=limit)
    alone = Offline(engine) if kind == "offline" else Async(engine)
    freeze_heap()
    return alone


async def _answer(alone: Alone, request: dict[str, Any]) -> dict[str, Any]:
    sequences: Sequences = request["token_ids"]
    at_once: int = request["at_once"]
    parts = [sequences[i : i + at_once] for i in range(0, len(sequences), at_once)]
    outputs: Outputs = []
    latencies = []
    cpu = time.process_time()
    for part in parts:
        began = time.perf_counter()
        outputs += await alone.all_at_once(part)
        latencies.append(time.perf_counter() - began)
    return {
        "seconds": sum(latencies),
        "cpu_seconds": time.process_time() - cpu,
        "latencies": latencies,
        "outputs": outputs,
    }


async def main() -> None:
    kind, model, options = sys.argv[1:]
    alone = _load(kind, model, json.loads(options))
    print(json.dumps({"ready": True}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        print(json.dumps(await _answer(alone, json.loads(line))), flush=True)
    alone.close()


if __name__ == "__main__":
    asyncio.run(main())
