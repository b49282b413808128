"""TRL's GRPOTrainer and RLOOTrainer: reward functions that score on a running server.

::

    from fivescore.client.integrations.trl import RewardFunction

    GRPOTrainer(reward_funcs=RewardFunction("http://127.0.0.1:8000"), ...)

With GDPO, where every attribute is an objective of its own::

    GRPOTrainer(
        reward_funcs=attribute_functions("http://127.0.0.1:8000"),
        args=GRPOConfig(multi_objective_aggregation="normalize_then_sum",
                        reward_weights=[0.3, 0.74, 0.46, 0.47, -0.33], ...),
        ...,
    )

Axolotl takes functions by dotted names::

    trl:
      reward_funcs: ["fivescore.client.integrations.trl.fivescore"]

Prompts and completions may be plain or conversational. Of a completion with several turns the last
one, the assistant's, is scored, and those before it are part of its prompt. Tool calls and their
results are scored where the model's template renders them. Reasoning or an image makes its pair
fail; a column of tools or images ends the training at once. All functions here can be pickled,
which asynchronous GRPO needs.
"""

from __future__ import annotations

import functools
import hashlib
import json
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, Generic, Literal, TypeVar

from fivescore.client import AsyncRewardClient, RewardClient
from fivescore.client.integrations.conversation import Text, pairs
from fivescore.client.rows import PairLike
from fivescore.types import ATTRIBUTES, Score

KEPT_BATCHES = 16
"""Batches of scores that are kept for the other attribute functions; older ones are dropped."""

OnFailure = Literal["raise", "none"]
Rewards = list[float | None]
LogMetric = Callable[[str, float], None]
LogExtra = Callable[[str, list[Any]], None]


Client = TypeVar("Client", RewardClient, AsyncRewardClient)


class _Function(Generic[Client]):
    """What both functions share: the settings, and the logging of a batch's scores."""

    _client_type: type[Client]

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        weights: dict[str, float] | None = None,
        truncate: Literal["never", "prompt_start"] = "prompt_start",
        attributes_to_log: bool | Sequence[str] = True,
        on_failure: OnFailure = "raise",
        **client_options: Any,
    ) -> None:
        # TRL reads this name for its log.
        self.__name__ = "fivescore"
        self._options: dict[str, Any] = {
            "weights": weights,
            "truncate": truncate,
            "errors": on_failure,
        }
        self._logged = attributes_to_log
        self._client: Client = self._client_type(urls, **client_options)

    def _rewards(
        self,
        scores: Sequence[Score | None],
        log_metric: LogMetric | None,
        log_extra: LogExtra | None,
    ) -> Rewards:
        for name in self._names(scores):
            values = [None if score is None else score.attributes.get(name) for score in scores]
            known = [value for value in values if value is not None]
            if log_metric is not None and known:
                log_metric(f"rm/{name}", sum(known) / len(known))
            if log_extra is not None:
                log_extra(name, values)
        return [None if score is None else score.reward for score in scores]

    def _names(self, scores: Sequence[Score | None]) -> Sequence[str]:
        if not isinstance(self._logged, bool):
            return self._logged
        first = next((score for score in scores if score is not None), None)
        return list(first.attributes) if self._logged and first is not None else []


class RewardFunction(_Function[RewardClient]):
    """The combined reward of each completion.

    Args:
        urls: the server's address or addresses [FIVESCORE_URL, else http://127.0.0.1:8000].
        weights: ``{attribute: weight}`` of the combined reward, instead of the manifest's.
        truncate: ``prompt_start`` drops the oldest tokens of a pair that is too long; ``never``
            makes it fail.
        attributes_to_log: log the mean of each attribute as the metric ``rm/<attribute>`` and its
            values as the completions table's column ``<attribute>``. True for all, or their names.
        on_failure: for a pair that could not be scored, ``raise`` ends the training with its
            error; ``none`` returns None, which TRL leaves out of its statistics.
        client_options: of ``fivescore.client.RewardClient``.
    """

    _client_type = RewardClient

    def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> Rewards:
        """Rewards, shape ``[len(prompts)]``.

        Raises:
            FivescoreError: a pair could not be scored, unless ``on_failure`` is ``none``; the
                service's configuration is wrong.
        """
        scores = self._client.score(pairs(prompts, completions, columns), **self._options)
        return self._rewards(scores, log_metric, log_extra)


