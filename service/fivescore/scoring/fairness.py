"""Decides whose sequence runs first: requests share the engine by tokens, whatever their size.

This is start-time fair queueing (Goyal, Vin, Cheng 1996). A sequence's tag is its request's
position, and a request advances by the tokens that it submits. A new request starts at the tag that
is being served: it neither waits behind a large one nor overtakes it for ever.
"""

from __future__ import annotations

CLASS_TAGS = 2**44
"""Tags between two priorities: more tokens than a service ever sees, and within 64 bits."""
PRIORITIES = (-1000, 1000)
"""The lowest and the highest priority that a request may have."""


class Fairness:
    """Holds the tag that is being served, the virtual time of all requests."""

    def __init__(self) -> None:
        self.now = 0

    def share(self, priority: int) -> Share:
        """A new request's share. All requests with a lower ``priority`` number run before it."""
        return Share(self.now, priority * CLASS_TAGS)

    def served(self, tag: int) -> None:
        """Advance to the tag of a sequence that the engine has answered."""
        self.now = max(self.now, tag)


class Share:
    """Gives one request's sequences their tags, in the order of submission."""

    __slots__ = ("_offset", "_tag")

    def __init__(self, tag: int, offset: int) -> None:
        self._tag = tag
        self._offset = offset

    @property
    def priority(self) -> int:
        """The next sequence's priority in the engine; the lowest runs first."""
        return self._tag + self._offset

    def next(self, tokens: int) -> tuple[int, int]:
        """The next sequence's tag and its priority in the engine; the lowest runs first."""
        tag = self._tag
        self._tag += tokens
        return tag, tag + self._offset
