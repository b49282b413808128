"""vLLM as OpenRLHF uses it, with responses that are given instead of sampled."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

from absent import absent

FILE = "responses.json"
"""In the policy's folder: prompts as token ids, each with the token ids of its responses."""


class SamplingParams(SimpleNamespace):
    """What the trainer sets, which changes nothing here."""


class AsyncEngineArgs(SimpleNamespace):
    """What the trainer sets, of which the policy's folder is read."""


class AsyncLLMEngine:
    """Gives the responses of a prompt in turn."""

    def __init__(self, arguments: AsyncEngineArgs) -> None:
        self._file = Path(arguments.model, FILE)
        self._given: Counter[tuple[int, ...]] = Counter()
        self._written = 0
        self._responses: dict[tuple[int, ...], list[list[int]]] = {}
        self.output_processor = SimpleNamespace(get_num_unfinished_requests=lambda: 0)

    @classmethod
    def from_engine_args(cls, arguments: AsyncEngineArgs) -> AsyncLLMEngine:
        return cls(arguments)

    async def is_sleeping(self) -> bool:
        return False

    async def generate(self, prompt: Any, *others: Any, **options: Any) -> AsyncIterator[Any]:
        if (written := self._file.stat().st_mtime_ns) != self._written:
            pairs = json.loads(self._file.read_text())
            self._responses = {tuple(ids): responses for ids, responses in pairs}
            self._written = written
        ids = tuple(prompt["prompt_token_ids"])
        responses = self._responses[ids]
        response = responses[self._given[ids] % len(responses)]
        self._given[ids] += 1
        output = SimpleNamespace(token_ids=response, finish_reason="stop", logprobs=None)
        yield SimpleNamespace(outputs=[output])


def install() -> None:
    """Put it in the place of vLLM, and stand-ins in the place of what needs a GPU."""
    absent("deepspeed", "flash_attn", "torchdata")
    for name, content in {
        "vllm": {
            "__version__": "0.29.0",
            "SamplingParams": SamplingParams,
            "AsyncEngineArgs": AsyncEngineArgs,
            "AsyncLLMEngine": AsyncLLMEngine,
        },
        "vllm.inputs": {"TokensPrompt": dict},
        "vllm.utils": {"random_uuid": lambda: ""},
    }.items():
        module = ModuleType(name)
        vars(module).update(content)
        sys.modules[name] = module
