"""What messages and requests carry beside the text that is scored.

Only text is rendered for the model. What else a message, a request or a row of data holds for the
model to read, such as tool calls, reasoning or an image, must be refused by whoever reads it: the
score of what is left would be the score of something else.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, TypeVar

Read = TypeVar("Read")

RENDERING = frozenset({
    "chat_template", "chat_template_kwargs", "continue_final_message", "add_generation_prompt",
    "response_format", "reasoning_effort", "enable_thinking", "prefix", "partial",
})  # fmt: skip
"""Fields that change what other services render."""
OTHER_WEIGHTS = frozenset({
    "lora_path", "lora_request", "lora_name", "lora_id", "adapter", "adapter_id", "adapter_name",
})  # fmt: skip
"""Fields that ask other services for another model than the one that they serve."""
OF_ROWS = frozenset({
    "tools", "functions", "documents", "chat_template", "chat_template_kwargs",
    "continue_final_message", "add_generation_prompt",
    "image", "images", "audio", "audios", "video", "videos",
    "image_data", "audio_data", "video_data", "image_url", "image_urls", "pixel_values",
    "audio_url", "audio_urls", "video_url", "video_urls", "input_audio", "input_image", "media",
    "multi_modal_data", "multi_modal_inputs", "multimodal_inputs", "mm_data", "prompt_embeds",
    "input_embeds", "inputs_embeds", "tool_calls", "function_call", "reasoning_content",
})  # fmt: skip
"""Fields of a row, or of a pair, that hold more for the model to read, or change the rendering."""
OF_REQUESTS = (OF_ROWS - {"audio"}) | OTHER_WEIGHTS | {
    "response_format", "reasoning_effort", "reasoning", "thinking", "enable_thinking",
    "instruction", "instructions", "system", "system_prompt", "system_instruction",
    "builtin_tools", "custom_tools", "available_tools", "tool_resources", "files", "file_ids",
    "attachments", "previous_response_id", "conversation", "messages", "history", "chat_history",
}  # fmt: skip
"""Those of a request. Its ``audio`` is how OpenAI's models speak."""
OF_MESSAGES = OF_ROWS | {
    "reasoning", "reasoning_details", "thinking", "thinking_blocks", "thoughts", "refusal",
    "tool_plan", "tool_responses", "tool_results", "prefix", "partial", "files", "attachments",
    "file", "citations",
}  # fmt: skip
"""Fields of a message, each of which is refused with a number in it too."""
WITHOUT_INFLUENCE = frozenset({
    "role", "content", "type", "id", "object", "status", "index", "metadata", "annotations",
    "logprobs", "finish_reason", "stop_reason", "created", "created_at", "timestamp", "date",
    "model", "language", "message_id", "parent_id", "cache_control", "phase",
})  # fmt: skip
"""Fields of a message or a part that are read, or that describe it and no template renders."""
CALLS = "tool_calls"
BY_TEMPLATE = frozenset({"name", "tool_call_id", CALLS})
"""Fields of a message beside its text that chat templates render. Most ignore the first two."""
TEXT_PARTS = frozenset({None, "text", "input_text", "output_text"})
"""Types of the parts of a content that are text (OpenAI's chat completions and responses)."""
ONLY_ASSISTANTS = "only an assistant's message has them: leave them out"
OF_CALLS = frozenset({"id", "type", "index", "function"})
"""Fields of a tool call: those that are read, and the place that streams give it."""
MOST_CALLS = 128
"""Tool calls of one message: OpenAI's limit on the tools of a request."""
MOST_PARTS = 10_000
"""Limit on the text parts of one content."""
MOST_ARGUMENTS, MOST_NAME = 2**20, 256
"""Characters in the arguments of one tool call, and in a function's name or a call's id."""
MOST_DEPTH = 8
"""Objects in objects that are searched for something; anything deeper counts as something."""


