"""A NeMo-Gym resources server: ``POST /verify`` and ``POST /seed_session``.

NeMo-RL checks that the reward is the sum of its components, so these are the weighted attributes.
The attributes themselves are further members of the answer.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivescore.http.body import json_response
from fivescore.http.protocols.fields import CONTENT, ROLE, malformed, members, prompt_turns, text_of
from fivescore.http.protocols.protocol import Context, Translated, protocol
from fivescore.http.schema import (
    FLAG,
    NUMBER,
    STRING,
    Description,
    described,
    either,
    list_of,
    obj,
)
from fivescore.model.manifest import Affine, Manifest
from fivescore.types import Score, parse_pair

_ITEMS = either(STRING, list_of(obj((), type=STRING, role=ROLE, content=CONTENT)))
_NUMBERS = {"type": "object", "additionalProperties": NUMBER}
_MESSAGE = {
    "type": "message",
    "role": "assistant",
    "content": [{"type": "output_text", "text": "7"}],
}


@protocol(
    Description(
        body=obj(
            ("responses_create_params", "response"),
            responses_create_params=obj(("input",), input=_ITEMS, instructions=either(STRING)),
            response=obj((), output=_ITEMS),
        ),
        answer=obj(
            ("reward", "reward_components", "truncated"),
            reward=NUMBER, reward_components=_NUMBERS, truncated=FLAG,
        ),
        example={
            "responses_create_params": {"input": [{"role": "user", "content": "Name a prime."}]},
            "response": {"output": [_MESSAGE]},
        },
    )
)  # fmt: skip
def verify(body: Any, context: Context) -> Translated:
    """NeMo-Gym: the body, with `reward`, its `reward_components` and the attributes added.

    The response that is scored is the last message of the output; reasoning and tool calls are not
    read. An output without a message is scored as an empty response.
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
    output = _messages(response.get("output") or [], "response.output")
    pair = parse_pair({"prompt": prompt, "response": output[-1]["content"] if output else ""})

    def answer(scores: list[Score]) -> dict[str, Any]:
        (score,) = scores
        components = reward_components(score, context.model.manifest)
        rewards = {"reward": score.reward, "reward_components": components}
        return {**body, **score.attributes, "truncated": score.truncated, **rewards}

    return Translated("response.output", [pair], answer)


@described(Description(answer={"type": "object"}, body={}, body_required=False))
async def seed_session(request: Request) -> Response:
    """NeMo-Gym: an empty answer; sessions have no state here."""
    return json_response({})


def reward_components(score: Score, manifest: Manifest) -> dict[str, float]:
    """What each attribute adds to the combined reward; a scalar model has ``reward`` alone."""
    if isinstance(manifest.reward, Affine):
        return {"reward": score.reward}
    parts = {
        name: weight * score.attributes[name] for name, weight in manifest.reward.weights.items()
    }
    return {**parts, "bias": manifest.reward.bias} if manifest.reward.bias else parts


def _messages(items: Any, field: str) -> list[dict[str, Any]]:
    """The messages among the items of the Responses API; a bare text is a message of the user."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed(field, "must be a text or a list of items")
    messages = [item for item in items if item.get("type", "message") == "message"]
    return prompt_turns(messages, field)
