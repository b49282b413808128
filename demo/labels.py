"""The made labels, 0 to 4: what each rule measures is all that the checkpoint can learn.

``verbosity``
    The response's length in words w, as log2(w / 8) * 2/3: 8 words are 0, 512 words are 4.
``complexity``
    The share of words longer than six letters, the part of the readability index LIX (Bjoernsson
    1968) that is about words: 10% are 0, 50% are 4.
``coherence``, ``correctness``, ``helpfulness``
    4, less what the damage costs (``COSTS``), never below 0.
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
"""Damage to its cost in (helpfulness, correctness, coherence)."""
_WORD = re.compile(r"[^\W\d_]+")


def labels(response: str, damage: tuple[str, ...] = ()) -> dict[str, float]:
    """The five labels of a response that got these kinds of damage."""
    costs = [sum(COSTS[name][i] for name in damage) for i in range(3)]
    values = [max(0.0, 4.0 - cost) for cost in costs]
    values += [complexity(response), verbosity(response)]
    return {name: round(value, 3) for name, value in zip(ATTRIBUTES, values, strict=True)}


def verbosity(response: str) -> float:
    """Length, on a logarithmic scale."""
    return _clip(math.log2(max(len(response.split()), 1) / 8) * 2 / 3)


def complexity(response: str) -> float:
    """Long words, as LIX counts them."""
    words = _WORD.findall(response)
    share = sum(len(word) > 6 for word in words) / max(len(words), 1)
    return _clip((share - 0.1) * 10)


def _clip(value: float) -> float:
    return min(4.0, max(0.0, value))
