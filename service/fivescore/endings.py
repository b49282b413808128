"""What stands behind a response that was sampled: the end of the turn, EOS, padding.

Trainers send what the policy sampled, some with these tokens and some without. They are not the
response's words: the template writes the end of the turn itself. A response has one ending; what
looks like another one before it was written by the policy.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

SAID = "\ue010a\ue010"
"""A content of an assistant, which no template writes by itself."""
GENERATION_CONFIG = "generation_config.json"
"""The file beside the weights that names, as ``eos_token_id``, all tokens that end a generation."""


class Endings:
    """The strings that end a response, each of which is cut off it once; padding, all of it.

    Args:
        reference: the tokenizer of the policy, or the reward model's where that is not known; of
            transformers, or another one, whose endings are those that it names in the same way.
        after_assistant: what the chat template writes behind an assistant's content, in several
            places; nothing without a template.
        stop_ids: ids of further tokens at which the policy stops, beside EOS.
    """

    def __init__(self, reference: Any, *after_assistant: str, stop_ids: Iterable[int] = ()) -> None:
        decoder = getattr(reference, "added_tokens_decoder", {})
        added: dict[int, str] = {id_: token.content for id_, token in decoder.items()}
        eos, pad = (getattr(reference, name, None) for name in ("eos_token", "pad_token"))
        turns = _turn_ends(after_assistant, added.values())
        further = [added[id_] for id_ in stop_ids if id_ in added]
        stops = {token for token in (eos, *further) if token and token not in turns}
        # Padding with the EOS cannot be told from it, unless the end of a turn stands before.
        padded = pad == eos and pad in stops
        own_pad = [pad] if pad and pad != eos and pad not in turns else []
        stop = rf"(?:\s*+{_either(stops)})"
        turn = rf"\s*+(?:{'|'.join(_reversed(*both) for both in sorted(turns.items())) or '(?!)'})"
        self._reversed = re.compile(
            rf"(?:\s*+{_either(own_pad)})*+(?:{stop}{'*' if padded else '?'}+{turn}|{stop}?+)"
        )
        """Padding, then an EOS, then the end of a turn, and white space, in a reversed text."""

    @classmethod
    def of_tokenizer(cls, reference: Any, stop_ids: Iterable[int] = ()) -> Endings:
        """The endings that a tokenizer and its chat template, where it has one, write."""
        return cls(reference, *_after_assistant(reference), stop_ids=stop_ids)

    def cut(self, response: str) -> str:
        """The response without what ends it; one that was not finished is left as it is."""
        ending = self._reversed.match(response[::-1])
        return response[: len(response) - ending.end()] if ending else response


def stop_ids(folder: str) -> list[int]:
    """The ids at which generations end, of a checkpoint's folder; none without the file.

    Args:
        folder: may be a hub id or empty, which has no file here.
    """
    if not folder:
        return []
    file = Path(folder) / GENERATION_CONFIG
    try:
        ids = json.loads(file.read_text()).get("eos_token_id")
    except (OSError, ValueError, AttributeError):  # not there, or not an object in JSON
        return []
    listed = ids if isinstance(ids, list) else [ids]
    return [id_ for id_ in listed if isinstance(id_, int)]


def _turn_ends(after_assistant: Iterable[str], added: Iterable[str]) -> dict[str, str]:
    """The added tokens that end a turn, and the white space that stands before each."""
    words = "|".join(map(re.escape, sorted(added, key=len, reverse=True))) or "(?!)"
    found = [re.match(rf"(\s*)({words})", text) for text in after_assistant]
    return {match[2]: match[1] for match in found if match and match[2].strip()}


def _after_assistant(reference: Any) -> list[str]:
    """What the template writes behind an assistant's content, at the end and before a user's."""
    written = []
    for roles in (("user", "assistant"), ("user", "assistant", "user")):
        for parts in (False, True):  # some templates read contents as lists of parts
            rendered = _render(reference, roles, parts)
            if SAID in rendered:
                written.append(rendered.rpartition(SAID)[2])
                break
    return written


def _render(reference: Any, roles: Iterable[str], parts: bool) -> str:
    said = {"user": "x", "assistant": SAID}
    turns = [
        {"role": role, "content": [{"type": "text", "text": said[role]}] if parts else said[role]}
        for role in roles
    ]
    if not getattr(reference, "chat_template", None):
        return ""
    try:
        return str(reference.apply_chat_template(turns, tokenize=False))
    except Exception:  # a template may raise any type
        return ""


def _either(words: Iterable[str]) -> str:
    """A pattern of any of some words in a reversed text; one that matches nothing without any."""
    longest_first = sorted(words, key=len, reverse=True)
    return f"(?:{'|'.join(re.escape(word[::-1]) for word in longest_first) or '(?!)'})"


def _reversed(word: str, space: str) -> str:
    return f"{re.escape(word[::-1])}(?:{re.escape(space[::-1])})?+"
