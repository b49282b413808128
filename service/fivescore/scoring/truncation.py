"""Cuts a pair that is too long at its start: the score is read at its last token."""

from __future__ import annotations

from fivescore.errors import TooLong
from fivescore.types import Message, Pair


def too_long(unit: str, length: int, limit: int) -> TooLong:
    """The error of a pair that has ``length`` tokens or characters, where ``limit`` are allowed."""
    return TooLong(
        f"the pair has {length} {unit}, the limit is {limit}: shorten it or"
        ' set truncate to "prompt_start"',
        limit=limit,
        **{unit: length},
    )


def principle_too_long(unit: str, length: int, limit: int) -> TooLong:
    """The error of a pair whose principle leaves no room for what it judges, which is before it."""
    return TooLong(
        f"the principle has {length} {unit} with its turn, the limit of the whole pair is {limit}:"
        " shorten the principle",
        limit=limit,
        **{unit: length},
    )


def keep_end(ids: list[int], limit: int, bos_id: int | None) -> list[int]:
    """The last ``limit`` token ids; a leading BOS token stays in front and counts."""
    if ids[0] == bos_id and limit > 1:
        return [ids[0], *ids[len(ids) - limit + 1 :]]
    return ids[-limit:]


def _shortened(turn: Message, excess: int) -> Message:
    """The turn without its first characters; half the arguments of a call would be none."""
    kept = {"content": turn.content[excess:]}
    excess -= len(turn.content)
    if excess <= 0 or not turn.tool_calls:
        return turn.model_copy(update=kept)
    calls = []
    for call in turn.tool_calls:
        function = call.function
        if excess > 0:
            function = function.model_copy(update={"arguments": "{}"})
        calls.append(call.model_copy(update={"function": function}))
        excess -= len(call.function.arguments)
    return turn.model_copy(update={**kept, "tool_calls": tuple(calls)})


def shorten(pair: Pair, excess: int) -> Pair:
    """The pair without its first ``excess`` characters: the prompt's first, then the response's.

    This bounds the text that is tokenised; ``keep_end`` then decides which tokens are kept.
    """
    if pair.text is not None:
        return pair.model_copy(update={"text": pair.text[excess:]})
    prompt = pair.prompt
    if isinstance(prompt, str):
        prompt, excess = prompt[excess:], max(0, excess - len(prompt))
    elif prompt is not None:
        turns = []
        for turn in prompt:
            turns.append(_shortened(turn, excess))
            excess = max(0, excess - turn.characters)
        prompt = turns
    response = pair.response or ""
    if isinstance(response, Message):
        response = response.model_copy(update={"content": response.content[excess:]})
    else:
        response = response[excess:]
    return pair.model_copy(update={"prompt": prompt, "response": response})
