"""slime's rollout, with settings for its rewards."""

from __future__ import annotations

import json
import tempfile
from argparse import Namespace
from functools import cache
from pathlib import Path
from typing import Any

import given_generations
import serving

from absent import absent
from driver import Job, Rewards

absent("ray")  # for its training

from slime.rollout.data_source import RolloutDataSourceWithBuffer
from slime.rollout.sglang_rollout import GenerateState, generate_rollout
from slime.utils.http_utils import init_http_client
from transformers import AutoTokenizer

MOST_TOKENS = 1_000_000
"""Of a response; none is cut."""


def rewards(job: Job, **settings: Any) -> Rewards:
    """The rewards of a rollout, as slime's training reads them.

    Args:
        settings: options of slime's command line.
    """
    prompts = {json.dumps(one["messages"]): one["messages"] for one in job.samples}
    with tempfile.TemporaryDirectory() as folder:
        rows = Path(folder, "prompts.jsonl")
        rows.write_text("".join(json.dumps({"messages": one}) + "\n" for one in prompts.values()))
        router = _router(job.policy)
        router.give(job.samples)
        args = _arguments(job, router, rows, len(prompts))
        vars(args).update(settings)
        init_http_client(args)
        GenerateState.clear_instances()  # each job is a run
        groups = generate_rollout(args, 0, RolloutDataSourceWithBuffer(args)).samples
    found = {
        prompt: iter(sorted(group, key=lambda one: one.index))
        for prompt, group in zip(prompts, groups, strict=True)
    }
    return [next(found[json.dumps(one["messages"])]).get_reward_value(args) for one in job.samples]


@cache
def _router(policy: str) -> given_generations.Router:
    router = given_generations.Router(AutoTokenizer.from_pretrained(policy))
    serving.start(router)
    return router


def _arguments(job: Job, router: given_generations.Router, rows: Path, prompts: int) -> Namespace:
    """slime's command line, as far as its rollout reads it."""
    return Namespace(
        hf_checkpoint=job.policy,
        prompt_data=str(rows),
        input_key="messages",
        label_key=None,
        tool_key=None,
        metadata_key="metadata",
        multimodal_keys=None,
        apply_chat_template=True,
        apply_chat_template_kwargs={},
        rollout_global_dataset=True,
        rollout_shuffle=False,
        rollout_seed=0,
        rollout_batch_size=prompts,
        over_sampling_batch_size=prompts,
        n_samples_per_prompt=len(job.samples) // prompts,
        rollout_max_prompt_len=None,
        rollout_max_response_len=MOST_TOKENS,
        rollout_temperature=1.0,
        rollout_top_p=1.0,
        rollout_top_k=-1,
        rollout_stop=None,
        rollout_stop_token_ids=None,
        rollout_skip_special_tokens=False,
        rollout_num_engines=1,
        sglang_router_ip="127.0.0.1",
        sglang_router_port=router.server_port,
        sglang_server_concurrency=512,
        sglang_dp_size=1,
        sglang_enable_deterministic_inference=True,
        use_distributed_post=False,
        use_rollout_routing_replay=False,
        partial_rollout=False,
        mask_offpolicy_in_partial_rollout=False,
        custom_generate_function_path=None,
        custom_rm_path=None,
        rm_type=None,
        group_rm=False,
        reward_key=None,
        eval_reward_key=None,
        dynamic_sampling_filter_path=None,
        buffer_filter_path=None,
        rollout_sample_filter_path=None,
        rollout_all_samples_process_path=None,
        dump_details=None,
        ci_test=False,
    )
