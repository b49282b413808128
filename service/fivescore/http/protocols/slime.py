"""slime's remote reward model, ``--rm-type remote_rm --rm-url http://host:8000/reward``."""

from __future__ import annotations

from typing import Any

from fivescore.errors import InvalidPair
from fivescore.http.protocols.shapes import members, prompt_turns, text_of
from fivescore.http.protocols.surface import Ask, Context, surface
from fivescore.types import Pair, parse_pair


@surface({"prompt": "Name a prime.", "response": "7", "label": None})
def reward(body: Any, context: Context) -> Ask:
    """slime: one pair to one bare number, the combined reward.

    A prompt is messages, or text: a user's turn, or with `--policy-tokenizer` what slime rendered.
    """
    body = members(body, "prompt", "response")
    response = text_of(body["response"], "response")
    pair = _pair(body["prompt"], response, context)
    return Ask("", [pair], lambda scores: scores[0].reward)


def _pair(prompt: Any, response: str, context: Context) -> Pair | InvalidPair:
    policy = context.model.policy
    if isinstance(prompt, str):
        taken_apart = policy.pair(prompt, response) if policy else None
        if isinstance(taken_apart, Pair):
            return taken_apart
        return parse_pair({"prompt": prompt, "response": response})
    return parse_pair({"prompt": prompt_turns(prompt, "prompt"), "response": response})
