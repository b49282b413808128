"""Service times of engines from measurements: three constants that explain the times of loads."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import nnls

from loadtest.fleet.engine import ServiceTimes
from loadtest.gpu import LLAMA_8B, QWEN_06B, TOKENS
from loadtest.gpu import Shape as Model
from loadtest.report import GPU

FILE = GPU / "NVIDIA-H100-80GB-HBM3.json"
"""``python -m loadtest.gpu`` on an H100."""
MODELS: Mapping[str, tuple[Model, int]] = {
    "8b-bf16": (LLAMA_8B, 2),
    "8b-fp8": (LLAMA_8B, 1),
    "0.6b-bf16": (QWEN_06B, 2),
}
"""The shape of each case of ``loadtest.gpu``, and the bytes of a weight."""
GROUPED_TOKENS = 116.2
"""Tokens that a pair of the load with groups computes on average, of its 380.9: counted with
``Texts.groups(64, 8, 300)`` of ``loadtest.gpu`` and blocks of 16 tokens."""
DEVICE_BYTES = 80e9
"""Memory of an H100, from its data sheet."""
USED = 0.92
"""vLLM 0.32's default of ``gpu_memory_utilization`` (``vllm.config.CacheConfig``)."""
STEP_BYTES = 4e9
"""Assumed for activations, graphs and the CUDA context: not measured."""
SINGLE, GROUPS, POSTS = "single pairs, idle server", "64 prompts x 8 responses", "POSTs of 64"


class Point(NamedTuple):
    """A measured load on one engine."""

    name: str
    seconds: float
    steps: float
    sequences: int
    tokens: float
    """Computed tokens."""
    attended: float = 0.0
    """For all computed tokens, the tokens before them; 0 leaves their cost to the others."""


def fit(points: Sequence[Point], **limits: int) -> ServiceTimes:
    """The constants, none negative, with the least relative errors (sum of squares).

    Args:
        limits: fields of ``ServiceTimes`` that are no times.
    """
    work = np.array([[one.steps, one.sequences, one.tokens, one.attended] for one in points])
    seconds = np.array([one.seconds for one in points])
    constants, _ = nnls(work / seconds[:, None], np.ones(len(points)))
    overhead, per_sequence, per_token, per_attended = constants.tolist()
    return ServiceTimes(overhead, per_sequence, 1 / per_token, per_attended, **limits)


def h100(case: str) -> ServiceTimes:
    """One H100's service times behind ``POST /score``.

    Fitted to the medians of "one POST", of groups and of single pairs. From the latency of single
    pairs the HTTP process's CPU time is taken off, which in large loads is beside the engine's.

    Raises:
        KeyError: the file has no such case.
    """
    model, size = MODELS[case]
    bytes_left = DEVICE_BYTES * USED - STEP_BYTES - size * _weights(model)
    cache = int(bytes_left / (2 * model.cached_numbers))
    return fit(points(case)[:3], cache_tokens=cache)


def points(case: str) -> list[Point]:
    """The measured loads of a case: one POST, groups, single pairs; then what is not fitted."""
    step = ServiceTimes.step_tokens
    one = _row(case, "one POST")
    tokens = one["tokens_per_second"] / one["pairs_per_second"]
    found = []
    for name, mean in (("one POST", tokens), (GROUPS, GROUPED_TOKENS)):
        row = _row(case, name)
        seconds = row["latency_ms"]["p50"] / 1000
        pairs = round(row["pairs_per_second"] * seconds)
        found.append(Point(name, seconds, pairs * mean / step, pairs, pairs * mean))
    row = _row(case, SINGLE)
    seconds = (row["latency_ms"]["p50"] - row["cpu_seconds_per_1000_pairs"]) / 1000
    found.append(Point(SINGLE, seconds, 1, 1, tokens))
    if row := _row(case, POSTS):
        seconds = 64 / row["pairs_per_second"]
        found.append(Point(POSTS, seconds, np.ceil(64 * tokens / step), 64, 64 * tokens))
    return found


def http_seconds(case: str) -> float:
    """CPU seconds of the HTTP process per pair, in the load with groups."""
    return float(_row(case, GROUPS)["cpu_seconds_per_1000_pairs"]) / 1000


def single_http_seconds() -> float:
    """The same where each pair is a POST of its own: 64 clients of the 0.6B case."""
    row = _row("0.6b-bf16", f"64 clients, texts of {TOKENS}")
    return float(row["cpu_seconds_per_1000_pairs"]) / 1000


def pairs_per_second(case: str, load: str = "one POST") -> float:
    """Measured pairs per second of a load: "one POST" of 512 tokens a pair, or ``GROUPS``."""
    return float(_row(case, load)["pairs_per_second"])


def _row(case: str, start: str, file: Path = FILE) -> dict[str, Any]:
    """What fivescore measured in a load whose name begins so; empty without it."""
    for row in json.loads(file.read_text())["loads"]:
        if row["regime"] == case and row["load"].startswith(start):
            measured: dict[str, Any] = row["contenders"]["fivescore"]
            return measured
    return {}


def _weights(model: Model) -> int:
    """All weights, with the input embedding's; a reward model has no output embedding."""
    return model.weights + model.vocab_size * model.hidden_size


def compared(case: str) -> list[dict[str, Any]]:
    """Measured seconds of each load beside those of the fitted constants."""
    times = h100(case)
    return [
        {
            "load": one.name,
            "measured, s": one.seconds,
            "fitted, s": times.seconds(one.steps, one.sequences, one.tokens),
            "used for the fit": number < 3,
        }
        for number, one in enumerate(points(case))
    ]
