"""An engine as a batched prefill server: a step at a time, with a bounded prefix cache."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple


class Sequence(NamedTuple):
    """A prompt and one response to it, in tokens."""

    number: int
    """Its place among all arrivals."""
    prompt: int
    """Sequences with the same prompt share their first ``shared`` tokens."""
    shared: int
    own: int

    @property
    def tokens(self) -> int:
        return self.shared + self.own


@dataclass(frozen=True)
class ServiceTimes:
    """What a step takes, and what fits into it and into the cache.

    A step takes ``overhead`` + ``per_sequence`` for each sequence that it finishes + its computed
    tokens / ``tokens_per_second`` + ``per_attended`` for each token that a computed one attends to.
    """

    overhead: float
    """Seconds per step."""
    per_sequence: float
    """Seconds per sequence."""
    tokens_per_second: float
    per_attended: float = 0.0
    """Seconds per computed token and token before it. Attention counts for a small model; for an 8B
    model and some hundred tokens a pair it is a hundredth of the work."""
    step_tokens: int = 8192
    """Most tokens of a step: vLLM 0.32's default for an H100 behind an API
    (``EngineArgs.get_batch_defaults``); a longer sequence is continued in the next step."""
    step_sequences: int = 1024
    """Most sequences of a step, from the same place."""
    block: int = 16
    """Tokens per block of the prefix cache, vLLM's default on a GPU; hits are whole blocks."""
    cache_tokens: int = 48 * 1024
    """Tokens in the cache: ``loadtest.gpu.CACHE_TOKENS``, with which the service times were
    measured. An engine with its default memory has more."""

    def seconds(self, steps: float, sequences: int, tokens: float, attended: float = 0.0) -> float:
        """The time of steps with these sequences, computed and attended tokens in all."""
        return (
            self.overhead * steps
            + self.per_sequence * sequences
            + tokens / self.tokens_per_second
            + self.per_attended * attended
        )

    def hit(self, shared: int) -> int:
        """Tokens that a prompt of ``shared`` tokens in the cache saves."""
        return shared // self.block * self.block


@dataclass(slots=True)
class Engine:
    """First come, first served, as the engine's queue is among requests of one client."""

    times: ServiceTimes
    queue: deque[Sequence] = field(default_factory=deque)
    finishing: list[Sequence] = field(default_factory=list)
    """Sequences that the running step finishes."""
    computed: int = 0
    """Tokens computed since the start."""
    hit: int = 0
    """Tokens found in the cache since the start."""
    busy: bool = False
    _left: int = 0
    """Tokens of the queue's first sequence that earlier steps did not compute; 0: all."""
    _written: int = 0
    _last_use: dict[int, int] = field(default_factory=dict)
    """For each prompt, how many tokens the cache had been given when it was last used."""

    def step(self) -> float:
        """Start a step with what is queued; returns its duration in seconds."""
        times, queue, finishing = self.times, self.queue, self.finishing
        budget, attended = times.step_tokens, 0.0
        while queue and budget and len(finishing) < times.step_sequences:
            need = self._left or self._look_up(queue[0])
            length = queue[0].tokens
            part = min(need, budget)
            attended += part * (length - need + part / 2)
            if need > budget:
                self._left, budget = need - budget, 0
            else:
                self._left, budget = 0, budget - need
                finishing.append(queue.popleft())
        tokens = times.step_tokens - budget
        self.computed += tokens
        self.busy = True
        return times.seconds(1, len(finishing), tokens, attended)

    def finish(self) -> list[Sequence]:
        """End the step; returns what it finished."""
        finished, self.finishing = self.finishing, []
        self.busy = False
        return finished

    def lose(self) -> list[Sequence]:
        """Lose the queue, the step and the cache; returns the sequences that are unanswered."""
        lost = [*self.finishing, *self.queue]
        self.queue.clear()
        self.finishing, self.busy, self._left = [], False, 0
        self._last_use.clear()
        return lost

    def _look_up(self, sequence: Sequence) -> int:
        """Tokens to compute. vLLM keeps a block from when it is scheduled, so that sequences of one
        step share it; a prompt leaves when so much was written since its last use that the cache is
        full of newer tokens (least recently used, kept per prompt instead of per block)."""
        prompt, used = sequence.prompt, self._last_use.get(sequence.prompt)
        saved = 0
        if used is not None and self._written - used <= self.times.cache_tokens - sequence.tokens:
            saved = min(self.times.hit(sequence.shared), sequence.tokens - 1)
        need = sequence.tokens - saved
        self.hit += saved
        self._written += need
        self._last_use[prompt] = self._written
        return need
