"""A gated head's second half: where its gate is computed, and the sum that its weights make.

``n`` is the number of outputs beside their gated sum. The engine's own answer at a token is
``[2 * n]``: the outputs, then the gate's. ArmoRM (arXiv 2406.12845) reads the outputs at the last
token of the pair and the gate at the end of the prompt.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from fivescore.errors import NoGate
from fivescore.model.head import Gate


def position(token_ids: Sequence[int], at: Sequence[int]) -> int:
    """The place of the first token of the last occurrence of ``at``; of the last token without it.

    Raises:
        NoGate: ``at`` does not occur.
    """
    if not at:
        return len(token_ids) - 1
    wanted, first = list(at), at[0]
    for place in range(len(token_ids) - len(wanted), -1, -1):
        if token_ids[place] == first and token_ids[place : place + len(wanted)] == wanted:
            return place
    raise NoGate(
        "the pair lacks the token ids that the model's gate is computed at"
        f" ({', '.join(map(str, at))}, head.gate.at of the manifest): send prompt and response, or"
        " text in the model's own template",
        tokens=len(token_ids),
    )


def weights(raw: Sequence[float], gate: Gate) -> list[float]:
    """The weights ``[n]`` of the outputs, of the engine's answer ``[2 * n]`` at its token."""
    values = raw[len(raw) // 2 :]
    return [gate.scale * value for value in (_softmax(values) if gate.softmax else values)]


def combined(raw: Sequence[float], weights: Sequence[float]) -> list[float]:
    """The manifest's outputs ``[n + 1]``: those of the engine's answer ``[2 * n]``, then their sum
    with ``weights``."""
    outputs = list(raw[: len(raw) // 2])
    return [*outputs, sum(a * b for a, b in zip(weights, outputs, strict=True))]


def _softmax(values: Sequence[float]) -> list[float]:
    highest = max(values)
    if not math.isfinite(highest):
        return [math.nan] * len(values)
    powers = [math.exp(value - highest) for value in values]
    total = sum(powers)
    return [power / total for power in powers]
