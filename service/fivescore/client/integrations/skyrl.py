"""SkyRL: an environment of one turn, whose reward is that of a running server.

::

    # where the training is set up, with FIVESCORE_URL in the environment
    from skyrl_gym.envs import register

    register(id="fivescore", entry_point="fivescore.client.integrations.skyrl:FivescoreEnv")

    environment.env_class=fivescore

SkyRL calls ``step`` once per sample, from threads (``environment.skyrl_gym.max_env_workers``).
Samples that arrive while requests run share the next one. A pair that cannot be scored raises its
error, which ends the run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fivescore.client.integrations.conversation import Turn, pair
from fivescore.client.integrations.gather import shared_gatherer
from fivescore.errors import ConfigurationError


class _NoSkyrl:
    """Replaces SkyRL's base class where SkyRL is not installed."""


if TYPE_CHECKING:
    BaseTextEnv = _NoSkyrl
else:
    try:
        from skyrl_gym.envs.base_text_env import BaseTextEnv
    except ImportError:
        BaseTextEnv = _NoSkyrl


class FivescoreEnv(BaseTextEnv):
    """Scores the policy's response to the prompt of the data set, and ends the episode.

    Args:
        env_config: SkyRL's settings of the environment; not used.
        extras: the row's further columns, of which tools and images are refused.
        urls, weights, truncate: as ``RewardClient`` and its ``score`` take them; ``register`` takes
            them as ``kwargs``.
    """

    def __init__(
        self,
        env_config: Any = None,
        extras: Mapping[str, Any] | None = None,
        *,
        urls: str | None = None,
        weights: Mapping[str, float] | None = None,
        truncate: str = "prompt_start",
    ) -> None:
        super().__init__()
        self._gatherer = shared_gatherer(urls, weights, truncate)
        self._row = extras or {}
        self._prompt: Sequence[Turn] | None = None
        self._attributes: dict[str, float] = {}

    def init(self, prompt: Sequence[Turn]) -> tuple[Sequence[Turn], dict[str, Any]]:
        """Begin an episode; returns the prompt as it is."""
        self._prompt = prompt
        return prompt, {}

    def step(self, action: str) -> dict[str, Any]:
        """The combined reward of the policy's response, with the attributes as metadata.

        Raises:
            ConfigurationError: ``init`` was not called.
            FivescoreError: the pair could not be scored, or holds more than text.
        """
        if self._prompt is None:
            raise ConfigurationError("step: call init with the prompt first")
        score = self._gatherer.submit(pair(self._prompt, action, self._row)).result()
        self._attributes = dict(score.attributes)
        return {
            "observations": [],
            "reward": score.reward,
            "done": True,
            "metadata": self._attributes,
        }

    def get_metrics(self) -> dict[str, float]:
        """The attributes, whose means SkyRL logs."""
        return self._attributes
