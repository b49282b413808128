"""ms-swift: an external plugin with two reward functions, ``fivescore`` and ``fivescore_async``.

::

    echo 'import fivescore.client.integrations.ms_swift' > plugin.py
    FIVESCORE_URL=http://127.0.0.1:8000 swift rlhf --rlhf_type grpo \\
        --external_plugins plugin.py --reward_funcs fivescore ...

Both return the combined reward of each completion and log the means of the attributes. A
conversation's messages after its last user message are the completion; the last one, the
assistant's, is scored, and those before it are part of its prompt. A pair that cannot be scored,
such as one with reasoning or an image, raises its error, which ends the training.

``swift sample --external_plugins plugin.py --orm_model fivescore`` calls the first one; it cannot
await the other. It keeps only responses with a reward above 0, a threshold of its own: where 0
means nothing, register a subclass that adds a constant.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from fivescore.client import AsyncRewardClient, RewardClient
from fivescore.client.integrations.conversation import Turn, pairs
from fivescore.client.rows import PairLike
from fivescore.errors import ConfigurationError
from fivescore.types import Score

log = logging.getLogger(__name__)


class Fivescore:
    """A synchronous reward function (ms-swift's ORM).

    Args:
        args: ms-swift's arguments; not used.
        options: of ``fivescore.client.RewardClient``, for subclasses.
    """

    weights: dict[str, float] | None = None
    """``{attribute: weight}`` of the combined reward, instead of the manifest's, for subclasses."""

    def __init__(self, args: Any = None, **options: Any) -> None:
        self._client = RewardClient(**options)

    def __call__(
        self,
        completions: Sequence[Any],
        messages: Sequence[Sequence[Turn]] | None = None,
        **columns: Any,
    ) -> list[float]:
        """Rewards, shape ``[len(completions)]``.

        Args:
            completions: texts, which ``messages`` hold too; or ms-swift's inference requests, each
                a whole conversation, as ``swift sample`` hands them over.

        Raises:
            ConfigurationError: there are neither messages nor requests.
            FivescoreError: a pair could not be scored.
        """
        batch = _sampled(completions) if messages is None else _pairs(messages, columns)
        return _rewards(self._client.score(batch, weights=self.weights, truncate="prompt_start"))


class AsyncFivescore:
    """An asynchronous reward function (AsyncORM), which ms-swift runs beside its others.

    ms-swift starts a new event loop at every step.

    Takes the arguments of ``Fivescore``.
    """

    weights: dict[str, float] | None = None

    def __init__(self, args: Any = None, **options: Any) -> None:
        self._client = AsyncRewardClient(**options)

    async def __call__(
        self, completions: Sequence[str], messages: Sequence[Sequence[Turn]], **columns: Any
    ) -> list[float]:
        """Rewards, shape ``[len(completions)]``.

        Raises:
            FivescoreError: a pair could not be scored.
        """
        batch = _pairs(messages, columns)
        return _rewards(
            await self._client.score(batch, weights=self.weights, truncate="prompt_start")
        )


def _pairs(messages: Sequence[Sequence[Turn]], columns: Mapping[str, Any]) -> list[PairLike]:
    ends = [_end_of_prompt(turns) for turns in messages]
    prompts = [turns[:end] for turns, end in zip(messages, ends, strict=True)]
    completions = [turns[end:] for turns, end in zip(messages, ends, strict=True)]
    return pairs(prompts, completions, columns)


def _sampled(requests: Sequence[Any]) -> list[PairLike]:
    """The pairs of inference requests, of which tools and images are refused as columns are."""
    fields = [getattr(request, "__dict__", {}) for request in requests]
    if not all("messages" in one for one in fields):
        raise ConfigurationError(
            "messages: missing; ms-swift passes the conversations as messages, or requests that"
            " have them"
        )
    return [_pairs([one["messages"]], {**one, "messages": None})[0] for one in fields]


def _end_of_prompt(turns: Sequence[Turn]) -> int:
    users = [place for place, turn in enumerate(turns) if turn["role"] == "user"]
    return users[-1] + 1 if users else 0


def _rewards(scores: Sequence[Score]) -> list[float]:
    if scores:
        means = {
            name: sum(score.attributes[name] for score in scores) / len(scores)
            for name in scores[0].attributes
        }
        log.info("%s", ", ".join(f"{name} {mean:.3f}" for name, mean in means.items()))
    return [score.reward for score in scores]


with contextlib.suppress(ImportError):  # without ms-swift the classes work, but have no names
    importlib.import_module("swift.rewards").orms.update(
        fivescore=Fivescore, fivescore_async=AsyncFivescore
    )
