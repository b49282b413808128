"""Makes pairs of a trainer's prompts and completions, which are texts or lists of messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Turn = Mapping[str, Any]
Text = str | Sequence[Turn]


def pair(prompt: Text, completion: Text) -> dict[str, Any]:
    """A pair of ``POST /score``.

    Args:
        prompt: text, or messages that end with the user's.
        completion: text, or the messages that the policy and its tools added. The last assistant
            message is the response; without one the response is empty.
    """
    return {"prompt": _prompt(prompt), "response": _response(completion)}


def _prompt(prompt: Text) -> str | list[dict[str, Any]]:
    if isinstance(prompt, str):
        return prompt
    return [{"role": turn["role"], "content": plain(turn.get("content"))} for turn in prompt]


def _response(completion: Text) -> str:
    if isinstance(completion, str):
        return completion
    answers = [turn for turn in completion if turn["role"] == "assistant"]
    return plain(answers[-1].get("content")) if answers else ""


def plain(content: Any) -> str:
    """A message's text: the content itself, or the text parts of a list of parts, joined."""
    if content is None or isinstance(content, str):
        return content or ""
    return "".join(part.get("text", "") for part in content)
