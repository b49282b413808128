"""The labels, from 0 to 4, which rules compute: the checkpoint can learn nothing else.

``verbosity``
    The response's length in words w, as log2(w / 8) * 2/3: 8 words are 0, 512 words are 4.
``complexity``
    The share of words longer than six letters, one part of the readability index LIX (Bjoernsson
    1968): 10% are 0, 50% are 4.
``coherence``, ``correctness``, ``helpfulness``
    4 minus the cost of the damage (``COSTS``), and at least 0.
"""

from __future__ import annotations

import math
import re

from fivescore.model.manifest import ATTRIBUTES

COSTS: dict[str, tuple[float, float, float]] = {
    "mismatched": (4.0, 4.0, 0.0),
    "shuffled": (1.5, 0.5, 3.0),
    "truncated": (2.5, 2.5, 1.5),
    "repeated": (1.0, 0.0, 2.0),
    "simplified": (0.5, 0.5, 0.5),
}
"""The cost of each kind of damage in (helpfulness, correctness, coherence)."""
_WORD = re.compile(r"[^\W\d_]+")


def labels(response: str, damage: tuple[str, ...] = ()) -> dict[str, float]:
    """The five labels of a response with these kinds of damage."""
    costs = [sum(COSTS[name][i] for name in damage) for i in range(3)]
    values = [max(0.0, 4.0 - cost) for cost in costs]
    values += [complexity(response), verbosity(response)]
    return {name: round(value, 3) for name, value in zip(ATTRIBUTES, values, strict=True)}


def verbosity(response: str) -> float:
    """The label for the length in words, on a logarithmic scale."""
    return _clip(math.log2(max(len(response.split()), 1) / 8) * 2 / 3)


def complexity(response: str) -> float:
    """The label for the share of long words, as LIX counts them."""
    words = _WORD.findall(response)
    share = sum(len(word) > 6 for word in words) / max(len(words), 1)
    return _clip((share - 0.1) * 10)


def _clip(value: float) -> float:
    return min(4.0, max(0.0, value))
