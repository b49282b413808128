"""Conversations that hold more than roles and texts, such as tool calls, as a template takes them.

A *script* is such a conversation with its texts apart, so that they can be replaced: contents,
names, ids, and every key and value in the arguments of calls. How a template takes calls is found
by rendering some when the model loads.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from fivescore.content import BY_TEMPLATE, CALLS
from fivescore.errors import InvalidPair
from fivescore.messages import Message, ToolCall
from fivescore.model.roles import Render, Turn, rendered_or_empty

MOST_LEAVES, MOST_CALLS, MOST_NESTING = 2**14, 512, 32
"""Texts and calls of a pair, and objects in objects of arguments. Some templates look at all later
turns from each call."""
ID, NAME, KEY, VALUE, RESULT = "zqidentqz", "zqnameqz", "zqkeyqz", "zqvalueqz", "zqresultqz"
"""Texts that no template writes by itself; an id has nine characters, which Mistral's want."""

Kind = Literal["content", "id", "text", "number"]


class CallStyle(NamedTuple):
    """How a template takes an assistant's message with tool calls."""

    as_objects: bool
    """Whether it takes arguments as objects, as transformers' documentation gives them; else as
    JSON text, as OpenAI's API does."""
    any_text: bool
    """Whether it writes arguments that are a text as they are, so that they need not be JSON."""
    without_text: Literal[""] | None
    """The content of a message that has calls alone."""

    def probe(self) -> Turn:
        """An assistant's turn with a call."""
        arguments: Any = {KEY: VALUE}
        return _calling(arguments if self.as_objects else json.dumps(arguments), self.without_text)


def find_style(render: Render) -> CallStyle | None:
    """How the template takes calls; None where it does not write them."""
    as_text = json.dumps({KEY: VALUE})
    for without_text in ("", None):
        any_text = _writes(render, _calling(as_text, without_text), as_text)
        if _writes(render, _calling({KEY: VALUE}, without_text)):
            return CallStyle(True, any_text, without_text)
        if any_text:
            return CallStyle(False, True, without_text)
    return None


def _calling(arguments: Any, content: str | None) -> Turn:
    call = {"id": ID, "type": "function", "function": {"name": NAME, "arguments": arguments}}
    return {"role": "assistant", "content": content, CALLS: [call]}


def _writes(render: Render, calling: Turn, as_text: str = "") -> bool:
    """Whether the name, the key and the value of a call are written, between turns or last.

    Nor is a missing text written as ``None``.
    """
    user: Turn = {"role": "user", "content": "x"}
    result: Turn = {"role": "tool", "content": RESULT, "tool_call_id": ID, "name": NAME}
    for after in ([result, {"role": "assistant", "content": "x"}], [result], []):
        written = rendered_or_empty(render, [user, calling, *after])
        if all(text in written for text in (NAME, KEY, VALUE, as_text)):
            return calling["content"] is not None or "none" not in written
    return False


class Leaf(NamedTuple):
    """A text of a script."""

    text: str
    kind: Kind
    turn: int
    place: str
    """Where in its turn, such as ``tool_calls.0.function.name``."""


class _Slot(NamedTuple):
    leaf: int
    read: Callable[[str], Any]


class _Object(NamedTuple):
    members: list[tuple[Any, Any]]


