"""Workloads: pairs of real text from RM-Bench, or made text of the same lengths."""

from __future__ import annotations

import json
import random
from pathlib import Path

from fivescore.types import Pair

SEED = 7
PROMPT_WORDS = (20, 120)
RESPONSE_WORDS = (60, 240)


def from_rmbench(file: Path) -> list[Pair]:
    """Every prompt of an RM-Bench file with its six responses, prompts mixed by a fixed seed."""
    rows = json.loads(file.read_text())
    pairs = [
        Pair(prompt=row["prompt"], response=response)
        for row in rows
        for response in (*row["chosen"], *row["rejected"])
    ]
    random.Random(SEED).shuffle(pairs)
    return pairs


def made(count: int, vocabulary: list[str]) -> list[Pair]:
    """Pairs of random words, of RM-Bench chat's lengths, from a fixed seed."""
    rng = random.Random(SEED)

    def words(least: int, most: int) -> str:
        return " ".join(rng.choices(vocabulary, k=rng.randint(least, most)))

    return [
        Pair(prompt=words(*PROMPT_WORDS), response=words(*RESPONSE_WORDS)) for _ in range(count)
    ]


def marked(pairs: list[Pair], mark: str) -> list[Pair]:
    """The same pairs, each prompt starting with ``mark``: nothing of another round is cached."""
    return [Pair(prompt=f"{mark} {pair.prompt}", response=pair.response) for pair in pairs]
