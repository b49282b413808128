"""What tinker-cookbook does with fivescore's preference model, without tinker-cookbook.

FIVESCORE_URL=http://127.0.0.1:8000 python docs/examples/client_tinker.py
"""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

from fivescore.client.integrations.tinker import FivescorePreferenceModel


async def main() -> None:
    comparison = SimpleNamespace(
        prompt_conversation=[{"role": "user", "content": "Name a prime."}],
        completion_A=[{"role": "assistant", "content": "7"}],
        completion_B=[{"role": "assistant", "content": "Eight, I think."}],
    )
    for scale in (1.0, 0.5):
        preference = await FivescorePreferenceModel(scale=scale)(comparison)
        print(f"preference for the second completion, scale {scale}:", preference)


if __name__ == "__main__":
    asyncio.run(main())
