"""NeMo-Gym: it starts its servers and collects rollouts, as ``gym eval run`` does."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
from pathlib import Path
from typing import Any

import cluster
import given_completions
import gym_servers
import ray
import serving

from driver import Job, Rewards, commit, main


def started(url: str, policy_url: str) -> RunHelper:
    """NeMo-Gym's servers, with those for the rewards at an address."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    settings = {
        **gym_servers.settings(url, "vllm_model"),
        "policy_base_url": policy_url,
        "policy_api_key": "none",
        "policy_model_name": "given",
        "head_server": {"host": "127.0.0.1", "port": port},
        "ray_head_node_address": ray.get_runtime_context().gcs_address,
    }
    gym = RunHelper()
    gym.start(
        GlobalConfigDictParserConfig(
            initial_global_config_dict=OmegaConf.create(settings), skip_load_from_cli=True
        )
    )
    return gym


def collected(samples: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rollouts, in the order of the samples."""
    rows = [{"responses_create_params": {"input": one["messages"]}} for one in samples]
    Path("rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = RolloutCollectionConfig(
        agent_name=gym_servers.AGENT,
        input_jsonl_fpath="rows.jsonl",
        output_jsonl_fpath="rollouts.jsonl",
        num_repeats_add_seed=True,
    )
    # They come by prompt, and each prompt's in the order of the rows.
    found: dict[str, list[dict[str, Any]]] = {}
    for one in loop.run(RolloutCollectionHelper().run_from_config(settings)):
        prompt = given_completions.key(one["responses_create_params"]["input"])
        found.setdefault(prompt, []).append(one)
    return [found[given_completions.key(one["messages"])].pop(0) for one in samples]


with asyncio.Runner() as loop, gym_servers.folder(), cluster.running(), gym_servers.ended():
    from nemo_gym.cli.env import RunHelper
    from nemo_gym.global_config import GlobalConfigDictParserConfig
    from nemo_gym.rollout_collection import RolloutCollectionConfig, RolloutCollectionHelper
    from omegaconf import OmegaConf

    policy = given_completions.Completions()
    serving.start(policy)

    @functools.cache
    def nemo_gym(url: str) -> RunHelper:
        return started(url, f"{policy.url}/v1")

    def rewards(job: Job) -> Rewards:
        nemo_gym(job.url).poll()
        policy.give(job.samples)
        return [one["reward"] for one in collected(job.samples)]

    main(commit("nemo-gym"), rewards)
