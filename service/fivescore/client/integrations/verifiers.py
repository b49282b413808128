"""verifiers and prime-rl: a judge whose verdict is the reward of a running server.

verifiers imports judges by the name of a module without dots, so one of yours names it::

    # fivescore_judge.py, where Python finds it
    from fivescore.client.integrations.verifiers import FivescoreJudge, __all__

    [[env.taskset.task.judges]]
    id = "fivescore_judge"
    urls = "http://rm:8000"

A pair that cannot be scored raises its error. verifiers records it as the rollout's ``TaskError``:
``trace.rewards`` has None for this judge, and ``trace.ok`` is false.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar

from pydantic import BaseModel

from fivescore.client.integrations.conversation import pair
from fivescore.client.integrations.gather import shared_gatherer

__all__ = ["FivescoreJudge", "FivescoreJudgeConfig"]

Verdict = TypeVar("Verdict")
Config = TypeVar("Config")


class _NoJudgeConfig(BaseModel):
    """Replaces verifiers' config where verifiers is not installed."""

    id: str = ""
    name: str = ""
    weight: float = 1.0


class _NoJudge(Generic[Verdict, Config]):
    """Replaces verifiers' judge where verifiers is not installed."""

    reward_name = "fivescore"

    def __init__(self, config: Config) -> None:
        self.config = config


if TYPE_CHECKING:
    Judge = _NoJudge
    JudgeConfig = _NoJudgeConfig
else:
    try:
        from verifiers.v1 import Judge, JudgeConfig
    except ImportError:
        Judge, JudgeConfig = _NoJudge, _NoJudgeConfig


class FivescoreJudgeConfig(JudgeConfig):
    """What an entry of ``taskset.task.judges`` may set, beside verifiers' ``name`` and ``weight``.

    verifiers' fields for a judge that is a language model, such as ``model``, are not used.
    """

    urls: str | None = None
    """The server's address, or several separated by commas; else that of FIVESCORE_URL."""
    attribute_weights: dict[str, float] | None = None
    """``{attribute: weight}`` of the combined reward, instead of the manifest's."""
    truncate: Literal["never", "prompt_start"] = "prompt_start"
    """``prompt_start`` drops the oldest tokens of a pair that is too long; ``never`` refuses it."""
    view: Literal["conversation", "last_reply"] = "conversation"
    """``conversation`` scores the last message after all others, tool calls among them where the
    model's template renders them, and refuses reasoning. ``last_reply`` scores the text of the last
    reply to the task's prompt alone."""


class FivescoreJudge(Judge[float, FivescoreJudgeConfig]):
    """The combined reward of a rollout; its attributes become metrics of the trace."""

    async def score(self, task: Any, trace: Any) -> float:
        """The reward.

        Args:
            task: verifiers' ``TaskData``.
            trace: verifiers' ``Trace``; ``<judge's name>/<attribute>`` is added to its metrics.

        Raises:
            FivescoreError: the pair could not be scored, or holds more than text.
        """
        of_last_reply = self.config.view == "last_reply"
        one = (
            pair(_prompt(task), trace.last_reply)
            if of_last_reply
            else pair([], _turns(trace.messages))
        )
        config = self.config
        gatherer = shared_gatherer(config.urls, config.attribute_weights, config.truncate)
        score = await gatherer.score(one)
        metrics = {f"{self.reward_name}/{name}": value for name, value in score.attributes.items()}
        trace.record_metrics(metrics)
        return score.reward


def _prompt(task: Any) -> list[dict[str, Any]]:
    system = [{"role": "system", "content": task.system_prompt}] if task.system_prompt else []
    if isinstance(task.prompt, str):
        return [*system, {"role": "user", "content": task.prompt}]
    return [*system, *_turns(task.prompt or [])]


def _turns(messages: Any) -> list[dict[str, Any]]:
    turns = [message.model_dump(exclude_none=True) for message in messages]
    for turn in turns:
        if turn["role"] == "assistant":
            turn.setdefault("content", "")  # verifiers makes None of an empty answer
    return turns
