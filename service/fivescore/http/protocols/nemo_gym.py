"""A NeMo-Gym resources server: ``POST /verify`` and ``POST /seed_session``.

NeMo-RL checks that the reward is the sum of its components, so these are the weighted attributes.
The attributes themselves are further members of the answer.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from fivescore import content
from fivescore.errors import printable
from fivescore.http.body import json_response, json_written
from fivescore.http.protocols.fields import (
    CONTENT,
    ROLE,
    check_turns,
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
from fivescore.http.slices import dumps, written
from fivescore.model.conversation import NO_CALLS
from fivescore.model.manifest import Affine, Manifest
from fivescore.types import Score, parse_pair

_PARAMETERS = "responses_create_params"
_INPUT, _OUTPUT = f"{_PARAMETERS}.input", "response.output"
_ITEMS = either(
    STRING,
    list_of(
        obj(
            (), type=STRING, role=ROLE, content=CONTENT, call_id=STRING, name=STRING,
            arguments=STRING, output=CONTENT,
        )
    ),
)  # fmt: skip
_CALL, _RESULT = "function_call", "function_call_output"
"""Types of the Responses API's items for a call and what it gave."""
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

    The response that is scored is the last turn of the assistant in the output, a refusal too: its
    message, and the function calls beside it. What is before it is part of the prompt, and what
    follows it is not read. Reasoning is refused. An output without an item is scored as an empty
    response.
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
    said = output.pop() if output else ""
    pair = parse_pair({"prompt": [*prompt, *output], "response": said})

    manifest = context.model.manifest
    ours = {*manifest.attributes, "truncated", "reward", "reward_components"}
    echo = written({name: value for name, value in body.items() if name not in ours})

    def answer(scores: list[Score]) -> Response:
        (score,) = scores
        added = {
            **score.attributes,
            "truncated": score.truncated,
            "reward": score.reward,
            "reward_components": reward_components(score, manifest),
        }
        echo[-1:] = b"," + dumps(added)[1:]  # the body holds two members at least
        return json_written(echo)

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
    """The items up to the assistant's last message or call; a message's refusal is its text."""
    if not isinstance(items, list):
        return items
    said = [
        place
        for place, item in enumerate(items)
        if isinstance(item, dict)
        and (
            item.get("type") == _CALL
            or (item.get("role") == "assistant" and item.get("type") in ("message", None))
        )
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
    """The messages that the items of the Responses API are; a bare text is one of the user.

    A function's call belongs to the assistant's turn that it follows.
    """
    if isinstance(items, str):
        return [{"role": "user", "content": items}]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise malformed(field, "must be a text or a list of items")
    check_turns(items, field)
    turns: list[dict[str, Any]] = []
    for place, item in enumerate(items):
        where = f"{field}.{place}"
        if item.get("type") == _CALL:
            if not context.model.conversation.takes_calls:
                raise malformed(where, f"is a {_CALL}: {NO_CALLS}")
            (call,) = turn_of(_calling(item, where), where, context)[content.CALLS]
            if not turns or turns[-1]["role"] != "assistant":
                turns.append({"role": "assistant", "content": ""})
            turns[-1] = {**turns[-1], content.CALLS: [*turns[-1].get(content.CALLS, ()), call]}
        elif item.get("type") == _RESULT:
            turns.append(turn_of(_result(item, where), where, context))
        elif _is_message(item, where):
            turns.append(turn_of(item, where, context))
    return turns


def _calling(item: dict[str, Any], field: str) -> dict[str, Any]:
    """The assistant's message that a function's call is."""
    call = {"id": item.get("call_id"), "type": "function",
            "function": {name: item.get(name) for name in ("name", "arguments")}}  # fmt: skip
    _check_others(item, ("call_id", "name", "arguments"), field)
    if not isinstance(item.get("name"), str):
        raise malformed(f"{field}.name", "is missing: send the function's name")
    return {"role": "assistant", content.CALLS: [call]}


def _result(item: dict[str, Any], field: str) -> dict[str, Any]:
    """The tool's message that the output of a function's call is."""
    _check_others(item, ("call_id", "output"), field)
    said = text_of(item.get("output"), f"{field}.output")
    return {"role": "tool", "content": said, "tool_call_id": item.get("call_id")}


def _check_others(item: dict[str, Any], read: Collection[str], field: str) -> None:
    others = {name: value for name, value in item.items() if name not in read}
    if name := content.in_message(others):
        raise malformed(f"{field}.{name}", content.advice(name))


def _is_message(item: dict[str, Any], field: str) -> bool:
    """Whether an item is a message and not empty reasoning, which some servers always send."""
    kind = item.get("type", "message")
    if kind in ("message", None):
        return True
    nothing = not content.in_message(item) and not content.carries(item.get("content"))
    if kind == "reasoning" and nothing:
        return False
    raise malformed(field, f"is a {printable(str(kind))[:40]}: {content.advice('')}")
