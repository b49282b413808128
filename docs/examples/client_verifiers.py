"""What verifiers does with fivescore's judge, without verifiers: it scores a finished rollout.

FIVESCORE_URL=http://127.0.0.1:8000 python docs/examples/client_verifiers.py
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from fivescore.client.integrations.verifiers import FivescoreJudge, FivescoreJudgeConfig


async def main() -> None:
    judge = FivescoreJudge(FivescoreJudgeConfig(view="last_reply"))
    task = SimpleNamespace(prompt="Name a prime.", system_prompt=None)
    for reply in ("7", "Eight, I think."):
        trace = SimpleNamespace(last_reply=reply, record_metrics=print)
        print("reward:", await judge.score(task, trace))


if __name__ == "__main__":
    asyncio.run(main())
