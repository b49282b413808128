"""What is wrong with where a template writes contents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

MAKES_STRUCTURE = (
    "the chat template makes structure of what a text says: remove its markers from the prompt and"
    " the response"
)


def says(verb: str, what: str) -> str:
    """What is said of something that the template drops, repeats or puts elsewhere."""
    return (
        f"the chat template {verb} {what}, so it cannot be scored: leave the turn out, or correct"
        " the template"
    )


def of_turn(turn: int, role: str) -> str:
    """The content of a turn, for people."""
    return f"the content of turn {turn + 1} ({role})"


def fault(roles: Sequence[str], empty: Sequence[bool], order: Sequence[int]) -> str:
    """What is wrong with the order of contents; a system message may stand anywhere.

    Args:
        empty: whether the content of each turn says nothing.
        order: the turns whose contents the template writes, as it writes them.
    """
    counts = Counter(order)
    places = {turn: place for place, turn in enumerate(order)}
    last = -1
    for turn, role in enumerate(roles):
        if empty[turn]:
            continue
        if not counts[turn]:
            return says("drops", of_turn(turn, role))
        if role in ("system", "developer"):
            continue
        if counts[turn] > 1:
            return says("repeats", of_turn(turn, role))
        if places[turn] < last:
            return says("reorders", of_turn(turn, role))
        last = places[turn]
    return ""
