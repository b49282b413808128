"""verl: a custom reward function, and a reward manager that gets the prompt as messages.

The reward manager, for any data set::

    reward.reward_manager.source=importlib
    reward.reward_manager.name=RewardManager
    reward.reward_manager.module.path=pkg://fivescore.client.integrations.verl

The reward function, for data sets with the prompt in ``extra_info`` (``question`` or ``prompt``)::

    reward.custom_reward_function.path=pkg://fivescore.client.integrations.verl
    reward.custom_reward_function.name=compute_score

Both use the servers in FIVESCORE_URL. Both take ``urls``, ``weights`` and ``truncate``, such as
``+reward.custom_reward_function.reward_kwargs.urls=http://rm:8000``. GDPO reads the attributes:
``algorithm.adv_estimator=gdpo algorithm.gdpo_reward_keys=[helpfulness,correctness,coherence]``.

verl calls once per sample. Samples that arrive together share a request, and all requests of a
process share a few connections. A pair that cannot be scored raises its error.

verl's manager ``remote`` takes no asynchronous function: ``compute_score_sync`` is for it. Its
manager ``rate_limited`` makes every ``Exception`` and its own time-out a reward of 0; there
``compute_score`` raises ``RewardFailed``, which is none, and the run ends.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any

from fivescore.client.integrations.conversation import pair
from fivescore.client.integrations.gather import shared_gatherer
from fivescore.client.integrations.policy import Policy
from fivescore.client.rows import PairLike
from fivescore.errors import ConfigurationError, FivescoreError


class _NoVerl:
    """Replaces verl's base class where verl is not installed; ``compute_score`` needs none."""

    def __init__(self, config: Any, tokenizer: Any, compute_score: Any) -> None:
        pass


class _NoRateLimits:
    """Replaces verl's manager, which nothing is an instance of where verl is not installed."""


if TYPE_CHECKING:
    RewardManagerBase = _NoVerl
    RateLimitedRewardManager = _NoRateLimits
else:
    try:
        from verl.experimental.reward_loop.reward_manager import RateLimitedRewardManager
        from verl.experimental.reward_loop.reward_manager.base import RewardManagerBase
    except ImportError:
        RewardManagerBase, RateLimitedRewardManager = _NoVerl, _NoRateLimits

PROMPT_KEYS = ("question", "prompt")
"""Keys of ``extra_info`` that may hold the prompt; verl does not pass it otherwise."""
OPTIONS = frozenset({"urls", "weights", "truncate"})
"""Keys of ``reward_kwargs`` that the reward manager reads."""
MOST_FRAMES = 8
"""Callers among which verl's manager is looked for; it is the second one in verl 0.9.1."""


class RewardFailed(BaseException):
    """Ends a run under ``rate_limited``, which would make an ``Exception`` a reward of 0."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    urls: Any = None,
    weights: Mapping[str, float] | None = None,
    truncate: str = "prompt_start",
    **others: Any,
) -> dict[str, float]:
    """The combined reward as ``score``, and the attributes by name, which become metrics.

    Raises:
        ConfigurationError: ``extra_info`` has no prompt.
        FivescoreError: the pair could not be scored.
        RewardFailed: either of them, or verl's time-out, under the manager ``rate_limited``.
    """
    zeros_errors = _is_rate_limited(inspect.currentframe())
    try:
        one = _pair(data_source, solution_str, extra_info or {})
        return await _score(one, urls=urls, weights=weights, truncate=truncate)
    except FivescoreError as error:
        if zeros_errors:
            raise RewardFailed(f"{error.detail} (rate_limited would make 0 of it)") from error
        raise
    except asyncio.CancelledError as error:
        if zeros_errors:
            raise RewardFailed(
                "no score within reward.timeout (rate_limited would make 0 of it): set it above"
                " 600 seconds, the client's own limit, or use the manager naive"
            ) from error
        raise


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    urls: Any = None,
    weights: Mapping[str, float] | None = None,
    truncate: str = "prompt_start",
    **others: Any,
) -> dict[str, float]:
    """``compute_score`` for the manager ``remote``, whose processes each call it in turn.

    Raises:
        ConfigurationError: ``extra_info`` has no prompt.
        FivescoreError: the pair could not be scored.
        RewardFailed: the manager is ``rate_limited``, whose time-out a thread cannot notice.
    """
    if _is_rate_limited(inspect.currentframe()):
        raise RewardFailed(
            "compute_score_sync is not for the reward manager rate_limited, which makes 0 of"
            " errors: set reward.custom_reward_function.name=compute_score"
        )
    one = _pair(data_source, solution_str, extra_info or {})
    return asyncio.run(_score(one, urls=urls, weights=weights, truncate=truncate))


def _pair(data_source: str, response: str, info: Mapping[str, Any]) -> PairLike:
    prompt = next((info[key] for key in PROMPT_KEYS if info.get(key) is not None), None)
    if prompt is None:
        raise ConfigurationError(
            f"extra_info of {data_source} has neither 'question' nor 'prompt' (it has"
            f" {', '.join(map(str, info)) or 'nothing'}): put the prompt there when you prepare the"
            " data, or use fivescore's RewardManager"
        )
    return pair(prompt, response, info)


def _is_rate_limited(frame: FrameType | None) -> bool:
    """Whether the callers of a function are verl's manager that makes errors rewards of 0.

    verl passes no word of its manager: its ``self`` is among the callers' variables.
    """
    for _ in range(MOST_FRAMES):
        if frame is None:
            return False
        if isinstance(frame.f_locals.get("self"), RateLimitedRewardManager):
            return True
        frame = frame.f_back
    return False


class RewardManager(RewardManagerBase):
    """Scores a sample's response with its ``raw_prompt``, the messages of the data set."""

    def __init__(
        self, config: Any, tokenizer: Any, compute_score: Any = None, **others: Any
    ) -> None:
        super().__init__(config, tokenizer, compute_score)
        self.tokenizer = tokenizer
        self._policy = Policy(tokenizer)
        function = config.reward.get("custom_reward_function") or {}
        arguments = dict(function.get("reward_kwargs") or {})
        self._options = {name: arguments[name] for name in OPTIONS & arguments.keys()}

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward as ``reward_score``, and reward and attributes as ``reward_extra_info``.

        Args:
            data: verl's DataProto of one sample. Of several, such as an agent's sequences, the
                last is scored.

        Raises:
            FivescoreError: the pair could not be scored.
        """
        sample = data[-1:][0]
        ids = sample.batch["responses"]
        length = sample.batch["attention_mask"][-ids.shape[-1] :].sum()
        # Special tokens inside the response are what the policy wrote, and are scored as text.
        response = await asyncio.to_thread(
            self.tokenizer.decode, ids[:length], skip_special_tokens=False
        )
        fields = sample.non_tensor_batch
        one = self._policy.pair(fields["raw_prompt"], response, fields)
        scores = await _score(one, **self._options)
        return {"reward_score": scores["score"], "reward_extra_info": scores}


async def _score(one: PairLike, **options: Any) -> dict[str, float]:
    score = await shared_gatherer(**options).score(one)
    return {"score": score.reward, **score.attributes}
