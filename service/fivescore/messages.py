"""The messages of a conversation: one turn each, of a role, with a text, tool calls or both."""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainValidator,
    model_validator,
)

from fivescore import content
from fivescore.content import Unscored

AT_ONCE = 2**20
"""Characters of a text that are looked at in one call, which no other thread can interrupt."""


def _refuse_surrogates(text: str) -> str:
    try:
        for start in range(0, 0 if text.isascii() else len(text), AT_ONCE):
            text[start : start + AT_ONCE].encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {start + error.start} is half of a surrogate pair: send valid Unicode"
        ) from error
    return text


Text = Annotated[str, AfterValidator(_refuse_surrogates)]
"""A string of valid Unicode; JSON can also encode halves of surrogate pairs."""


Role = Literal["system", "user", "assistant", "developer", "tool"]
ROLES: tuple[Role, ...] = get_args(Role)


class Part(BaseModel):
    """One part of a content, for the description of bodies alone."""

    type: Literal["text", "input_text", "output_text"] = "text"
    text: str


def _joined(value: Any) -> str:
    return _refuse_surrogates(value if isinstance(value, str) else content.text_of(value))


def _response(value: Any) -> str:
    return _refuse_surrogates(value if isinstance(value, str) else content.response_of(value))


Content = Annotated[str, PlainValidator(_joined, json_schema_input_type=str | list[Part])]
"""The text of a message; a list of text parts is joined."""
ResponseText = Annotated[str, PlainValidator(_response, json_schema_input_type=str | list[Part])]
"""The text of a response that is not in a message; a list of text parts is joined."""
Name = Annotated[Text, Field(min_length=1, max_length=content.MOST_NAME)]


class Function(BaseModel):
    """What a tool call calls. ``arguments`` is JSON text; an object is written as such."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    arguments: Annotated[
        Text, BeforeValidator(lambda value: value, json_schema_input_type=str | dict[str, Any])
    ] = "{}"


class ToolCall(BaseModel):
    """A call of a function, in OpenAI's form."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    id: Annotated[Text, Field(max_length=content.MOST_NAME)] | None = None
    type: Literal["function"] = "function"
    function: Function


Calls = Annotated[
    tuple[ToolCall, ...],
    BeforeValidator(content.tool_calls_of, json_schema_input_type=list[ToolCall]),
]


class Message(BaseModel):
    """One turn of a conversation. Only an assistant's has tool calls, beside a text or without."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Role
    content: Content
    name: Name | None = None
    tool_call_id: Annotated[Text, Field(max_length=content.MOST_NAME)] | None = None
    tool_calls: Calls | None = None

    @model_validator(mode="before")
    @classmethod
    def _without_text(cls, fields: Any) -> Any:
        """The text of a message that is tool calls alone is empty; no tool calls are none."""
        if not isinstance(fields, dict) or content.CALLS not in fields:
            return fields
        if not content.carries(fields[content.CALLS]):
            return {name: value for name, value in fields.items() if name != content.CALLS}
        if fields.get("role") != "assistant":
            raise Unscored(content.CALLS, content.ONLY_ASSISTANTS)
        said = fields.get("content")
        return {**fields, "content": ""} if said is None or said == [] else fields

    @property
    def is_plain(self) -> bool:
        """Whether it is role and text alone."""
        return self.tool_calls is None and self.name is None and self.tool_call_id is None

    @property
    def characters(self) -> int:
        """The characters of its text, and of what stands beside it."""
        if self.is_plain:
            return len(self.content)
        calls = ((call.id or "", *call.function) for call in self.tool_calls or ())
        beside = sum(len(text) for call in calls for text in call)
        return len(self.content) + len(self.name or "") + len(self.tool_call_id or "") + beside
