"""Parts of bodies and answers that several protocols share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.http.protocols.protocol import Context
from fivescore.http.schema import COUNT, NUMBER, STRING, Schema, either, list_of, obj
from fivescore.types import Pair, Score, parse_pair

ROLES = ("system", "user", "assistant")
DEVELOPER = "developer"
"""OpenAI's newer name for the system role; chat templates know only the older one."""

TEXTS = either(STRING, list_of(STRING))
TOKEN_IDS = list_of({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}, 1)
INPUTS = either(STRING, list_of(STRING), TOKEN_IDS, list_of(TOKEN_IDS))
ROLE: Schema = {"type": "string", "enum": [*ROLES, DEVELOPER]}
CONTENT = either(STRING, list_of(obj(("text",), text=STRING)), {"type": "null"})
MESSAGES = list_of(obj(("role",), role=ROLE, content=CONTENT), 1)
USAGE = obj(("total_tokens",), prompt_tokens=COUNT, total_tokens=COUNT)
VECTOR = list_of(NUMBER, 1)


def malformed(field: str, detail: str) -> InvalidRequest:
    """The error of one field of the body."""
    return InvalidRequest(f"{field}: {detail}", [{"field": field, "detail": detail}])


def members(body: Any, *required: str) -> dict[str, Any]:
    """The body, once it is an object with the ``required`` members, none of them null.

    Raises:
        InvalidRequest: the body is not an object, or lacks a member.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    for name in required:
        if body.get(name) is None:
            raise malformed(name, "is missing")
    return body


def inputs(value: Any, field: str) -> list[Pair | InvalidPair]:
    """Pairs of rendered texts or token ids: one text, one list of ids, or a list of either.

    Raises:
        InvalidRequest: ``value`` is none of these.
    """
    if isinstance(value, str):
        return [parse_pair({"text": value})]
    if not isinstance(value, list):
        raise malformed(field, "must be a text, a list of texts, token ids, or a list of those")
    if value and all(isinstance(item, int) for item in value):
        return [parse_pair({"token_ids": value})]
    return [parse_pair({"text" if isinstance(item, str) else "token_ids": item}) for item in value]


def dialogue(messages: Any, field: str) -> Pair | InvalidPair:
    """The pair of a conversation: its last message, the assistant's, is the response.

    Raises:
        InvalidRequest: ``messages`` is not a list of messages, or ends with another role.
    """
    turns = prompt_turns(messages, field)
    if not turns or turns[-1]["role"] != "assistant":
        raise malformed(
            field, "the last message must be the assistant's: it is the response that is scored"
        )
    return parse_pair({"prompt": turns[:-1], "response": turns[-1]["content"]})


def prompt_turns(messages: Any, field: str) -> list[dict[str, Any]]:
    """Messages reduced to role and text: clients add names, ids and more.

    Raises:
        InvalidRequest: ``messages`` is not a list of messages of text.
    """
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise malformed(field, "must be a list of messages with role and content")
    return [_turn(turn, f"{field}.{i}") for i, turn in enumerate(messages)]


def _turn(turn: dict[str, Any], field: str) -> dict[str, str]:
    role = turn.get("role")
    if role == DEVELOPER:
        role = "system"
    if role not in ROLES:
        raise malformed(f"{field}.role", f"must be one of {', '.join(ROLES)}")
    return {"role": role, "content": text_of(turn.get("content"), f"{field}.content")}


def text_of(content: Any, field: str) -> str:
    """The text of a message's content, which is a text, a list of text parts, or null.

    Raises:
        InvalidRequest: the content holds something else, such as an image.
    """
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        raise malformed(field, "must be a text or a list of text parts")
    texts = []
    for i, part in enumerate(content):
        text = part.get("text") if isinstance(part, dict) else part
        if not isinstance(text, str):
            raise malformed(f"{field}.{i}", "is not a text: this service scores only text")
        texts.append(text)
    return "".join(texts)


def texts(value: Any, field: str) -> list[str]:
    """A text or a list of texts, as a list.

    Raises:
        InvalidRequest: ``value`` is neither.
    """
    items = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise malformed(field, "must be a text or a list of texts")
    return items


def vector(score: Score, context: Context) -> list[float]:
    """The reward, which is always last, after the attributes if ``--vector`` asks for them."""
    if context.settings.vector == "attributes":
        return [*score.attributes.values(), score.reward]
    return [score.reward]


def usage(scores: Sequence[Score]) -> dict[str, Any]:
    """The request's tokens, in OpenAI's form."""
    tokens = sum(score.tokens for score in scores)
    cached = sum(score.cached_tokens for score in scores)
    return {
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "total_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