class Unscored(ValueError):
    """A value holds something that would not be scored.

    ``place`` is where in the value, such as ``content.1``, and ``detail`` what to do.
    """

    def __init__(self, place: str, detail: str) -> None:
        super().__init__(f"{place}: {detail}" if place else detail)
        self.place, self.detail = place, detail

    @property
    def field(self) -> str:
        """The place without numbers, by which rows of data are counted."""
        names = (part[:40] for part in self.place.split(".") if not part.isdigit())
        return "".join(c if c.isprintable() else "?" for c in ".".join(names))


def advice(name: str) -> str:
    """What is said of a field that carries something and would not be scored."""
    if name in OTHER_WEIGHTS:
        return "would be dropped: the service has one model, without adapters; leave it out"
    if name in RENDERING:
        return "would be dropped: the model's own template renders whole turns; leave it out"
    return "would be dropped: the model reads only texts; write it into one, or leave it out"


def carries(value: Any, depth: int = 0) -> bool:
    """Whether a field's value holds anything: not null, false, or empty.

    An object of such values is empty too, as tables write it: every row has each field there.
    """
    if value is None or value is False:
        return False
    if isinstance(value, Mapping):
        return depth == MOST_DEPTH or any(carries(one, depth + 1) for one in value.values())
    if isinstance(value, str | bytes):
        return bool(value)
    if isinstance(value, Collection):
        return any(one is not None for one in value)
    return True


def unscored(
    fields: Mapping[str, Any], names: Collection[str], read: Collection[str] = ()
) -> str | None:
    """The first of some fields that carries something that would not be scored; None without one.

    Args:
        names: ``OF_REQUESTS`` or ``OF_ROWS``.
        read: fields that the reader takes itself.
    """
    for name, value in fields.items():
        wanted_text = name == "response_format" and value == {"type": "text"}
        if name in names and name not in read and not wanted_text and carries(value):
            return name
    return None


def in_message(message: Mapping[str, Any], ignored: Collection[str] = ()) -> str | None:
    """The first field of a message, or of a part of one, that would not be scored; else None.

    Any text, list or object in a field that is not known to describe the message is something.
    Numbers, such as times, log probabilities and token ids, are not.

    Args:
        ignored: fields that the model's template does not render.
    """
    for name, value in message.items():
        if (
            name in WITHOUT_INFLUENCE
            or name in ignored
            or (name not in OF_MESSAGES and _is_numeric(value))
        ):
            continue
        if carries(value):
            return name
    return None


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return all(isinstance(one, int | float) for one in value)
    return isinstance(value, int | float)


def text_of(content: Any) -> str:
    """The text of a message's content: a text, or a list of text parts, which are joined.

    Raises:
        Unscored: there is no content, or it holds something else, such as an image.
    """
    if isinstance(content, str):
        return content
    if content is None:
        raise Unscored("", "is missing: send a text, which may be empty")
    if not isinstance(content, Sequence) or isinstance(content, bytes):
        raise Unscored("", "must be a text or a list of text parts")
    if not content:
        raise Unscored("", "has no parts: send a text, which may be empty")
    if len(content) > MOST_PARTS:
        raise Unscored("", f"has {len(content)} parts, the limit is {MOST_PARTS}: join them")
    return "".join(_at(str(place), part_of, part) for place, part in enumerate(content))


def response_of(content: Any) -> str:
    """The text of a response that stands alone, not in a message.

    Raises:
        Unscored: as for ``text_of``; or it is a list of strings, which are several responses rather
            than the parts of one.
    """
    several = isinstance(content, Sequence) and not isinstance(content, str)
    if several and any(isinstance(part, str) for part in content):
        raise Unscored("", "must be one text: each response is a pair of its own")
    return text_of(content)


def part_of(part: Any) -> str:
    """The text of one part of a content.

    Raises:
        Unscored: it is not a text, or holds more than one.
    """
    if isinstance(part, str):
        return part
    text = part.get("text") if isinstance(part, Mapping) else None
    if not isinstance(text, str) or not _is_text(part.get("type")):
        raise Unscored("", "is not a text: this service scores only text")
    if name := in_message({key: value for key, value in part.items() if key != "text"}):
        raise Unscored(name, advice(name))
    return text


