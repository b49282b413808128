"""ROLL: a reward worker for its RLVR pipeline.

::

    rewards:
      fivescore:
        worker_cls: fivescore.client.integrations.roll.RewardWorker
        tag_included: [...]                # ROLL's: the tags of the data that it scores
        model_args: ${actor_train.model_args}
        world_size: 8
        system_envs: {FIVESCORE_URL: "http://rm:8000"}

ROLL calls once for the responses to a prompt, which share a request. The policy's tokenizer takes
the prompt apart into messages, and says how its responses end. Rewards are float32. A pair that
cannot be scored raises its error, which ends the run.

ROLL's own ``RemoteRewardSystemWorker`` cannot do this: it sends prompts without their special
tokens, so that the names of roles are words of the user, makes 0 of a failure, and keeps rewards as
float16, three digits of them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from fivescore.client import RewardClient
from fivescore.client.integrations.policy import Policy
from fivescore.client.rows import PairLike

Method = TypeVar("Method", bound=Callable[..., Any])


class _NoRoll:
    """Replaces ROLL's worker where ROLL is not installed."""

    def __init__(self, worker_config: Any) -> None:
        self.worker_config = worker_config

    def initialize(self, pipeline_config: Any) -> None:
        """Keep the pipeline's configuration."""


def _unbound(**_: Any) -> Callable[[Method], Method]:
    return lambda method: method


_TO_ALL: dict[str, Any] = {}
_SHARED: dict[str, Any] = {}
if TYPE_CHECKING:
    Worker = _NoRoll
    register = _unbound
else:
    try:
        from roll.distributed.executor.worker import Worker
        from roll.distributed.scheduler.decorator import Dispatch, register
    except ImportError:
        Worker, register = _NoRoll, _unbound
    else:
        # How ROLL's own reward workers are called.
        _TO_ALL["dispatch_mode"] = Dispatch.ONE_TO_ALL
        _SHARED.update(dispatch_mode=Dispatch.DP_MP_COMPUTE, clear_cache=False)


class RewardWorker(Worker):
    """Scores the policy's responses on the servers in FIVESCORE_URL."""

    @register(**_TO_ALL)
    def initialize(self, pipeline_config: Any) -> None:
        """Load the policy's tokenizer, of ``actor_train``.

        Raises:
            ConfigurationError: FIVESCORE_URL names no server.
        """
        from roll.models.model_providers import default_tokenizer_provider

        super().initialize(pipeline_config)
        self._tokenizer = default_tokenizer_provider(pipeline_config.actor_train.model_args)
        self._policy = Policy(self._tokenizer, named="actor_train.model_args.model_name_or_path")
        self._client = RewardClient()

    @register(**_SHARED)
    def compute_rewards(self, data: Any) -> Any:
        """ROLL's ``DataProto`` with the rewards, and the means of the attributes as metrics.

        Args:
            data: a ``DataProto`` of N responses, of any prompts.

        Raises:
            FivescoreError: a pair could not be scored, or holds more than text.
        """
        import torch
        from roll.distributed.scheduler.protocol import DataProto

        scores = self._client.score(list(self._pairs(data)))
        rewards = torch.tensor([score.reward for score in scores], dtype=torch.float32)
        by_token = torch.zeros_like(data.batch["responses"], dtype=torch.float32)
        found = DataProto.from_dict(
            tensors={
                "token_level_rewards": by_token,
                "response_level_rewards": rewards,
                "scores": rewards.clone(),
            }
        )
        means = {
            f"fivescore/{name}": sum(score.attributes[name] for score in scores) / len(scores)
            for name in scores[0].attributes
        }
        found.meta_info = {"metrics": means}
        return found

    def _pairs(self, data: Any) -> Iterator[PairLike]:
        batch, columns = data.batch, data.non_tensor_batch
        masks = zip(batch["prompt_mask"], batch["response_mask"], strict=True)
        for place, (ids, both) in enumerate(zip(batch["input_ids"], masks, strict=True)):
            row = {name: values[place] for name, values in columns.items()}
            prompt, sampled = (
                self._tokenizer.decode(ids[mask.bool()], skip_special_tokens=False) for mask in both
            )
            yield self._policy.rendered_pair(prompt, sampled, row)
