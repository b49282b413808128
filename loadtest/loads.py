"""The loads of ``make bench``, one per row of its table, with their contenders and bars."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from fivescore.types import Pair
from loadtest.sides import FIVESCORE, LIMIT, OFFLINE, TRANSFORMERS, VLLM, Work
from loadtest.texts import Texts, shuffled

PAIRS = 512
"""Default number of pairs per round and contender."""
SLOW_PAIRS, SLOWEST_PAIRS = 256, 128
"""The same for ``vllm serve`` and for transformers, because only rates are compared."""
LONG = 4
"""Factor on the pairs of short loads, so that idle cores reach full speed during a turn."""
PROMPTS, RESPONSES, PROMPT_TOKENS = 64, 8, 300
ROLLOUTS = 256
LATENCIES = 200
"""Single pairs per round whose latencies are measured."""
UNCACHED = f"{FIVESCORE} --engine.enable-prefix-caching false"
SMALL = f"{FIVESCORE} --engine.kv-cache-memory-bytes {24 * 2**20}"
"""A KV cache of 5,800 tokens of the demo: far fewer than the 25,000 of the groups' texts."""
Make = Callable[[Texts, int], Work]
"""The work of one round, from the texts and the round's number."""


@dataclass(frozen=True)
class Contender:
    """A side and its work in a load."""

    side: str
    make: Make


@dataclass(frozen=True)
class Bar:
    """The rate of ``ours`` must be ``least`` times that of ``other``; 0 only reports the ratio."""

    ours: str
    other: str
    least: float
    aim: float | None = None


@dataclass(frozen=True)
class Load:
    """One row of the table; ``regime`` is the name of the checkpoint."""

    name: str
    regime: str
    contenders: Mapping[str, Contender]
    bars: Sequence[Bar]


def _same(make: Make, *sides: str) -> dict[str, Contender]:
    return {side: Contender(side, make) for side in sides}


def _all(batch: int, workers: int = 1, *more: str, times: int = 1) -> dict[str, Contender]:
    """All HTTP sides with texts; slow peers get fewer, because only rates are compared."""
    slowest = min(batch, SLOWEST_PAIRS)
    return {
        **_same(_texts(batch, workers, times * PAIRS), FIVESCORE, *more),
        **_same(_texts(batch, workers, max(batch, times * SLOW_PAIRS)), VLLM),
        **_same(_texts(slowest, workers, times * SLOWEST_PAIRS), TRANSFORMERS),
    }


def _texts(batch: int, workers: int, pairs: int, new_connections: bool = False) -> Make:
    return lambda texts, _: Work(texts.take(pairs), batch, workers, new_connections=new_connections)


def _in_turn(pairs: int) -> dict[str, Contender]:
    def make(texts: Texts, _: int) -> Work:
        return Work(texts.take(pairs), 64, one_by_one=True)

    return {IN_TURN: Contender(LIMIT, make)}


def _beside(programs: int) -> Make:
    return lambda texts, _: Work(texts.take(SLOW_PAIRS), 64, beside=programs)


def _ids(texts: Texts, _: int) -> Work:
    return Work(texts.take(PAIRS), PAIRS, as_ids=True)


def _one_by_one(texts: Texts, _: int) -> Work:
    return Work(texts.take(LATENCIES), 1, one_by_one=True)


def _grouped(texts: Texts, _: int) -> Work:
    return Work(_groups(texts), PAIRS)


def _shuffled(texts: Texts, number: int) -> Work:
    return Work(shuffled(_groups(texts), number), PAIRS)


def _groups(texts: Texts) -> list[Pair]:
    return texts.groups(PROMPTS, RESPONSES, PROMPT_TOKENS)


