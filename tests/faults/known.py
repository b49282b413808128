"""Pairs, and the scores that they must get: by transformers, without the service or its engine."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivescore.types import Score

SEED = 6
TOLERANCE = 1e-4
"""``docs/reference.md``: what a score may change by with the batch, in float32."""
PROMPT_WORDS = (6, 30)
RESPONSE_WORDS = (8, 40)
RESPONSES = 4
"""To each prompt, as GRPO asks."""
TOLD_APART = 0.99
"""The share of neighbours whose scores must differ for a mix-up to show."""


@dataclass(frozen=True, slots=True)
class Known:
    """A pair and its score."""

    prompt: str
    response: str
    score: Score

    @property
    def body(self) -> dict[str, str]:
        return {"prompt": self.prompt, "response": self.response}

    def agrees(self, found: Mapping[str, Any]) -> bool:
        """Whether every number of a score is the one that it must be."""
        wanted = {**self.score.attributes, "reward": self.score.reward}
        return all(_near(found.get(name), value) for name, value in wanted.items())


def _near(found: object, wanted: float) -> bool:
    if not isinstance(found, int | float) or not math.isfinite(found):
        return False
    return abs(found - wanted) <= TOLERANCE


class Pairs:
    """Pairs of random words of the checkpoint's vocabulary, always the same ones.

    Args:
        folder: the checkpoint that is served.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: list[Known] = []
        self._words: list[str] = []
        self._others = 0

    def known(self, count: int) -> list[Known]:
        """The first ``count`` pairs, scored when first asked for.

        Raises:
            ValueError: the checkpoint gives neighbours the same score, so that a mix-up of them
                would not show.
        """
        missing = range(len(self._known), count)
        if missing:
            from demo.scores import Scorer  # torch takes seconds

            texts = [self._text(str(number), number) for number in missing]
            scores = Scorer(self._folder).score(texts)
            self._known += [Known(*text, score) for text, score in zip(texts, scores, strict=True)]
            _check_told_apart(self._known)
        return self._known[:count]

    def other(self, count: int) -> list[dict[str, str]]:
        """As many pairs that no server has seen, with scores that nobody knows."""
        first, self._others = self._others, self._others + count
        texts = [self._text(f"other {number}", number) for number in range(first, first + count)]
        return [{"prompt": prompt, "response": response} for prompt, response in texts]

    def _text(self, mark: str, number: int) -> tuple[str, str]:
        self._words = self._words or _vocabulary(self._folder)
        group = mark.removesuffix(str(number)) + str(number // RESPONSES)
        prompt = self._sentence(f"prompt {group}", PROMPT_WORDS)
        return prompt, self._sentence(f"response {mark}", RESPONSE_WORDS)

    def _sentence(self, mark: str, length: tuple[int, int]) -> str:
        rng = random.Random(f"{SEED} {mark}")
        return f"{mark} " + " ".join(rng.choices(self._words, k=rng.randint(*length)))


def _vocabulary(folder: Path) -> list[str]:
    from transformers import AutoTokenizer  # seconds, as torch

    tokens = AutoTokenizer.from_pretrained(folder).get_vocab()
    words = {token.lstrip("Ġ▁") for token in tokens}
    return sorted(word for word in words if len(word) > 2 and word.isascii() and word.isalpha())


def _check_told_apart(known: list[Known]) -> None:
    near = [one.agrees(_entry(other)) for one, other in itertools.pairwise(known)]
    if sum(near) > (1 - TOLD_APART) * len(near):
        raise ValueError(f"{sum(near)} of {len(near)} pairs score like their neighbours")


def _entry(known: Known) -> dict[str, float]:
    return {**known.score.attributes, "reward": known.score.reward}
