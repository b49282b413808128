"""tinker-cookbook: a preference model that compares two completions by their rewards.

::

    from functools import partial
    from fivescore.client.integrations.tinker import FivescorePreferenceModel

    PairwisePreferenceRLDatasetBuilder(
        preference_model_builder=partial(FivescorePreferenceModel, "http://rm:8000"), ...
    )

A pair that cannot be scored raises its error, which ends the run.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from fivescore.client import RewardClient
from fivescore.client.integrations.conversation import Turn, pair
from fivescore.client.integrations.gather import Gatherer
from fivescore.errors import ConfigurationError


class _NoTinker:
    """Replaces tinker-cookbook's base class where it is not installed."""


if TYPE_CHECKING:
    PreferenceModel = _NoTinker
else:
    try:
        from tinker_cookbook.preference.types import PreferenceModel
    except ImportError:
        PreferenceModel = _NoTinker


class Comparison(Protocol):
    """What is read of tinker-cookbook's ``Comparison``: lists of messages."""

    prompt_conversation: Sequence[Turn]
    completion_A: Sequence[Turn]  # noqa: N815  # tinker-cookbook's names
    completion_B: Sequence[Turn]  # noqa: N815


class FivescorePreferenceModel(PreferenceModel):
    """Prefers the completion with the greater reward.

    The preference is ``P(B over A) - P(A over B)`` of the Bradley-Terry model (Biometrika 39,
    1952), in which reward models are trained (arXiv 2203.02155, section 3.5):
    ``2 * sigmoid(scale * (b - a)) - 1 = tanh(scale * (b - a) / 2)``.

    Args:
        urls, weights, truncate: as ``RewardClient`` and its ``score`` take them.
        scale: what a difference of rewards is multiplied by, above 0. 1 is for a model that was
            trained with the Bradley-Terry loss; a smaller one keeps large rewards from saturating.

    Raises:
        ConfigurationError: ``scale`` is not above 0.
    """

    def __init__(
        self,
        urls: str | Sequence[str] | None = None,
        *,
        scale: float = 1.0,
        weights: Mapping[str, float] | None = None,
        truncate: str = "prompt_start",
    ) -> None:
        if not (scale > 0 and math.isfinite(scale)):
            raise ConfigurationError(f"scale: {scale} must be a number above 0")
        options = {"weights": dict(weights)} if weights else {}
        self._gatherer = Gatherer(RewardClient(urls), truncate=truncate, **options)
        self._scale = scale

    async def __call__(self, comparison: Comparison) -> float:
        """The preference, from -1 (A) over 0 (equal) to 1 (B).

        Raises:
            FivescoreError: a pair could not be scored, or holds more than text.
        """
        both = (comparison.completion_A, comparison.completion_B)
        pairs = [pair(comparison.prompt_conversation, turns) for turns in both]
        a, b = await asyncio.gather(*map(self._gatherer.score, pairs))
        return math.tanh(self._scale * (b.reward - a.reward) / 2)
