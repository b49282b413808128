"""ms-swift: its GRPOTrainer scores a rollout with the functions of our plugin."""

from __future__ import annotations

import os
from contextlib import nullcontext
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import torch
from accelerate import Accelerator
from swift.infer_engine.protocol import (
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
    RolloutOutput,
    UsageInfo,
)
from swift.rlhf_trainers.grpo_trainer import GRPOTrainer
from swift.utils import import_external_file
from transformers import TrainerState

from driver import Job, Rewards, main

PLUGIN = "import fivescore.client.integrations.ms_swift\n"
"""What docs/trainers.md writes to plugin.py."""
FUNCTIONS = ("fivescore", "fivescore_async")


class Given(GRPOTrainer):
    """Its trainer without a policy: the responses are given."""

    use_fast_infer = use_gym_env = enable_server_multi_turn = False
    async_generate = dynamic_sample = dynamic_num_samples = False
    multi_turn_scheduler = request_config = None

    def __init__(self, responses: list[str]) -> None:
        # Not GRPOTrainer's, which loads a policy.
        self._responses = responses
        self.args = SimpleNamespace(
            ds3_gather_for_generation=False, report_to=[], reward_weights=None
        )
        self.accelerator = Accelerator(cpu=True)
        self.state = TrainerState()
        self.model = self.model_wrapped = torch.nn.Module()
        self.template = SimpleNamespace(
            generate_context=nullcontext,
            template_meta=SimpleNamespace(default_system=None),
            truncation_strategy="left",
        )
        self._prepare_rewards(list(FUNCTIONS))

    def _rollout(self, samples: list[Any], *others: Any, **options: Any) -> list[RolloutOutput]:
        return [_output(response) for response in self._responses]


def _output(response: str) -> RolloutOutput:
    message = ChatMessage(role="assistant", content=response)
    choice = ChatCompletionResponseChoice(0, message, "stop")
    usage = UsageInfo(prompt_tokens=0, completion_tokens=0, total_tokens=0)
    return RolloutOutput(response=ChatCompletionResponse("given", [choice], usage))


def rewards(job: Job) -> Rewards:
    os.environ["FIVESCORE_URL"] = job.url
    trainer = Given([one["response"] for one in job.samples])
    samples = trainer._rollout_samples([{"messages": one["messages"]} for one in job.samples])
    trainer._score_completions(samples)
    values, by_coroutine = trainer._rewards_per_func.T
    torch.testing.assert_close(by_coroutine, values)
    return values.tolist()


with TemporaryDirectory() as folder:
    plugin = Path(folder, "plugin.py")
    plugin.write_text(PLUGIN)
    import_external_file(str(plugin))
    main(version("ms_swift"), rewards)
