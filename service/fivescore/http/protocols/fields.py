"""Parts of bodies and answers that several protocols share."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from fivescore import content
from fivescore.content import Unscored
from fivescore.errors import InvalidPair, InvalidRequest
from fivescore.http.protocols.protocol import Context
from fivescore.http.schema import COUNT, NUMBER, STRING, Schema, either, list_of, obj
from fivescore.model import roles
from fivescore.model.conversation import NO_CALLS
from fivescore.types import MOST_TURNS, ROLES, Pair, Score, parse_pair

TEXTS = either(STRING, list_of(STRING))
TOKEN_IDS = list_of({"type": "integer", "minimum": 0, "exclusiveMaximum": 2**31}, 1)
INPUTS = either(STRING, list_of(STRING), TOKEN_IDS, list_of(TOKEN_IDS))
ROLE: Schema = {"type": "string", "enum": list(ROLES)}
CONTENT = either(STRING, list_of(obj(("text",), text=STRING), 1))
CALLS = list_of(
    obj(
        ("function",),
        id=STRING,
        type={"type": "string", "enum": ["function"]},
        function=obj(("name",), name={**STRING, "minLength": 1},
                     arguments=either(STRING, {"type": "object"})),
    )
)  # fmt: skip
MESSAGES = list_of(
    obj(("role",), role=ROLE, content=CONTENT, tool_calls=CALLS, tool_call_id=STRING, name=STRING),
    1,
)
USAGE = obj(("total_tokens",), prompt_tokens=COUNT, total_tokens=COUNT)
VECTOR = list_of(NUMBER, 1)


def malformed(field: str, detail: str) -> InvalidRequest:
    """The error of one field of the body."""
    return InvalidRequest(f"{field}: {detail}", [{"field": field, "detail": detail}])


def members(
    body: Any,
    *required: str,
    read: Collection[str] = (),
    refused: Collection[str] = content.OF_REQUESTS,
    place: str = "",
) -> dict[str, Any]:
    """The body, once it is an object with the ``required`` members, none of them null.

    Args:
        read: members that this route takes though others may not.
        refused: members that would not be scored if they held something.
        place: what stands before a member's name in errors.

    Raises:
        InvalidRequest: the body is not an object, lacks a member, or has one that would not be
            scored.
    """
    if not isinstance(body, dict):
        raise InvalidRequest("the body must be a JSON object")
    for name in required:
        if body.get(name) is None:
            raise malformed(f"{place}{name}", "is missing")
    if (extra := content.unscored(body, refused, read)) is not None:
        raise malformed(f"{place}{extra}", content.advice(extra))
    return body


def one_of(body: dict[str, Any], names: Sequence[str]) -> str | None:
    """The only one of ``names`` that the body has; None without one.

    Raises:
        InvalidRequest: it has several, of which only one would be scored.
    """
    given = [name for name in names if body.get(name) is not None]
    if len(given) > 1:
        raise malformed(given[1], f"stands beside {given[0]}: send one of them")
    return given[0] if given else None


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


def dialogue(messages: Any, field: str, context: Context) -> Pair | InvalidPair:
    """The pair of a conversation: its last message, the assistant's, is the response.

    Raises:
        InvalidRequest: ``messages`` is not a list of messages, or ends with another role.
    """
    turns = prompt_turns(messages, field, context)
    if not turns or turns[-1]["role"] != "assistant":
        raise malformed(
            field, "the last message must be the assistant's: it is the response that is scored"
        )
    return parse_pair({"prompt": turns[:-1], "response": turns[-1]})


def prompt_turns(messages: Any, field: str, context: Context) -> list[dict[str, Any]]:
    """Messages reduced to what the model reads: clients add ids, times and more.

    Raises:
        InvalidRequest: ``messages`` is not a list of messages in roles that the model knows, or one
            of them holds more that would not be scored.
    """
    if not isinstance(messages, list) or not all(isinstance(turn, dict) for turn in messages):
        raise malformed(field, "must be a list of messages with role and content")
    check_turns(messages, field)
    return [turn_of(turn, f"{field}.{i}", context) for i, turn in enumerate(messages)]


def check_turns(turns: list[Any], field: str) -> None:
    """Check the number of messages before each is looked at.

    Raises:
        InvalidRequest: they are more than ``MOST_TURNS``.
    """
    if len(turns) > MOST_TURNS:
        raise malformed(
            field, f"has {len(turns)} messages, the limit is {MOST_TURNS}: leave the oldest out"
        )


def turn_of(turn: dict[str, Any], field: str, context: Context) -> dict[str, Any]:
    """A message reduced to what the model reads: role, text, tool calls, and whose result it is.

    Raises:
        InvalidRequest: its role is unknown to the model, or it holds more that would not be scored.
    """
    role, conversation = turn.get("role"), context.model.conversation
    if role not in ROLES:
        raise malformed(f"{field}.role", f"must be one of {', '.join(conversation.roles)}")
    known = roles.as_known_role(role, conversation.roles)
    if known not in conversation.roles:
        raise malformed(f"{field}.role", roles.unknown(known, conversation.roles))
    with _named(field):
        read = content.turn_of(turn)
    if content.CALLS in read and not conversation.takes_calls:
        raise malformed(f"{field}.{content.CALLS}", NO_CALLS)
    return {**read, "role": known}


def message_text(message: dict[str, Any], field: str) -> str:
    """The text of a message that holds nothing else.

    Raises:
        InvalidRequest: it has no text, or holds more, such as tool calls or an image.
    """
    with _named(field):
        return content.message_text(message)


def text_of(value: Any, field: str) -> str:
    """The text of a content, which is a text or a list of text parts.

    Raises:
        InvalidRequest: the content is missing, or holds something else, such as an image.
    """
    with _named(field):
        return content.text_of(value)


def response_of(value: Any, field: str) -> str:
    """The text of a response that stands alone, not in a message.

    Raises:
        InvalidRequest: as for ``text_of``, or the value is several responses.
    """
    with _named(field):
        return content.response_of(value)


def part_of(part: Any, field: str) -> str:
    """The text of one part of a content.

    Raises:
        InvalidRequest: it is not a text.
    """
    with _named(field):
        return content.part_of(part)


@contextmanager
def _named(field: str) -> Iterator[None]:
    try:
        yield
    except Unscored as error:
        raise malformed(".".join(filter(None, (field, error.place))), error.detail) from error


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
