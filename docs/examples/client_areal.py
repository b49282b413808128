"""What AReaL's workflow does with fivescore's rewards, without AReaL: it awaits one a completion.

FIVESCORE_URL=http://127.0.0.1:8000 python docs/examples/client_areal.py
"""

from __future__ import annotations

import asyncio

from fivescore.client.integrations.areal import RewardWorkflow


async def main() -> None:
    workflow = RewardWorkflow()
    columns = {"messages": [{"role": "user", "content": "Name a prime."}], "answer": "7"}
    prompt = "<|im_start|>user\nName a prime.<|im_end|>\n<|im_start|>assistant\n"
    completions = ("7<|im_end|>", "Eight, I think.<|im_end|>")
    rewards = (workflow.async_reward_fn(prompt, text, [1], [3], **columns) for text in completions)
    for reward in await asyncio.gather(*rewards):
        print("reward:", reward)


if __name__ == "__main__":
    asyncio.run(main())
