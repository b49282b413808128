"""The ranks of an engine in data parallel: which one takes a sequence, and whether each answers.

Each rank is a whole copy of the model with a prefix cache of its own, so the responses to a prompt
belong on one of them. A rank has a limit, though, above what is its share: consistent hashing with
bounded loads (Mirrokni, Thorup and Zadimoghaddam 2018, arXiv 1608.01350). A sequence whose rank is
full goes to the next one that is not, which is the same for all that follow it.
"""

from __future__ import annotations

import time
from collections.abc import Callable

LOAD_FACTOR = 1.25
"""Tokens that a rank may have, over its share of all: the paper's 1 + epsilon."""


class Rank:
    """What is in one rank, and how long it has answered nothing."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.sequences = 0
        self.tokens = 0
        self._silent_since = time.monotonic()
        self._silence = 0.0

    def enter(self, tokens: int) -> None:
        """Count a sequence that goes into the rank."""
        if not self.sequences:
            self._silent_since = time.monotonic() - self._silence
        self.sequences += 1
        self.tokens += tokens

    def answered(self) -> None:
        """Note that it has given an answer, of whatever kind."""
        self._silent_since = time.monotonic()

    def leave(self, tokens: int) -> None:
        """Count a sequence that is no longer in it, answered or not."""
        self.sequences -= 1
        self.tokens -= tokens
        if not self.sequences:
            # Work that is cancelled unanswered still counts: clients with short deadlines must not
            # hide that nothing is ever answered.
            self._silence = time.monotonic() - self._silent_since

    @property
    def silent(self) -> float:
        """Seconds in which it had work and answered none of it."""
        return time.monotonic() - self._silent_since if self.sequences else 0.0


class Ranks:
    """All ranks of one engine.

    Args:
        count: how many there are.
        step_tokens: what one rank computes in one step; up to so much it is never full.
        escaped: called for each sequence that does not go to the rank of its prompt.
    """

    def __init__(
        self,
        count: int = 1,
        step_tokens: int = 0,
        escaped: Callable[[], object] = lambda: None,
    ) -> None:
        self.all = [Rank(number) for number in range(count)]
        self._step_tokens = step_tokens
        self._escaped = escaped

    def of(self, prefix: int, tokens: int) -> Rank:
        """The rank for a sequence.

        Args:
            prefix: the same number for sequences that begin alike, as those of one prompt do.
            tokens: of the sequence.
        """
        ranks = self.all
        if len(ranks) == 1:
            return ranks[0]
        share = (sum(rank.tokens for rank in ranks) + tokens) / len(ranks)
        limit = max(LOAD_FACTOR * share, self._step_tokens)
        first = prefix % len(ranks)
        for rank in ranks[first:] + ranks[:first]:
            if rank.tokens + tokens <= limit:
                break
        else:  # a sequence that is longer than a share fits nowhere
            rank = min(ranks, key=lambda rank: rank.tokens)
        if rank.number != first:
            self._escaped()
        return rank

    @property
    def silent(self) -> float:
        """The longest time, in seconds, that a rank had work and answered none of it."""
        return max(rank.silent for rank in self.all)
