"""How HelpSteer2 writes a dialogue into one prompt string (arXiv 2406.08673; 29% of its rows)."""

from __future__ import annotations

import re

from fivescore.types import Message

_TURN = re.compile(r"\n<extra_id_1>(Assistant|User)\n")


def messages(prompt: str) -> list[Message]:
    """The turns of a prompt string, the last of them the user's; any other text is one turn.

    For whoever reads the data set. A served prompt string is one turn, except in ``steerlm``, where
    both give the same ids.
    """
    parts = _TURN.split(prompt)
    turns, roles = parts[::2], parts[1::2]
    if roles != ["Assistant", "User"] * (len(roles) // 2):
        turns = [prompt]
    return [
        Message(role="assistant" if i % 2 else "user", content=turn) for i, turn in enumerate(turns)
    ]