class Script:
    """A conversation whose texts, the ``leaves``, can be replaced.

    Args:
        style: how the template takes calls.
        fields: the fields of messages beside their texts that the template may look at.

    Raises:
        InvalidPair: the arguments of a call are not what the template takes, or pass a limit.
    """

    def __init__(
        self, messages: Sequence[Message], style: CallStyle | None, fields: Iterable[str]
    ) -> None:
        self.roles = [message.role for message in messages]
        self.leaves: list[Leaf] = []
        self._style, self._fields = style, BY_TEMPLATE.intersection(fields)
        calls = sum(len(message.tool_calls or ()) for message in messages)
        if calls > MOST_CALLS:
            raise InvalidPair(f"the pair has {calls} tool calls, the limit is {MOST_CALLS}")
        self._turns = [self._turn(turn, message) for turn, message in enumerate(messages)]

    @property
    def texts(self) -> list[str]:
        """The texts of the leaves."""
        return [leaf.text for leaf in self.leaves]

    def turns(self, texts: Sequence[str]) -> list[Turn]:
        """The conversation as a template takes it, with these texts for the leaves."""
        return [_filled(turn, texts) for turn in self._turns]

    def where(self, leaf: Leaf) -> str:
        """The leaf's place for people."""
        return f"{leaf.place} of turn {leaf.turn + 1} ({self.roles[leaf.turn]})"

    def _turn(self, turn: int, message: Message) -> _Object:
        members: list[tuple[Any, Any]] = [("role", message.role)]
        if message.tool_calls and self._style and not message.content:
            members.append(("content", self._style.without_text))
        else:
            members.append(("content", self._leaf(message.content, "content", turn, "content")))
        for name, value in (("name", message.name), ("tool_call_id", message.tool_call_id)):
            if value is not None and name in self._fields:
                members.append((name, self._leaf(value, "id", turn, name)))
        if message.tool_calls:
            calls = [
                self._call(turn, f"{CALLS}.{place}", call)
                for place, call in enumerate(message.tool_calls)
            ]
            members.append((CALLS, calls))
        return _Object(members)

    def _call(self, turn: int, place: str, call: ToolCall) -> _Object:
        function, place = call.function, f"{place}.function"
        name = self._leaf(function.name, "text", turn, f"{place}.name")
        arguments = self._arguments(turn, f"{place}.arguments", function.arguments)
        members: list[tuple[Any, Any]] = [
            ("type", call.type),
            ("function", _Object([("name", name), ("arguments", arguments)])),
        ]
        if call.id is not None:
            members.insert(0, ("id", self._leaf(call.id, "id", turn, CALLS)))
        return _Object(members)

    def _arguments(self, turn: int, place: str, text: str) -> Any:
        style = self._style
        if style is None or not style.as_objects:
            return self._leaf(text, "text", turn, place)
        where = f"{place} of turn {turn + 1} ({self.roles[turn]})"
        try:
            value = json.loads(text or "{}", object_pairs_hook=_unique)
            _check_nesting(value)
        except (ValueError, RecursionError) as error:
            value, reason = None, str(error)[:80]
        else:
            reason = "it is a list or a single value"
        if isinstance(value, dict):
            return self._value(turn, place, value)
        if style.any_text:
            return self._leaf(text, "text", turn, place)
        raise InvalidPair(
            f"{where} must be a JSON object, which alone the chat template takes: {reason}"
        )

    def _value(self, turn: int, place: str, value: Any) -> Any:
        if isinstance(value, Mapping):
            return _Object([
                (self._leaf(key, "text", turn, f"{place}.{key[:40]}"),
                 self._value(turn, f"{place}.{key[:40]}" if len(place) < 200 else place, item))
                for key, item in value.items()
            ])  # fmt: skip
        if isinstance(value, list):
            return [self._value(turn, place, item) for item in value]
        if isinstance(value, str):
            return self._leaf(value, "text", turn, place)
        if isinstance(value, int | float) and not isinstance(value, bool):
            return self._leaf(json.dumps(value), "number", turn, place)
        return value

    def _leaf(self, text: str, kind: Kind, turn: int, place: str) -> _Slot:
        if len(self.leaves) == MOST_LEAVES:
            raise InvalidPair(f"tool_calls: the pair has more than {MOST_LEAVES} names and values")
        leaf = Leaf(text, kind, turn, place)
        if not _is_unicode(text):  # JSON in a text may spell such characters out
            raise InvalidPair(
                f"{self.where(leaf)} has half of a surrogate pair: send valid Unicode"
            )
        self.leaves.append(leaf)
        return _Slot(len(self.leaves) - 1, json.loads if kind == "number" else str)


def _filled(node: Any, texts: Sequence[str]) -> Any:
    if isinstance(node, _Slot):
        return node.read(texts[node.leaf])
    if isinstance(node, _Object):
        return {_filled(key, texts): _filled(value, texts) for key, value in node.members}
    if isinstance(node, list):
        return [_filled(item, texts) for item in node]
    return node


def _unique(members: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(members)
    if len(found) < len(members):
        raise ValueError("a key stands twice in an object")
    return found


def _check_nesting(value: Any) -> None:
    level, depth = [value], 0
    while level:
        if depth > MOST_NESTING:
            raise ValueError(f"objects and lists nest deeper than {MOST_NESTING}")
        inner = [one for one in level if isinstance(one, dict | list)]
        level = [item for one in inner for item in (one.values() if isinstance(one, dict) else one)]
        depth += 1


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
