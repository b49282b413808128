"""Pairs, scores and the engine's types. Knows neither HTTP nor torch."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    ValidationError,
    WrapValidator,
    model_validator,
)
from pydantic_core import ErrorDetails

from fivescore import content
from fivescore.content import Unscored
from fivescore.errors import InvalidPair, printable, without_kind
from fivescore.messages import ROLES as ROLES
from fivescore.messages import Message as Message
from fivescore.messages import ResponseText
from fivescore.messages import Role as Role
from fivescore.messages import Text as Text

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""HelpSteer2's five attributes in the data set's order (arXiv 2406.08673)."""
_UNION_TAGS = _AS_TEXT, _AS_MESSAGES = "(text)", "(messages)"
"""What pydantic puts into the place of a prompt's fault; the fields have other names."""
MOST_TURNS = 10_000
"""Limit on the messages of one prompt."""
MOST_TOKEN_IDS = 2**20
"""Limit on the token ids of one pair: the longest context that models are made for."""
IDS_AT_ONCE = 2**16
"""Token ids that are looked at in one call, which no other thread can interrupt."""
MOST_FAULTS = 100
"""The most faults that an error lists, to limit its time and size."""


def _prompt_kind(value: Any) -> str:
    return _AS_MESSAGES if isinstance(value, list | tuple) else _AS_TEXT


def _response_kind(value: Any) -> str:
    return _AS_MESSAGES if isinstance(value, Mapping | Message) else _AS_TEXT


def _assistants(value: Any) -> Any:
    return {"role": "assistant", **value} if isinstance(value, Mapping) else value


def _text_alone(message: Message) -> str | Message:
    if message.role != "assistant":
        raise Unscored("role", "must be assistant")
    return message.content if message.is_plain else message


Prompt = Annotated[
    Annotated[Text, Tag(_AS_TEXT)]
    | Annotated[
        list[Message],
        Field(min_length=1, max_length=MOST_TURNS, fail_fast=True),
        Tag(_AS_MESSAGES),
    ],
    Discriminator(_prompt_kind),
]
Response = Annotated[
    Annotated[ResponseText, Tag(_AS_TEXT)]
    | Annotated[
        Message, BeforeValidator(_assistants), AfterValidator(_text_alone), Tag(_AS_MESSAGES)
    ],
    Discriminator(_response_kind),
]


def _many_ids(value: Any, validate: Callable[[Any], list[int]]) -> list[int]:
    """Token ids; pydantic would keep all threads waiting while it looks at very many."""
    if not isinstance(value, list) or not IDS_AT_ONCE < len(value) <= MOST_TOKEN_IDS:
        return validate(value)
    parts = (value[at : at + IDS_AT_ONCE] for at in range(0, len(value), IDS_AT_ONCE))
    if all(set(map(type, part)) == {int} and 0 <= min(part) <= max(part) < 2**31 for part in parts):
        return value.copy()
    return validate(value)


TokenIds = Annotated[
    list[Annotated[int, Field(strict=True, ge=0, lt=2**31)]],
    Field(min_length=1, max_length=MOST_TOKEN_IDS, fail_fast=True),
    WrapValidator(_many_ids),
]


class Pair(BaseModel):
    """A prompt and a response to score, or both rendered as text or as token ids."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    prompt: Prompt | None = Field(
        default=None, description="Text, or messages of which the last is the user's or a tool's."
    )
    response: Response | None = Field(
        default=None,
        description="The assistant's text, which may be empty, or its message with tool calls.",
    )
    text: Annotated[Text, Field(min_length=1)] | None = Field(
        default=None,
        description="The whole conversation as its renderer wrote it, special tokens included,"
        " instead of prompt and response.",
    )
    token_ids: TokenIds | None = Field(
        default=None, description="Token ids, used as they are, instead of prompt and response."
    )
    principle: Annotated[Text, Field(min_length=1)] | None = Field(
        default=None,
        description="What prompt and response are judged by, such as correctness; for models that"
        " are asked about a principle.",
    )

    @model_validator(mode="after")
    def _one_form(self) -> Pair:
        present = {name for name in PAIR_FIELDS if getattr(self, name) is not None}
        if present - {"principle"} not in FORMS:
            raise ValueError("give prompt and response, or text alone, or token_ids alone")
        if self.principle is not None and self.response is None:
            raise ValueError(
                "principle goes with prompt and response; text and token_ids hold it already"
            )
        return self._check_turns()

    def judged_by(self, principle: str | None) -> Pair:
        """The pair with this principle, unless it has its own or is rendered already."""
        if self.principle is not None or self.response is None or principle is None:
            return self
        return self.model_copy(update={"principle": principle})

    def compact(self) -> None:
        """Take less memory, and less of the time of each garbage collection.

        Token ids become an array; messages share what pydantic keeps beside their fields.
        """
        if self.token_ids is not None:
            object.__setattr__(self, "token_ids", array("i", self.token_ids))
        for turn in self.prompt if isinstance(self.prompt, list) else ():
            object.__setattr__(turn, "__pydantic_fields_set__", _MESSAGE_FIELDS_SET)

    @property
    def is_plain(self) -> bool:
        """Whether it has texts alone, beside roles: no tool calls, names or ids."""
        if isinstance(self.response, Message):
            return False
        return not isinstance(self.prompt, list) or all(turn.is_plain for turn in self.prompt)

    @property
    def answer(self) -> Message:
        """The response as the assistant's message, of a pair that has one."""
        if isinstance(self.response, Message):
            return self.response
        return Message(role="assistant", content=self.response or "")

    def _check_turns(self) -> Pair:
        if isinstance(self.prompt, list) and self.prompt[-1].role not in ("user", "tool"):
            raise ValueError(
                "the last message of prompt must be the user's, or a tool's; the text to score"
                " goes in response"
            )
        return self