IN_TURN = "engine, 64 at a time"
"""The engine alone in turns of 64 pairs, between which it is idle as between two POSTs."""
IDLE = "single pairs, idle server"
"""The load that measures latencies; it has no bars."""
ALONE, FIXED_ALONE = "fivescore alone", "fixed threads, alone"
FIXED = f"{FIVESCORE} --engine.worker-cls vllm.v1.worker.cpu_worker.CPUWorker"
"""vLLM's own worker, with a fixed number of threads."""
_GROUPS = f"{PROMPTS} prompts x {RESPONSES} responses, {PROMPT_TOKENS}-token prompts, shuffled"
ENGINE_BOUND = (
    Bar(FIVESCORE, LIMIT, 0.97, 0.99),
    Bar(FIVESCORE, VLLM, 1),
    Bar(FIVESCORE, TRANSFORMERS, 1.7),
)
LOADS = (
    Load(
        "one POST of 512 texts", "nano",
        _all(PAIRS, 1, LIMIT, OFFLINE),
        [Bar(FIVESCORE, VLLM, 1.4), Bar(FIVESCORE, LIMIT, 0.85, 0.95)],
    ),
    Load(
        "POSTs of 64 texts, one after another", "nano",
        _all(64, 1, LIMIT, times=LONG) | _in_turn(LONG * PAIRS),
        [Bar(FIVESCORE, VLLM, 1.5), Bar(FIVESCORE, LIMIT, 0, 0.85), Bar(FIVESCORE, IN_TURN, 0)],
    ),
    Load(
        "64 clients, one text a POST, connections kept", "nano",
        _all(1, 64, LIMIT, times=LONG),
        [Bar(FIVESCORE, VLLM, 1.5), Bar(FIVESCORE, LIMIT, 0, 0.85)],
    ),
    Load(
        "256 rollouts, one text a POST, a new connection each", "nano",
        _same(_texts(1, ROLLOUTS, LONG * ROLLOUTS, new_connections=True), FIVESCORE, VLLM)
        | _same(_texts(1, ROLLOUTS, ROLLOUTS, new_connections=True), TRANSFORMERS),
        [Bar(FIVESCORE, VLLM, 1.4)],
    ),
    Load(
        "one POST of 512 token ids", "nano",
        _same(_ids, FIVESCORE, VLLM, LIMIT),
        [Bar(FIVESCORE, VLLM, 1.1), Bar(FIVESCORE, LIMIT, 1.0)],
    ),
    Load(IDLE, "nano", _same(_one_by_one, FIVESCORE, VLLM, LIMIT), []),
    Load(
        "POSTs of 64 texts, one after another", "demo",
        _all(64, 1, LIMIT) | _in_turn(PAIRS),
        [*ENGINE_BOUND, Bar(FIVESCORE, IN_TURN, 0)],
    ),
    Load(
        "one POST of 512 texts", "demo",
        _all(PAIRS, 1, LIMIT, OFFLINE),
        ENGINE_BOUND,
    ),
    Load(
        "64 clients, one text a POST, connections kept", "demo",
        _all(1, 64),
        [Bar(FIVESCORE, VLLM, 1), Bar(FIVESCORE, TRANSFORMERS, 3)],
    ),
    Load(
        "POSTs of 64 texts, beside a busy program", "demo",
        {
            **_same(_beside(1), FIVESCORE, FIXED, VLLM),
            ALONE: Contender(FIVESCORE, _beside(0)),
            FIXED_ALONE: Contender(FIXED, _beside(0)),
        },
        [
            Bar(FIVESCORE, ALONE, 0.6),
            Bar(FIVESCORE, VLLM, 1),
            Bar(FIVESCORE, FIXED, 0),
            Bar(ALONE, FIXED_ALONE, 0.95),
        ],
    ),
    Load(
        _GROUPS, "demo",
        {
            **_same(_shuffled, FIVESCORE, UNCACHED, VLLM),
            "grouped": Contender(FIVESCORE, _grouped),
        },
        [
            Bar(FIVESCORE, UNCACHED, 2.2, 2.7),
            Bar(FIVESCORE, VLLM, 1.05),
            Bar(FIVESCORE, "grouped", 0.97),
        ],
    ),
    Load(
        f"{_GROUPS}, small KV cache", "demo",
        {"shuffled": Contender(SMALL, _shuffled), "grouped": Contender(SMALL, _grouped)},
        [Bar("shuffled", "grouped", 0.97)],
    ),
)  # fmt: skip
