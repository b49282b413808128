"""Reads dialogues that HelpSteer2 writes as one prompt string (arXiv 2406.08673; 29% of rows)."""

from __future__ import annotations

import re

from fivescore.types import Message

_TURN = re.compile(r"\n<extra_id_1>(Assistant|User)\n")


def messages(prompt: str) -> list[Message]:
    """The turns of a prompt string, which end with the user's; any other text is one turn.

    Readers of the data set use this. The server takes a prompt string as one turn, except in the
    ``steerlm`` format, where both give the same token ids.
    """
    parts = _TURN.split(prompt)
    turns, roles = parts[::2], parts[1::2]
    if roles != ["Assistant", "User"] * (len(roles) // 2):
        turns = [prompt]
    return [
        Message(role="assistant" if i % 2 else "user", content=turn) for i, turn in enumerate(turns)
    ]
