"""A NeMo-Gym resources server: ``POST /verify`` and ``POST /seed_session``.

NeMo-RL checks that the reward is the sum of its components, so these are the weighted attributes.
The attributes themselves are further members of the answer.
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivescore import content
from fivescore.errors import printable
from fivescore.http.body import json_response
from fivescore.http.protocols.fields import (
    CONTENT,
    ROLE,
    malformed,
    members,
    text_of,
    turn_of,
)
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

_PARAMETERS = "responses_create_params"
_INPUT, _OUTPUT = f"{_PARAMETERS}.input", "response.output"
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
    ),
    held=True,
)  # fmt: skip
def verify(body: Any, context: Context) -> Translated:
    """NeMo-Gym: the body, with `reward`, its `reward_components` and the attributes added.

    The response that is scored is the last message of the output that is the assistant's, a refusal
    too; messages before it are part of the prompt, and what follows it is not read. Reasoning and
    tool calls are refused. An output without an item is scored as an empty response.
    """
    body = members(body, "responses_create_params", "response", refused=content.OF_ROWS)
    created, response = (body[name] for name in ("responses_create_params", "response"))
    for name, value in (("responses_create_params", created), ("response", response)):
        if not isinstance(value, dict):
            raise malformed(name, "must be an object")
    prompt = [*_instructions(created), *_messages(created.get("input"), _INPUT, context)]
    output = _messages(_until_assistant(response.get("output") or []), _OUTPUT, context)
    if output and output[-1]["role"] != "assistant":
        raise malformed(_OUTPUT, "has no message of the assistant, which would be scored")
    said = output.pop()["content"] if output else ""
    pair = parse_pair({"prompt": [*prompt, *output], "response": said})

    def answer(scores: list[Score]) -> dict[str, Any]:
        (score,) = scores
        components = reward_components(score, context.model.manifest)
        rewards = {"reward": score.reward, "reward_components": components}
        return {**body, **score.attributes, "truncated": score.truncated, **rewards}

    return Translated(_OUTPUT, [pair], answer)


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


def _instructions(created: dict[str, Any]) -> list[dict[str, Any]]:
    """The system message, where there is one, of parameters that hold nothing else unscored."""
    refused = content.OF_REQUESTS - {"instructions"} | {"prompt"}  # the name of a stored prompt
    members(created, refused=refused, place=f"{_PARAMETERS}.")
    text = created.get("text")
    if isinstance(text, dict):  # the Responses API's response_format
        members({"response_format": text.get("format")}, place=f"{_PARAMETERS}.text.")
    if not content.carries(created.get("instructions")):
        return []
    instructions = text_of(created["instructions"], f"{_PARAMETERS}.instructions")
    return [{"role": "system", "content": instructions}]


def _until_assistant(items: Any) -> Any:
    """The items up to the last message of the assistant, of which a refusal is the text."""
    if not isinstance(items, list):
        return items
    said = [
        place
        for place, item in enumerate(items)
        if isinstance(item, dict)
        and item.get("role") == "assistant"
        and item.get("type", "message") in ("message", None)
    ]
    return [_with_refusals(item) for item in items[: said[-1] + 1]] if said else items


def _with_refusals(item: Any) -> Any:
    """An item whose parts that are refusals are texts, as the policy wrote them."""
    parts = item.get("content") if isinstance(item, dict) else None
    if not isinstance(parts, list):
        return item
    read = [
        {"type": "output_text", "text": part.get("refusal")}
        if isinstance(part, dict) and part.get("type") == "refusal"
        else part
        for part in parts
    ]
    return {**item, "content": read}


def _messages(items: Any, field: str, context: Context) -> list[dict[str, Any]]:
    """The messages that the items of the Responses API are; a bare text is one of the user."""
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed(field, "must be a text or a list of items")
    turns = []
    for place, item in enumerate(items):
        if _is_message(item, f"{field}.{place}"):
            turns.append(turn_of(item, f"{field}.{place}", context))
    return turns


def _is_message(item: dict[str, Any], field: str) -> bool:
    """Whether an item is a message and not empty reasoning, which some servers always send."""
    kind = item.get("type", "message")
    if kind in ("message", None):
        return True
    nothing = not content.in_message(item) and not content.carries(item.get("content"))
    if kind == "reasoning" and nothing:
        return False
    raise malformed(field, f"is a {printable(str(kind))[:40]}: {content.advice('')}")
