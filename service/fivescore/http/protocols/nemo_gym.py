"""A NeMo-Gym resources server: ``POST /verify`` and ``POST /seed_session``.

NeMo-RL checks that the reward is the sum of its components, so these are the weighted attributes;
the attributes themselves stand beside them.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivescore.http.body import json_response
from fivescore.http.protocols.shapes import malformed, members, prompt_turns, text_of
from fivescore.http.protocols.surface import Ask, Context, surface
from fivescore.model.manifest import Affine, Manifest
from fivescore.types import Score, parse_pair


@surface(
    {
        "responses_create_params": {"input": [{"role": "user", "content": "Name a prime."}]},
        "response": {
            "output": [
                {
                    "type": "message",
                    "role": "assistant",
                    "content": [{"type": "output_text", "text": "7"}],
                }
            ]
        },
    }
)
def verify(body: Any, context: Context) -> Ask:
    """NeMo-Gym: the body again, with `reward`, its `reward_components` and the attributes.

    What is scored is the last message of the output; reasoning and tool calls are not read. An
    output without a message is scored as an empty response.
    """
    body = members(body, "responses_create_params", "response")
    created, response = (body[name] for name in ("responses_create_params", "response"))
    for name, value in (("responses_create_params", created), ("response", response)):
        if not isinstance(value, dict):
            raise malformed(name, "must be an object")
    prompt = _messages(created.get("input"), "responses_create_params.input")
    if created.get("instructions"):
        instructions = text_of(created["instructions"], "responses_create_params.instructions")
        prompt.insert(0, {"role": "system", "content": instructions})
    said = _messages(response.get("output") or [], "response.output")
    pair = parse_pair({"prompt": prompt, "response": said[-1]["content"] if said else ""})

    def answer(scores: list[Score]) -> dict[str, Any]:
        (score,) = scores
        components = reward_components(score, context.model.manifest)
        told = {"reward": score.reward, "reward_components": components}
        return {**body, **score.attributes, "truncated": score.truncated, **told}

    return Ask("response.output", [pair], answer)


async def seed_session(request: Request) -> Response:
    """NeMo-Gym: a session has no state here, so there is nothing to prepare."""
    return json_response({})


def reward_components(score: Score, manifest: Manifest) -> dict[str, float]:
    """What each attribute adds to the combined reward; a scalar reward is its own component."""
    if isinstance(manifest.reward, Affine):
        return {"reward": score.reward}
    parts = {
        name: weight * score.attributes[name] for name, weight in manifest.reward.weights.items()
    }
    return {**parts, "bias": manifest.reward.bias} if manifest.reward.bias else parts


def _messages(items: Any, field: str) -> list[dict[str, Any]]:
    """The messages among a Responses API's items; a bare text is the user's."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed(field, "must be a text or a list of items")
    messages = [item for item in items if item.get("type", "message") == "message"]
    return prompt_turns(messages, field)
