"""verifiers: episodes of its single-agent environment, whose tasks name the judge."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from pathlib import Path
from tempfile import TemporaryDirectory

from absent import absent
from driver import Job, Rewards, main

absent("prime_sandboxes", "prime_tunnel", "math_verify")

import given_rollouts
from verifiers.v1.clients import EvalClientConfig, ModelContext
from verifiers.v1.env import Episode
from verifiers.v1.utils.loaders import load_environment, resolve_env_config

JUDGE = "fivescore_judge"


async def episodes(job: Job, rows: Path) -> list[Episode]:
    judges = [{"id": JUDGE, "urls": job.url}]
    taskset = {"id": "given_rollouts", "rows": rows, "task": {"judges": judges}}
    agent = {"runtime": {"type": "subprocess"}}
    environment = load_environment(resolve_env_config({"taskset": taskset, "agent": agent}))
    responses = [one["response"] for one in job.samples]
    async with given_rollouts.model(responses) as address, environment.serving():
        context = ModelContext("given", EvalClientConfig(base_url=address))
        slots = [slot for task in environment.taskset for slot in environment.slots(task)]
        return await asyncio.gather(*(environment.run_slot(slot, context) for slot in slots))


def reward(episode: Episode) -> float | None:
    """That of the judge; None of an episode that failed, which prime-rl leaves out."""
    (trace,) = episode.traces
    if not episode.ok:
        assert trace.rewards[JUDGE] is None
        return None
    return trace.rewards[JUDGE].value


def rewards(job: Job) -> Rewards:
    with TemporaryDirectory() as folder:
        rows = Path(folder, "rows.json")
        rows.write_text(json.dumps([one["messages"] for one in job.samples]))
        return [reward(one) for one in asyncio.run(episodes(job, rows))]


main(version("verifiers"), rewards)
