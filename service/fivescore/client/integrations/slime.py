"""slime: a custom reward function, with the attributes beside the reward.

::

    --custom-rm-path fivescore.client.integrations.slime.reward
    --reward-key reward                # optional: rewards become mappings with every attribute
    --group-rm                         # optional: slime calls once per group

The servers are those in FIVESCORE_URL. A module of yours may hold
``reward = Reward(urls=..., weights=...)`` instead.

The policy's tokenizer, ``--hf-checkpoint``, says how its responses end, and takes a prompt that
slime rendered (``--apply-chat-template``) apart into messages. Samples that arrive together share a
request. A pair that cannot be scored raises its error, which ends the run.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Mapping, Sequence
from typing import Any

from fivescore.client import RewardClient
from fivescore.client.integrations.gather import Gatherer
from fivescore.client.integrations.policy import Policy
from fivescore.client.rows import PairLike
from fivescore.errors import ConfigurationError
from fivescore.types import Score

Value = float | dict[str, float]


class Reward:
    """The combined reward of a sample, or of each of a list; awaited by slime.

    Args:
        urls, weights, truncate: as ``RewardClient`` and its ``score`` take them.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        weights: Mapping[str, float] | None = None,
        truncate: str = "prompt_start",
    ) -> None:
        self._urls = urls
        self._options = {"truncate": truncate, **({"weights": dict(weights)} if weights else {})}

    async def __call__(self, args: Any, samples: Any, **others: Any) -> Value | list[Value]:
        """The reward, a number or with ``--reward-key`` a mapping; a list for a list of samples.

        Args:
            args: slime's arguments.
            samples: a ``Sample``, or with ``--group-rm`` a list of them.

        Raises:
            ConfigurationError: slime reads a key that is none of the model's scores, or reads one
                in evaluations alone; the policy's template cannot be taken apart.
            FivescoreError: a pair could not be scored.
        """
        if isinstance(samples, list):
            return list(await asyncio.gather(*(self._reward(args, one) for one in samples)))
        return await self._reward(args, samples)

    async def _reward(self, args: Any, sample: Any) -> Value:
        return _value(args, await self._gatherer.score(_pair(args, sample)))

    @functools.cached_property
    def _gatherer(self) -> Gatherer:
        return Gatherer(RewardClient(self._urls), **self._options)


reward = Reward()
"""For ``--custom-rm-path``, with the servers in FIVESCORE_URL."""


def _value(args: Any, score: Score) -> Value:
    keys = [args.reward_key, getattr(args, "eval_reward_key", None)]
    if not any(keys):
        return score.reward
    values = {"reward": score.reward, **score.attributes}
    if keys[0] is None:
        raise ConfigurationError(
            "--eval-reward-key without --reward-key: evaluations would read a mapping, and training"
            " a number; set both"
        )
    for key in filter(None, keys):
        if key not in values:
            raise ConfigurationError(f"--reward-key {key}: choose one of {', '.join(values)}")
    return values


def _pair(args: Any, sample: Any) -> PairLike:
    policy = _policy(args.hf_checkpoint)
    row = {**(sample.multimodal_inputs or {}), "tools": (sample.metadata or {}).get("tools")}
    if isinstance(sample.prompt, str) and (
        args.apply_chat_template or policy.rendered(sample.prompt)
    ):
        return policy.rendered_pair(sample.prompt, sample.response, row)
    return policy.pair(sample.prompt, sample.response, row)


@functools.cache
def _policy(checkpoint: str) -> Policy:
    from slime.utils.processing_utils import load_tokenizer

    return Policy(load_tokenizer(checkpoint, trust_remote_code=True), named="--hf-checkpoint")
