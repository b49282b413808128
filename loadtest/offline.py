"""vLLM's offline engine as a process: questions and answers are JSON lines.

The engine arguments are exactly those that ``fivescore serve`` gives to AsyncLLM.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import time

from vllm import LLM
from vllm.inputs import TokensPrompt

from fivescore.engine.vllm import RAW_SCORES, VllmEngine
from fivescore.scoring.checkpoint import Checkpoint
from fivescore.settings import Settings


def main() -> None:
    model = sys.argv[1]
    engine = VllmEngine(model, {}, max_tokens=Checkpoint(Settings(model=model)).max_tokens)
    engine.configure()
    llm = LLM(**engine_arguments(engine))
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        prompts = [TokensPrompt(prompt_token_ids=ids) for ids in json.loads(line)["token_ids"]]
        started = time.perf_counter()
        llm.encode(prompts, RAW_SCORES, use_tqdm=False, pooling_task="classify")
        print(json.dumps({"seconds": time.perf_counter() - started}), flush=True)


def engine_arguments(engine: VllmEngine) -> dict[str, object]:
    """The engine's arguments that differ from vLLM's defaults."""
    given = engine.arguments
    defaults = type(given)(model=given.model)
    names = [field.name for field in dataclasses.fields(given)]
    changed = [name for name in names if getattr(given, name) != getattr(defaults, name)]
    return {name: getattr(given, name) for name in ("model", *changed)}


if __name__ == "__main__":
    main()