def _at(place: str, read: Callable[[Any], Read], value: Any) -> Read:
    try:
        return read(value)
    except Unscored as error:
        inner = f"{place}.{error.place}" if error.place else place
        raise Unscored(inner, error.detail) from None


def _is_text(kind: Any) -> bool:
    return kind is None or (isinstance(kind, str) and kind in TEXT_PARTS)


def message_text(message: Mapping[str, Any]) -> str:
    """The text of a message that holds nothing else.

    Raises:
        Unscored: the message has no content, or holds more than text.
    """
    if name := in_message(message):
        raise Unscored(name, advice(name))
    return _at("content", text_of, message.get("content"))


def turn_of(message: Mapping[str, Any]) -> dict[str, Any]:
    """A message reduced to what ``POST /score`` takes: role, text and ``BY_TEMPLATE``.

    Clients add ids, times and more. Whether the model's template renders tool calls is for who
    knows the template.

    Raises:
        Unscored: the message has neither content nor tool calls, or holds something else.
    """
    if name := in_message(message, BY_TEMPLATE):
        raise Unscored(name, advice(name))
    rest = {name: message[name] for name in BY_TEMPLATE & message.keys() if carries(message[name])}
    role, content = message.get("role"), message.get("content")
    if CALLS in rest:
        if role != "assistant":
            raise Unscored(CALLS, ONLY_ASSISTANTS)
        rest[CALLS] = _at(CALLS, tool_calls_of, rest[CALLS])
        content = "" if content is None or content == [] else content
    return {"role": role, "content": _at("content", text_of, content), **rest}


def tool_calls_of(calls: Any) -> list[dict[str, Any]]:
    """Tool calls in OpenAI's form, with arguments as JSON text.

    Hugging Face's form has the arguments as an object, and may have no ``function`` around them and
    the name. Arguments that are a text stay what they are: what the policy wrote.

    Raises:
        Unscored: they are not calls of functions, hold something else, or pass a limit.
    """
    if not isinstance(calls, Sequence) or isinstance(calls, str | bytes):
        raise Unscored("", "must be a list of calls of functions")
    if len(calls) > MOST_CALLS:
        raise Unscored("", f"has {len(calls)} calls, the limit is {MOST_CALLS}: send fewer")
    return [_at(str(place), _call_of, call) for place, call in enumerate(calls)]


def _call_of(call: Any) -> dict[str, Any]:
    if not isinstance(call, Mapping):
        raise Unscored("", "must be an object with a function")
    if call.get("type") not in (None, "function"):
        raise Unscored("type", "must be function: calls of other tools are not scored")
    flat = call.get("function") is None
    function = {key: call[key] for key in call.keys() - OF_CALLS} if flat else call["function"]
    if not flat and (name := in_message({k: call[k] for k in call.keys() - OF_CALLS})):
        raise Unscored(name, advice(name))
    read = function_of(function) if flat else _at("function", function_of, function)
    id_ = call.get("id")
    return {**({} if id_ is None else {"id": id_}), "type": "function", "function": read}


def function_of(function: Any) -> dict[str, str]:
    """The name and the arguments, as JSON text, of a function's call.

    Raises:
        Unscored: it has no name, holds something else, or passes a limit.
    """
    if not isinstance(function, Mapping):
        raise Unscored("", "must be an object with name and arguments")
    if not isinstance(function.get("name"), str):
        raise Unscored("name", "is missing: send the function's name")
    others = {key: function[key] for key in function.keys() - {"name", "arguments"}}
    if name := in_message(others):
        raise Unscored(name, advice(name))
    arguments = _at("arguments", _as_json, function.get("arguments"))
    if len(arguments) > MOST_ARGUMENTS:
        raise Unscored(
            "arguments",
            f"has {len(arguments)} characters, the limit is {MOST_ARGUMENTS}: shorten it",
        )
    return {"name": function["name"], "arguments": arguments}


def _as_json(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "{}"
    if not isinstance(value, Mapping):
        raise Unscored("", "must be an object, or its JSON text")
    try:
        return json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise Unscored("", f"cannot be written as JSON: {str(error)[:80]}") from error
