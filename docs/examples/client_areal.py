"""What AReaL's workflow does with fivescore's rewards, without AReaL: it awaits one a completion.

FIVESCORE_URL=http://127.0.0.1:8000 python docs/examples/client_areal.py
"""

from __future__ import annotations

import asyncio

from transformers import AutoTokenizer

from fivescore.client.integrations.areal import RewardWorkflow
from fivescore.settings import DEMO


async def main() -> None:
    workflow = RewardWorkflow(tokenizer=AutoTokenizer.from_pretrained(DEMO))  # the policy's
    columns = {"messages": [{"role": "user", "content": "Name a prime."}], "answer": "7"}
    prompt = "what the policy's template wrote; messages are scored instead where there are any"
    completions = ("7<|eot_id|>", "Eight, I think.<|eot_id|>")
    rewards = (workflow.async_reward_fn(prompt, text, [1], [3], **columns) for text in completions)
    for reward in await asyncio.gather(*rewards):
        print("reward:", reward)


if __name__ == "__main__":
    asyncio.run(main())
