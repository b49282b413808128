"""Whose sequence goes first: requests share the engine by tokens, whatever their size.

Start-time fair queueing (Goyal, Vin, Cheng 1996): a sequence's tag is where its request stands, and
a request moves on by the tokens that it hands over. A new one starts at the tag that is being
served, so that it neither waits behind a large one nor overtakes it for ever.
"""

from __future__ import annotations

CLASS_TAGS = 2**44
"""Tags from one priority to the next: more tokens than a service ever sees, within 64 bits."""
PRIORITIES = (-1000, 1000)


class Fairness:
    """The tag that is being served: the virtual time that all requests share."""

    def __init__(self) -> None:
        self.now = 0

    def share(self, priority: int) -> Share:
        """A new request's share; of a lower ``priority``, all goes first."""
        return Share(self.now, priority * CLASS_TAGS)

    def served(self, tag: int) -> None:
        """The engine has answered a sequence with this tag."""
        self.now = max(self.now, tag)


class Share:
    """One request: the tags of its sequences, in the order in which it hands them over."""

    __slots__ = ("_offset", "_tag")

    def __init__(self, tag: int, offset: int) -> None:
        self._tag = tag
        self._offset = offset

    @property
    def priority(self) -> int:
        """The next sequence's in the engine."""
        return self._tag + self._offset

    def next(self, tokens: int) -> tuple[int, int]:
        """The next sequence's tag, and its priority in the engine: lower goes first."""
        tag = self._tag
        self._tag += tokens
        return tag, tag + self._offset
