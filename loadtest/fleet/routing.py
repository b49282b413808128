"""Chooses an engine for each sequence: by the prompt's hash, by load, or by both.

A router sees the outstanding tokens of every engine at once and exactly, as one process in front of
all engines does. Clients that each see only their own requests know less.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from loadtest.fleet.engine import Sequence

BLOCK = 1024
"""Prompts whose hashes are computed together."""
Hashes = npt.NDArray[np.uint64]


def weights(prompts: npt.NDArray[np.int64], engines: int) -> Hashes:
    """The weight of each engine for each prompt: 64 bits, by splitmix64's finaliser.

    The engine with the highest weight is the prompt's, as in ``fivescore.client.replicas``, which
    hashes texts and addresses with BLAKE2.
    """
    with np.errstate(over="ignore"):
        x = prompts.astype(np.uint64)[:, None] * np.uint64(0x9E3779B97F4A7C15)
        x = x ^ (np.arange(1, engines + 1, dtype=np.uint64) * np.uint64(0xD1342543DE82EF95))
        for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
            x = (x ^ (x >> np.uint64(shift))) * np.uint64(factor)
        return x ^ (x >> np.uint64(31))


class Router:
    """Knows which engines are up and what each has outstanding."""

    def __init__(self, engines: int) -> None:
        self.up = np.ones(engines, dtype=bool)
        self.outstanding = np.zeros(engines)
        """Tokens sent and not answered, cached or not, since a router cannot know that; infinite
        for an engine that is down."""
        self._total = 0
        self._live = engines

    def choose(self, sequence: Sequence) -> int:
        raise NotImplementedError

    def send(self, sequence: Sequence) -> int:
        """Choose an engine and count the sequence as outstanding there."""
        chosen = self.choose(sequence)
        self.outstanding[chosen] += sequence.tokens
        self._total += sequence.tokens
        return chosen

    def answered(self, engine: int, tokens: int) -> None:
        """Count ``tokens`` as no longer outstanding at ``engine``."""
        self.outstanding[engine] -= tokens
        self._total -= tokens

    def lose(self, engine: int) -> None:
        """Take an engine out; what it has outstanding must be sent again."""
        self._total -= int(self.outstanding[engine])
        self.outstanding[engine], self.up[engine] = np.inf, False
        self._live -= 1

    def restore(self, engine: int) -> None:
        self.outstanding[engine], self.up[engine] = 0, True
        self._live += 1

    def least(self) -> int:
        """The engine with the fewest tokens outstanding."""
        return int(self.outstanding.argmin())


class ByLoad(Router):
    """The engine with the fewest tokens outstanding, whatever the prompt."""

    def choose(self, sequence: Sequence) -> int:
        return self.least()


class ByHash(Router):
    """Rendezvous hashing: the live engine with the prompt's highest weight."""

    def __init__(self, engines: int) -> None:
        super().__init__(engines)
        self._homes: dict[int, int] = {}

    def choose(self, sequence: Sequence) -> int:
        home = self.home(sequence.prompt)
        return home if self.up[home] else next(self.ranked(sequence.prompt))

    def home(self, prompt: int) -> int:
        """The prompt's engine while all are up."""
        if prompt not in self._homes:
            first = prompt // BLOCK * BLOCK
            block = weights(np.arange(first, first + BLOCK), len(self.up)).argmax(axis=1)
            self._homes.update(enumerate(block.tolist(), first))
        return self._homes[prompt]

    def ranked(self, prompt: int) -> Iterator[int]:
        """The live engines, in the order in which the prompt prefers them."""
        row = weights(np.array([prompt]), len(self.up))[0]
        for engine in np.argsort(row)[::-1].tolist():
            if self.up[engine]:
                yield engine


class Modulo(Router):
    """The prompt's number modulo the number of live engines: what not to do."""

    def choose(self, sequence: Sequence) -> int:
        live = np.flatnonzero(self.up)
        return int(live[sequence.prompt % len(live)])


class Bounded(ByHash):
    """By hash, unless the engine would have more than ``factor`` times the mean outstanding.

    Consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam, arXiv 1608.01350): the
    prompt's next engine in its own order takes the sequence, so that the prompt's other responses
    find each other there. An engine below ``free`` tokens never refuses: work that fits into its
    next step does not wait for anybody.

    Args:
        factor: above 1.
        free: tokens; a step's.
    """

    def __init__(self, engines: int, factor: float = 1.25, free: int = 8192) -> None:
        super().__init__(engines)
        self.factor, self._free = factor, free
        self.escaped = 0

    def choose(self, sequence: Sequence) -> int:
        home = super().choose(sequence)
        if self._has_room(home, sequence):
            return home
        self.escaped += 1
        return self.escape(sequence)

    def escape(self, sequence: Sequence) -> int:
        """The engine of a sequence whose own has no room."""
        for engine in self.ranked(sequence.prompt):
            if self._has_room(engine, sequence):
                return engine
        return self.least()

    def _has_room(self, engine: int, sequence: Sequence) -> bool:
        most = self.factor * (self._total + sequence.tokens) / self._live
        return bool(self.outstanding[engine] + sequence.tokens <= max(self._free, most))


class BoundedToLeast(Bounded):
    """The same, but what its engine refuses goes to the engine with the fewest tokens."""

    def escape(self, sequence: Sequence) -> int:
        return self.least()


ROUTERS: dict[str, type[Router]] = {
    "load": ByLoad,
    "hash": ByHash,
    "hash, escape to the least loaded": BoundedToLeast,
    "hash, escape to the next": Bounded,
}
"""The compared routings."""
