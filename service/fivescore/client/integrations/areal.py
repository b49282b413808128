"""AReaL: a reward function for its workflows.

::

    from fivescore.client.integrations.areal import reward_fn

    workflow = RLVRWorkflow(reward_fn=reward_fn, ...)     # with FIVESCORE_URL in the environment

AReaL gives a reward function 15 seconds. It retries a slower one, and after the last try the reward
is 0, without an error. This function raises its own error before that: AReaL retries it, and raises
the error after the last try. So a server that stays unreachable ends the training, and one that is
too slow needs replicas.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

from fivescore.client import RewardClient
from fivescore.client.integrations.conversation import Turn, pair

DEADLINE_SECONDS = 12.0
"""Less than AReaL's 15 seconds (areal/api/reward_api.py, timeout_seconds), to report an error."""
END_TEXTS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<eos>",
    "<end_of_turn>", "<|end|>", "<|return|>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
"""End-of-turn tokens of common policies. AReaL leaves them in the completion's text, where a reward
model would read them as text of the policy."""


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
        prompt: the prompt in the policy's template; used only without ``messages``.
        completions: the text of one completion; the policy's end-of-turn token is removed.
        messages: the data set's column from which AReaL rendered the prompt.

    Raises:
        FivescoreError: the pair could not be scored within ``DEADLINE_SECONDS``, or holds more than
            text.
    """
    completion = _without_end(completions)
    one = pair(prompt if messages is None else messages, completion, columns)
    (score,) = _client().score([one], truncate="prompt_start")
    return score.reward


def _without_end(text: str) -> str:
    while end := next((end for end in END_TEXTS if text.endswith(end)), ""):
        text = text.removesuffix(end)
    return text


@functools.cache
def _client() -> RewardClient:
    return RewardClient(deadline_seconds=DEADLINE_SECONDS)