class AsyncRewardFunction(_Function[AsyncRewardClient]):
    """``RewardFunction`` with the same arguments, which TRL awaits beside others."""

    _client_type = AsyncRewardClient

    async def __call__(
        self,
        prompts: Sequence[Text],
        completions: Sequence[Text],
        log_metric: LogMetric | None = None,
        log_extra: LogExtra | None = None,
        **columns: Any,
    ) -> Rewards:
        """Rewards, shape ``[len(prompts)]``.

        Raises:
            FivescoreError: a pair could not be scored, unless ``on_failure`` is ``none``; the
                service's configuration is wrong.
        """
        scores = await self._client.score(pairs(prompts, completions, columns), **self._options)
        return self._rewards(scores, log_metric, log_extra)


def fivescore(
    prompts: Sequence[Text],
    completions: Sequence[Text],
    log_metric: LogMetric | None = None,
    log_extra: LogExtra | None = None,
    **columns: Any,
) -> Rewards:
    """``RewardFunction()`` by a dotted name, for trainers that are configured by files.

    FIVESCORE_URL is read at the first call.

    Raises:
        FivescoreError: as for ``RewardFunction``.
    """
    return _from_environment()(prompts, completions, log_metric, log_extra, **columns)


@functools.cache
def _from_environment() -> RewardFunction:
    return RewardFunction()


def attribute_functions(
    urls: str | Sequence[str] | None = None,
    attributes: Sequence[str] | None = None,
    *,
    truncate: Literal["never", "prompt_start"] = "prompt_start",
    on_failure: OnFailure = "raise",
    **client_options: Any,
) -> list[AttributeFunction]:
    """One reward function per attribute, HelpSteer2's five by default, with the attribute's name.

    They share their requests: the first that TRL calls with a batch sends it, the others read the
    same scores.
    """
    client = RewardClient(urls, **client_options)
    shared = _SharedBatches(client, {"truncate": truncate, "errors": on_failure})
    return [AttributeFunction(name, shared) for name in attributes or ATTRIBUTES]


class AttributeFunction:
    """A reward function that returns one attribute of each completion."""

    def __init__(self, attribute: str, shared: _SharedBatches) -> None:
        self.__name__ = attribute
        self._shared = shared

    def __call__(
        self, prompts: Sequence[Text], completions: Sequence[Text], **columns: Any
    ) -> Rewards:
        """Values of the attribute, shape ``[len(prompts)]``.

        Raises:
            FivescoreError: as for ``RewardFunction``.
            KeyError: the model has no such attribute.
        """
        batch = pairs(prompts, completions, columns)
        scores = self._shared.scores(self.__name__, batch)
        return [None if score is None else score.attributes[self.__name__] for score in scores]


class _Batch:
    def __init__(self) -> None:
        self.readers: set[str] = set()
        self.scores: Future[Sequence[Score | None]] = Future()


class _SharedBatches:
    """Scores each batch once for several readers.

    A reader that comes with the same batch a second time has it scored again.
    """

    def __init__(self, client: RewardClient, options: dict[str, Any]) -> None:
        self._client = client
        self._options = options
        self._lock = threading.Lock()
        self._batches: OrderedDict[bytes, _Batch] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {"client": self._client, "options": self._options}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]

    def scores(self, reader: str, pairs: list[PairLike]) -> Sequence[Score | None]:
        key = hashlib.sha256(json.dumps(pairs, default=str).encode()).digest()
        with self._lock:
            batch = self._batches.get(key)
            first = batch is None or reader in batch.readers
            if batch is None or first:
                batch = self._batches[key] = _Batch()
                self._batches.move_to_end(key)
            batch.readers.add(reader)
            while len(self._batches) > KEPT_BATCHES:
                self._batches.popitem(last=False)
        if first:
            self._score(batch, pairs)
        return batch.scores.result()

    def _score(self, batch: _Batch, pairs: list[PairLike]) -> None:
        try:
            batch.scores.set_result(self._client.score(pairs, **self._options))
        except BaseException as error:
            batch.scores.set_exception(error)
            raise
