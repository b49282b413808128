"""What goes in and what comes out: pairs and scores. Knows neither HTTP nor torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)


def _refuse_surrogates(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"character {error.start} is half of a surrogate pair: send valid Unicode"
        ) from error
    return text


Text = Annotated[str, AfterValidator(_refuse_surrogates)]
"""JSON can spell halves of surrogate pairs, which are no characters and have no tokens."""


class Message(BaseModel):
    """One turn of a conversation."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    role: Literal["system", "user", "assistant"]
    content: Text


def _prompt_kind(value: Any) -> str:
    return "messages" if isinstance(value, list | tuple) else "text"


Prompt = Annotated[
    Annotated[Text, Tag("text")] | Annotated[list[Message], Field(min_length=1), Tag("messages")],
    Discriminator(_prompt_kind),
]
TokenIds = Annotated[list[Annotated[int, Field(strict=True, ge=0, lt=2**31)]], Field(min_length=1)]


class Pair(BaseModel):
    """One thing to score: a prompt with a response, or the token ids of both."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt | None = Field(
        None, description="Text, or messages of which the last is the user's."
    )
    response: Text | None = Field(None, description="The assistant's text; may be empty.")
    token_ids: TokenIds | None = Field(
        None, description="Token ids, used as they are, instead of prompt and response."
    )

    @model_validator(mode="after")
    def _one_form(self) -> Pair:
        texts = (self.prompt is not None) + (self.response is not None)
        if texts == (0 if self.token_ids is not None else 2):
            return self._check_turns()
        raise ValueError("give prompt and response, or token_ids alone")

    def _check_turns(self) -> Pair:
        if isinstance(self.prompt, list) and self.prompt[-1].role != "user":
            raise ValueError(
                "the last message of prompt must be the user's; the text to score goes in response"
            )
        return self


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of one pair: raw model outputs, affine of the manifest only, always finite.

    ``tokens`` is the length the model read; ``cached_tokens`` of them came from the prefix cache.
    """

    attributes: dict[str, float]
    reward: float
    tokens: int
    cached_tokens: int = 0
    truncated: bool = False


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """What an engine says of the model it has loaded."""

    name: str
    outputs: int
    max_tokens: int
    vocab_size: int
    dtype: str
    device: str
    engine: str
    """The engine and its version, ``vllm 0.32.0``."""


@dataclass(frozen=True, slots=True)
class Output:
    """The raw head outputs of one sequence, shape ``[outputs]``, and its prefix-cache hit."""

    values: list[float]
    cached_tokens: int = 0