PAIR_FIELDS = frozenset(Pair.model_fields)
_FIELDS_SET = set(PAIR_FIELDS)
"""Shared by all pairs as pydantic's ``__pydantic_fields_set__``."""
_MESSAGE_FIELDS_SET = set(Message.model_fields)
FORMS = ({"prompt", "response"}, {"text"}, {"token_ids"})
"""The fields of a pair's three forms; the first may have a principle beside them."""


def parse_pair(value: Any) -> Pair | InvalidPair:
    """The pair in ``value``, or the error with everything that is wrong with it."""
    try:
        pair = Pair.model_validate(value)
    except ValidationError as error:
        without = _without_empty(value) if _has_unknown(error) else value
        return InvalidPair(sentence(faults(error))) if without is value else parse_pair(without)
    # A set of its own would take 216 bytes per pair, is not used, and many pairs may wait.
    object.__setattr__(pair, "__pydantic_fields_set__", _FIELDS_SET)
    return pair


def _has_unknown(error: ValidationError) -> bool:
    return error.error_count() <= MOST_FAULTS and any(
        fault["type"] == "extra_forbidden" for fault in error.errors(include_url=False)
    )


def _without_empty(pair: Any) -> Any:
    """The pair without empty fields of other formats, such as ``tool_calls``; itself without any.

    Clients send them as null in every message.
    """
    if not isinstance(pair, Mapping):
        return pair
    filled = _filled(pair, (content.OF_REQUESTS | content.OF_ROWS) & pair.keys())
    if isinstance(turns := pair.get("prompt"), list | tuple):
        prompt = [
            _filled(turn, turn.keys() - Message.model_fields.keys())
            if isinstance(turn, Mapping)
            else turn
            for turn in turns
        ]
        if any(one is not turn for one, turn in zip(prompt, turns, strict=True)):
            return {**filled, "prompt": prompt}
    return filled


def _filled(fields: Mapping[str, Any], optional: Set[str]) -> Mapping[str, Any]:
    empty = {name for name in optional if not content.carries(fields[name])}
    if not empty:
        return fields
    return {name: value for name, value in fields.items() if name not in empty}


def faults(error: ValidationError) -> list[dict[str, str]]:
    """The faults of a validation, each with its ``field`` and its ``detail``.

    More than ``MOST_FAULTS`` become one entry with their number. Validation stops at the first
    fault in a list.
    """
    if (count := error.error_count()) > MOST_FAULTS:
        return [{"field": "", "detail": f"{count} fields are unknown or wrong"}]
    return [_fault(fault) for fault in error.errors(include_url=False)]


def _fault(fault: ErrorDetails) -> dict[str, str]:
    places = [str(place) for place in fault["loc"] if place not in _UNION_TAGS]
    detail = without_kind(fault["msg"])
    if fault["type"] == "extra_forbidden":
        detail = _unknown(fault["loc"][-1])
    elif isinstance(unscored := fault.get("ctx", {}).get("error"), Unscored):
        places += filter(None, [unscored.place])
        detail = unscored.detail
    return {"field": ".".join(map(printable, places)), "detail": detail}


def _unknown(name: int | str) -> str:
    if name in content.OF_REQUESTS or name in content.OF_MESSAGES:
        return content.advice(str(name))
    return "unknown field"


def sentence(listed_faults: Sequence[dict[str, str]], most: int = 5) -> str:
    """The first ``most`` faults as one sentence, with the number of the others."""
    listed = [": ".join(filter(None, fault.values())) for fault in listed_faults[:most]]
    more = len(listed_faults) - most
    return "; ".join(listed + ([f"and {more} more"] if more > 0 else []))


@dataclass(frozen=True, slots=True)
class Score:
    """The scores of one pair: the model's outputs after the manifest's arithmetic, all finite.

    ``tokens`` is the length of the model's input; ``cached_tokens`` of them came from the prefix
    cache. ``truncated`` says whether the start of the pair was cut off.
    """

    attributes: dict[str, float]
    reward: float
    tokens: int
    cached_tokens: int = 0
    truncated: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The score in the form of ``POST /score``'s answer: one flat member per attribute."""
        return {
            **self.attributes,
            "reward": self.reward,
            "tokens": self.tokens,
            "cached_tokens": self.cached_tokens,
            "truncated": self.truncated,
        }


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """An engine's description of the model that it has loaded."""

    name: str
    outputs: int
    max_tokens: int
    vocab_size: int
    dtype: str
    device: str
    engine: str
    """The engine and its version, such as ``vllm 0.32.0``."""
    quantization: str | None = None
    """How weights or the KV cache are quantised; None where they are not."""
    simulated: bool = False
    """Whether the outputs are made up, so that no reference can agree with them."""
    step_sequences: int = 128
    step_tokens: int = 2048
    """The most sequences and tokens of one step of one rank; the defaults are vLLM's on a CPU."""
    ranks: int = 1
    """Copies of the model that compute beside each other, in data parallel."""


@dataclass(frozen=True, slots=True)
class Output:
    """The raw head outputs of one sequence, shape ``[outputs]``, and its cached tokens."""

    values: list[float]
    cached_tokens: int = 0
