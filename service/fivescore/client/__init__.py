"""Clients of running fivescore servers, for scripts and trainers.

::

    from fivescore.client import RewardClient

    scores = RewardClient("http://127.0.0.1:8000").score([("What is 1+1?", "1+1=2")])
    scores[0].reward, scores[0].attributes["helpfulness"]

``fivescore.client.integrations`` holds the reward functions that trainers call.
"""

from __future__ import annotations

from fivescore.client.client import AsyncRewardClient, RewardClient
from fivescore.client.errors import BadAnswer, Unreachable
from fivescore.client.frames import scores_to_frame

__all__ = ["AsyncRewardClient", "BadAnswer", "RewardClient", "Unreachable", "scores_to_frame"]
