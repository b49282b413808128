"""AReaL: a reward function for its workflows.

::

    from fivescore.client.integrations.areal import reward_fn

    workflow = RLVRWorkflow(reward_fn=reward_fn, ...)     # with FIVESCORE_URL in the environment

AReaL gives a reward function 15 seconds. One that takes longer is called again, and after the last
time the reward is 0, without an error. So this one raises its own error before: AReaL calls it
again, and raises it after the last time. A server that is away for longer than that ends the
training; one that is too slow for it must get replicas.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from fivescore.client import RewardClient
from fivescore.client.integrations.conversation import Turn, pair

DEADLINE_SECONDS = 12.0
"""AReaL's 15 seconds (areal/api/reward_api.py, timeout_seconds) with time left to report it."""
END_TEXTS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<eos>",
    "<end_of_turn>", "<|end|>", "<|return|>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
"""How policies end their turn. AReaL leaves it in the completion's text, where a reward model would
read it as the policy's words."""


def reward_fn(
    prompt: str,
    completions: str,
    prompt_ids: Sequence[int] | None = None,
    completion_ids: Sequence[int] | None = None,
    messages: Sequence[Turn] | None = None,
    **columns: Any,
) -> float:
    """The combined reward of one completion.

    Args:
        prompt: the prompt in the policy's template; scored only where there are no messages.
        completions: one completion's text; the policy's end of turn is taken off.
        messages: the data set's column that AReaL made the prompt of.

    Raises:
        FivescoreError: the pair could not be scored within ``DEADLINE_SECONDS``.
    """
    score = pair(prompt if messages is None else messages, _without_end(completions))
    (found,) = _client().score([score], truncate="prompt_start")
    return found.reward


def _without_end(text: str) -> str:
    while end := next((end for end in END_TEXTS if text.endswith(end)), ""):
        text = text.removesuffix(end)
    return text


@functools.cache
def _client() -> RewardClient:
    return RewardClient(deadline_seconds=DEADLINE_SECONDS)
