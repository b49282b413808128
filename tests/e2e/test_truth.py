"""Some of the random checkpoints of ``make truth``, on a real engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.truth.combinations import choose
from tests.truth.comparison import compare

SEEDS = 24
"""Combinations that are compared; two kinds of models, so two engines."""


@pytest.mark.filterwarnings("default")  # transformers warns of odd tokenizers
def test_random_checkpoints_are_scored_as_transformers_scores_them(tmp_path: Path) -> None:
    chosen = [one for one in map(choose, range(60)) if one.body in ("gemma2", "qwen3")][:SEEDS]
    verdict = compare(chosen, tmp_path)
    assert not verdict.faults
    assert verdict.combinations["equal"] >= SEEDS * 3 // 4
    assert sum(verdict.combinations.values()) == SEEDS
