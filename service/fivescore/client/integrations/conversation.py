"""Makes pairs of a trainer's prompts and completions, which are texts or lists of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fivescore import content
from fivescore.client.rows import PairLike
from fivescore.content import Unscored
from fivescore.errors import ConfigurationError, InvalidPair

Turn = Mapping[str, Any]
Text = str | Sequence[Turn]


def pair(prompt: Text, completion: Text, row: Mapping[str, Any] | None = None) -> PairLike:
    """A pair of ``POST /score``, or the error of one that holds what is never scored.

    Which roles and tool calls the model's template renders is for the server to say.

    Args:
        prompt: text, or messages that end with the user's or a tool's.
        completion: text, or the messages that the policy and its tools added. The last one, the
            assistant's, is the response; those before it are part of the prompt. The response to
            no messages is empty.
        row: further fields of the sample.

    Raises:
        ConfigurationError: ``row`` has tools, images or the like, as the others of the data will.
    """
    check_columns(row or {})
    try:
        turns, response = _split(completion)
        return {"prompt": _prompt(prompt, turns), "response": response}
    except Unscored as error:
        return InvalidPair(str(error))


def pairs(
    prompts: Sequence[Text], completions: Sequence[Text], columns: Mapping[str, Any]
) -> list[PairLike]:
    """The pairs of a batch, in order.

    Args:
        columns: the batch's further fields, each with a value per sample or one for all.

    Raises:
        ConfigurationError: a column holds tools, images or the like.
    """
    for name in content.OF_ROWS & columns.keys():
        values = columns[name]
        several = isinstance(values, Sequence) and not isinstance(values, str)
        for value in values if several and len(values) == len(prompts) else [values]:
            check_columns({name: value})
    return [pair(*both) for both in zip(prompts, completions, strict=True)]


def check_columns(row: Mapping[str, Any]) -> None:
    """Check that a sample has no column that the model would have to read.

    Raises:
        ConfigurationError: it has one. A run that went on would score something else.
    """
    if (name := content.unscored(row, content.OF_ROWS)) is not None:
        raise ConfigurationError(
            f"{name}: the column {content.advice(name)}; remove the column from the data set"
        )


def _split(completion: Text) -> tuple[list[dict[str, Any]], str | dict[str, Any]]:
    """The turns of a completion before its last, and the last one: its text, or with tool calls."""
    if isinstance(completion, str):
        return [], completion
    turns = _turns(completion, "completion")
    if not turns:
        return [], ""
    if turns[-1]["role"] != "assistant":
        last = f"completion.{len(turns) - 1}.role"
        raise Unscored(last, "the last message must be the assistant's: it is scored")
    said = turns[-1]
    return turns[:-1], said["content"] if said.keys() == {"role", "content"} else said


def _prompt(prompt: Text, added: list[dict[str, Any]]) -> str | list[dict[str, Any]]:
    if not isinstance(prompt, str):
        return [*_turns(prompt, "prompt"), *added]
    return [{"role": "user", "content": prompt}, *added] if added else prompt


def _turns(messages: Sequence[Turn], field: str) -> list[dict[str, Any]]:
    return [_turn(turn, f"{field}.{place}") for place, turn in enumerate(messages)]


def _turn(turn: Turn, field: str) -> dict[str, Any]:
    if not isinstance(turn, Mapping):
        raise Unscored(field, "is not a message with role and content")
    try:
        return content.turn_of(turn)
    except Unscored as error:
        raise Unscored(f"{field}.{error.place}", error.detail) from None
