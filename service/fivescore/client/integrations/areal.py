"""AReaL: its RLVR workflow, with the rewards of this service.

::

    trainer.train(workflow="fivescore.client.integrations.areal.RewardWorkflow",
                  workflow_kwargs={"gconfig": ..., "tokenizer": ..., "urls": "http://rm:8000"})

A function given to AReaL as ``reward_fn`` runs in a small pool of processes. AReaL counts 15
seconds from the moment a call waits for the pool, tries again three times, and then takes 0 for the
reward, without an error (areal/api/reward_api.py). This workflow asks from its own event loop
instead: samples that arrive together share a request, and a pair that cannot be scored raises its
error. ``with_rewards`` does the same for AReaL's other workflows, in the ``__init__`` of a
subclass: AReaL's controller is given names and arguments, and makes a workflow for each sample.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from fivescore.client.integrations.conversation import Turn
from fivescore.client.integrations.gather import shared_gatherer
from fivescore.client.integrations.policy import Policy
from fivescore.errors import ConfigurationError

Workflow = TypeVar("Workflow")


class _NoAreal:
    """Replaces AReaL's workflow where AReaL is not installed."""

    def __init__(self, tokenizer: Any = None, gconfig: Any = None, **arguments: Any) -> None:
        self.tokenizer, self.gconfig = tokenizer, gconfig


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
        tokenizer: the policy's. AReaL's texts are decoded with special tokens, so that a completion
            ends with those at which the policy stopped, and a prompt is what the template wrote.
        stop_token_ids: those of AReaL's ``gconfig``.
        urls, weights, truncate: as ``RewardClient`` and its ``score`` take them.
    """

    def __init__(
        self,
        tokenizer: Any,
        urls: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        truncate: str = "prompt_start",
        stop_token_ids: Iterable[int] = (),
    ) -> None:
        self._policy = Policy(tokenizer, stop_token_ids)
        # AReaL's controller makes a workflow for each sample.
        self._gatherer = shared_gatherer(urls, weights, truncate)

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
            prompt: the prompt in the policy's template, which is taken apart into messages where
                the data set has none.
            completions: the text of one completion, of which the ending is cut off.
            messages: the data set's column from which AReaL rendered the prompt.

        Raises:
            FivescoreError: the pair could not be scored, or holds more than text.
        """
        if messages is None:
            one = self._policy.rendered_pair(prompt, completions, columns)
        else:
            one = self._policy.pair(messages, completions, columns)
        return (await self._gatherer.score(one)).reward


def with_rewards(workflow: Workflow, **options: Any) -> Workflow:
    """The workflow, of AReaL's own, with ``Reward(**options)`` in the place of its function.

    Raises:
        ConfigurationError: neither the workflow nor the options have the policy's tokenizer.
    """
    tokenizer = options.pop("tokenizer", None) or getattr(workflow, "tokenizer", None)
    if tokenizer is None:
        raise ConfigurationError(
            f"{type(workflow).__name__} has no tokenizer, which says how the policy's completions"
            " end: give it, as in with_rewards(workflow, tokenizer=...)"
        )
    stops = getattr(getattr(workflow, "gconfig", None), "stop_token_ids", None) or ()
    options.setdefault("stop_token_ids", stops)
    workflow.async_reward_fn = Reward(tokenizer, **options)  # type: ignore[attr-defined]  # AReaL's attribute
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
        self.async_reward_fn: Reward
        with_rewards(self, urls=urls, weights=weights, truncate=truncate)


def _never(*_: Any, **__: Any) -> float:
    raise AssertionError("rewards are asked for outside the pool")
