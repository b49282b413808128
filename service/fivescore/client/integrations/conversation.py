"""Makes pairs of a trainer's prompts and completions, which are texts or lists of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fivescore import content
from fivescore.client.batches import PairLike
from fivescore.content import Unscored
from fivescore.errors import InvalidPair

Turn = Mapping[str, Any]
Text = str | Sequence[Turn]


def pair(prompt: Text, completion: Text, row: Mapping[str, Any] | None = None) -> PairLike:
    """A pair of ``POST /score``, or the error of one that holds more than text.

    Args:
        prompt: text, or messages that end with the user's or a tool's.
        completion: text, or the messages that the policy and its tools added. The last one, the
            assistant's, is the response; those before it are part of the prompt. The response to
            no messages is empty.
        row: further fields of the sample, of which ``tools`` and images are refused too.
    """
    try:
        refuse_unscored(row or {})
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
    """
    known = {name: columns[name] for name in content.OF_ROWS & columns.keys()}
    made = []
    for place, both in enumerate(zip(prompts, completions, strict=True)):
        row = {name: _of_sample(values, place, len(prompts)) for name, values in known.items()}
        made.append(pair(*both, row))
    return made


def _of_sample(values: Any, place: int, count: int) -> Any:
    several = isinstance(values, Sequence) and not isinstance(values, str)
    return values[place] if several and len(values) == count else values


def refuse_unscored(row: Mapping[str, Any]) -> None:
    """Check that the further fields of a sample hold nothing for the model to read.

    Raises:
        Unscored: one of them does.
    """
    if (name := content.unscored(row, content.OF_ROWS)) is not None:
        raise Unscored(name, content.advice(name))


def _split(completion: Text) -> tuple[list[dict[str, Any]], str]:
    """The turns of a completion before its last, and the last one's text."""
    if isinstance(completion, str):
        return [], completion
    turns = _turns(completion, "completion")
    if not turns:
        return [], ""
    if turns[-1]["role"] != "assistant":
        last = f"completion.{len(turns) - 1}.role"
        raise Unscored(last, "the last message must be the assistant's: it is scored")
    return turns[:-1], turns[-1]["content"]


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
        return {"role": turn.get("role"), "content": content.message_text(turn)}
    except Unscored as error:
        raise Unscored(f"{field}.{error.place}", error.detail) from None
