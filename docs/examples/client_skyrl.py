"""What SkyRL does with fivescore's environment, without SkyRL: one step a sample, from threads.

FIVESCORE_URL=http://127.0.0.1:8000 python docs/examples/client_skyrl.py
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from fivescore.client.integrations.skyrl import FivescoreEnv


def episode(response: str) -> None:
    env = FivescoreEnv(env_config={}, extras={"max_turns": 1})
    env.init([{"role": "user", "content": "Name a prime."}])
    print("reward:", env.step(response)["reward"], env.get_metrics())


with ThreadPoolExecutor(2) as pool:
    list(pool.map(episode, ["7", "Eight, I think."]))
