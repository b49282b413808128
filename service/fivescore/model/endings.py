"""What stands behind a response that was sampled: the end of the turn, EOS, padding.

Trainers send what the policy sampled, some with these tokens and some without. They are not the
response's words: the template writes the end of the turn itself.
"""

from __future__ import annotations

import re
from typing import Any


class Endings:
    """The strings that end a response, and are cut off its end.

    Args:
        reference: the tokenizer of the policy, or the reward model's where that is not known.
        after_assistant: what the chat template writes behind an assistant's content; empty without
            a template.
    """

    def __init__(self, reference: Any, after_assistant: str = "") -> None:
        self._space = ""
        endings = {reference.eos_token, reference.pad_token}
        added = [token.content for token in reference.added_tokens_decoder.values()]
        words = "|".join(map(re.escape, sorted(added, key=len, reverse=True)))
        if words and (end := re.match(rf"(\s*)({words})", after_assistant)):
            self._space = end[1]
            endings.add(end[2])
        longest_first = sorted(endings - {None, ""}, key=len, reverse=True)
        either = "|".join(re.escape(one[::-1]) for one in longest_first)
        self._reversed = re.compile(rf"\s*+(?:{either or '(?!)'})")
        """One of them and the white space after it, in a reversed text."""

    def cut(self, response: str) -> str:
        """The response without what ends it; one that was not finished is left as it is."""
        end = len(response)
        backwards = response[::-1]
        while match := self._reversed.match(backwards, len(response) - end):
            end = len(response) - match.end()
        ended = end < len(response)
        return response[:end].removesuffix(self._space if ended else "")
