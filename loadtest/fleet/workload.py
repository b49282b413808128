"""Arrivals of RL trainers: steps of k prompts with n responses each, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from loadtest.fleet.engine import ServiceTimes

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
SEED = 7


@dataclass(frozen=True)
class Shape:
    """A trainer's step.

    The defaults are the load "64 prompts x 8 responses, 300-token prompts" of ``loadtest.gpu``
    (``Texts.groups(64, 8, 300)`` on the demo's tokenizer): 311 shared and 70 own tokens on average.
    """

    prompts: int = 64
    responses: int = 8
    shared: int = 311
    """Mean tokens that the responses to a prompt share: the prompt with its frame."""
    own: int = 70
    """Mean tokens of a response."""
    spread: float = 0.5
    """Lengths are uniform within this share of the mean, both sides."""


@dataclass(frozen=True)
class Arrivals:
    """Sequences in the order of their arrival, as columns."""

    at: Floats
    """Seconds from the start."""
    prompt: Ints
    shared: Ints
    """Tokens."""
    own: Ints
    """Tokens."""

    def __len__(self) -> int:
        return len(self.at)

    @property
    def tokens(self) -> int:
        return int(self.shared.sum() + self.own.sum())

    def least_tokens(self, times: ServiceTimes) -> int:
        """Tokens to compute if each prompt is computed once."""
        _, first = np.unique(self.prompt, return_index=True)
        hits = np.minimum(self.shared // times.block * times.block, self.shared + self.own - 1)
        return self.tokens - int(hits.sum() - hits[first].sum())

    def ideal_seconds(self, times: ServiceTimes, engines: int) -> float:
        """The time of engines that share the work evenly, in full steps, each prompt once."""
        tokens = self.least_tokens(times)
        return times.seconds(tokens / times.step_tokens, len(self), tokens) / engines

    def through(self, seconds: float) -> Arrivals:
        """The arrivals behind a process that takes ``seconds`` for each sequence, one by one."""
        number = np.arange(len(self))
        since = np.maximum.accumulate(self.at - seconds * number)
        return replace(self, at=since + seconds * (number + 1))


def at_once(shape: Shape, shuffled: bool = True, seed: int = SEED) -> Arrivals:
    """One step, all of it at time 0; ``shuffled`` mixes the responses of all prompts."""
    return steps(shape, np.zeros(1), shuffled=shuffled, seed=seed)


def poisson(
    shape: Shape, rate: float, seconds: float, spread: float = 0.0, seed: int = SEED
) -> Arrivals:
    """Steps of independent trainers.

    Args:
        rate: mean sequences per second.
        seconds: the time in which steps begin.
        spread: seconds over which the responses of a step arrive, evenly, as rollouts end one by
            one; 0 is a trainer that waits for its whole batch before it asks for scores.
    """
    rng = np.random.default_rng(seed)
    mean = shape.prompts * shape.responses / rate
    gaps = rng.exponential(mean, int(seconds / mean * 1.5) + 50)
    begins = np.cumsum(gaps)
    return steps(shape, begins[begins < seconds], spread, seed=seed)


def steps(
    shape: Shape,
    begins: Floats,
    spread: float = 0.0,
    *,
    shuffled: bool = True,
    seed: int = SEED,
) -> Arrivals:
    """One step of ``shape`` at each time of ``begins``, with prompts that no other step has."""
    rng = np.random.default_rng(seed)
    prompts = np.arange(len(begins) * shape.prompts)
    prompt = np.repeat(prompts, shape.responses)
    begin = np.repeat(begins, shape.prompts * shape.responses)
    at = begin + spread * rng.random(len(prompt))
    order = np.lexsort((rng.random(len(at)) if shuffled else prompt, at))
    shared = _lengths(rng, shape.shared, shape.spread, len(prompts))[prompt]
    own = _lengths(rng, shape.own, shape.spread, len(prompt))
    return Arrivals(at[order], prompt[order], shared[order], own[order])


def _lengths(rng: np.random.Generator, mean: int, spread: float, count: int) -> Ints:
    least, most = round(mean * (1 - spread)), round(mean * (1 + spread))
    return rng.integers(max(1, least), most, count, endpoint=True)
