"""AReaL: its RLVR workflow, with the rewards of this service.

::

    from fivescore.client.integrations.areal import RewardWorkflow

    workflow = RewardWorkflow(gconfig=..., tokenizer=...)  # with FIVESCORE_URL in the environment
    trainer.train(workflow="fivescore.client.integrations.areal.RewardWorkflow",
                  workflow_kwargs={"gconfig": ..., "tokenizer": ..., "urls": "http://rm:8000"})

A function given to AReaL as ``reward_fn`` runs in a small pool of processes. AReaL counts 15
seconds from the moment a call waits for the pool, tries again three times, and then takes 0 for the
reward, without an error (areal/api/reward_api.py). This workflow asks from its own event loop
instead: samples that arrive together share a request, and a pair that cannot be scored raises its
error. ``with_rewards`` does the same for AReaL's other workflows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fivescore.client import RewardClient
from fivescore.client.integrations.conversation import Turn, pair
from fivescore.client.integrations.gather import Gatherer

Workflow = TypeVar("Workflow")

END_TEXTS = (
    "<|im_end|>", "<|endoftext|>", "<|eot_id|>", "<|end_of_text|>", "</s>", "<eos>",
    "<end_of_turn>", "<|end|>", "<|return|>", "<｜end▁of▁sentence｜>",
)  # fmt: skip
"""End-of-turn tokens of common policies. AReaL leaves them in the completion's text, where a reward
model would read them as text of the policy."""


class _NoAreal:
    """Replaces AReaL's workflow where AReaL is not installed."""

    def __init__(self, **arguments: Any) -> None:
        pass


if TYPE_CHECKING:
    RLVRWorkflow = _NoAreal
else:
    try:
        from areal.workflow.rlvr import RLVRWorkflow
    except ImportError:
        RLVRWorkflow = _NoAreal


class Reward:
    """The combined reward of one completion, awaited; in the place of AReaL's own wrapper.

    Args:
        urls, weights, truncate: as ``RewardClient`` and its ``score`` take them.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        truncate: str = "prompt_start",
    ) -> None:
        options = {"weights": dict(weights)} if weights else {}
        self._gatherer = Gatherer(RewardClient(urls), truncate=truncate, **options)

    async def __call__(
        self,
        prompt: str,
        completions: str,
        prompt_ids: Sequence[int] | None = None,
        completion_ids: Sequence[int] | None = None,
        messages: Sequence[Turn] | None = None,
        **columns: Any,
    ) -> float:
        """Score a completion.

        Args:
            prompt: the prompt in the policy's template; used only without ``messages``.
            completions: the text of one completion; the policy's end-of-turn token is removed.
            messages: the data set's column from which AReaL rendered the prompt.

        Raises:
            FivescoreError: the pair could not be scored, or holds more than text.
        """
        one = pair(prompt if messages is None else messages, _without_end(completions), columns)
        return (await self._gatherer.score(one)).reward


def with_rewards(workflow: Workflow, **options: Any) -> Workflow:
    """The workflow, of AReaL's own, with ``Reward(**options)`` in the place of its function."""
    workflow.async_reward_fn = Reward(**options)  # type: ignore[attr-defined]  # AReaL's attribute
    return workflow


class RewardWorkflow(RLVRWorkflow):
    """AReaL's RLVRWorkflow; takes its arguments, but ``reward_fn``, and those of ``Reward``."""

    def __init__(
        self,
        *,
        urls: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        truncate: str = "prompt_start",
        **arguments: Any,
    ) -> None:
        super().__init__(reward_fn=_never, **arguments)
        self.async_reward_fn = Reward(urls, weights, truncate)


def _never(*_: Any, **__: Any) -> float:
    raise AssertionError("rewards are asked for outside the pool")


def _without_end(text: str) -> str:
    while end := next((end for end in END_TEXTS if text.endswith(end)), ""):
        text = text.removesuffix(end)
    return text
