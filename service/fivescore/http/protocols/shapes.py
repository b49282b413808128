"""Shapes that several trainers' routes share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.http.protocols.surface import Context
from fivescore.types import Pair, Score, parse_pair

ROLES = ("system", "user", "assistant")
DEVELOPER = "developer"
"""OpenAI's newer name of the system's role; chat templates know the older one."""


def malformed(field: str, detail: str) -> InvalidRequest:
    """The error of one field."""
    return InvalidRequest(f"{field}: {detail}", [{"field": field, "detail": detail}])


def members(body: Any, *required: str) -> dict[str, Any]:
    """The body as an object that has the ``required`` members, null ones not counted.

    Raises:
        InvalidRequest: it is no object, or lacks one.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    for name in required:
        if body.get(name) is None:
            raise malformed(name, "is missing")
    return body


def inputs(value: Any, field: str) -> list[Pair | InvalidPair]:
    """One text, one list of token ids, or a list of either, each already rendered.

    Raises:
        InvalidRequest: it is none of these.
    """
    if isinstance(value, str):
        return [parse_pair({"text": value})]
    if not isinstance(value, list):
        raise malformed(field, "must be a text, a list of texts, token ids, or a list of those")
    if value and all(isinstance(item, int) for item in value):
        return [parse_pair({"token_ids": value})]
    return [parse_pair({"text" if isinstance(item, str) else "token_ids": item}) for item in value]


def dialogue(messages: Any, field: str) -> Pair | InvalidPair:
    """A conversation whose last message, the assistant's, is the response.

    Raises:
        InvalidRequest: it is not a list of messages, or does not end with the assistant's.
    """
    turns = prompt_turns(messages, field)
    if not turns or turns[-1]["role"] != "assistant":
        raise malformed(field, "the last message must be the assistant's: it is what is scored")
    return parse_pair({"prompt": turns[:-1], "response": turns[-1]["content"]})


def prompt_turns(messages: Any, field: str) -> list[dict[str, Any]]:
    """Messages with their role and text alone: trainers add names, images and ids.

    Raises:
        InvalidRequest: it is not a list of messages.
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
    """The text of a message's content: a text, a list of text parts, or nothing.

    Raises:
        InvalidRequest: it holds something else, such as an image.
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
            raise malformed(f"{field}.{i}", "is not a text: this service scores text alone")
        texts.append(text)
    return "".join(texts)


def texts(value: Any, field: str) -> list[str]:
    """A text or a list of texts, as a list.

    Raises:
        InvalidRequest: it is neither.
    """
    found = value if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in found):
        raise malformed(field, "must be a text or a list of texts")
    return found


def vector(score: Score, context: Context) -> list[float]:
    """The reward, which is always last; the attributes before it where ``--vector`` says so."""
    if context.settings.vector == "attributes":
        return [*score.attributes.values(), score.reward]
    return [score.reward]


def usage(scores: Sequence[Score]) -> dict[str, Any]:
    """Tokens in OpenAI's shape."""
    tokens = sum(score.tokens for score in scores)
    cached = sum(score.cached_tokens for score in scores)
    return {
        "prompt_tokens": tokens,
        "completion_tokens": 0,
        "total_tokens": tokens,
        "prompt_tokens_details": {"cached_tokens": cached},
    }
