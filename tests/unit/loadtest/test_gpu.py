"""What the GPU's cases assume of models and of memory."""

from __future__ import annotations

import pytest
import torch

from loadtest.gpu import CACHE_TOKENS, CASES, LLAMA_8B, QWEN_06B, Shape, _loads
from loadtest.sides import FIVESCORE

DEVICE_BYTES = 79 * 2**30
"""Of an H100 that are free."""
ENGINE_BYTES = 4 * 2**30
"""Of each engine beside weights and cache: its context, a step's results, CUDA graphs."""


@pytest.mark.parametrize(("shape", "parameters"), [(LLAMA_8B, 8.03e9), (QWEN_06B, 0.596e9)])
def test_a_shape_has_the_parameters_of_its_model(shape: Shape, parameters: float) -> None:
    """As their cards say: of Llama with an output embedding, of Qwen tied to the input's."""
    embeddings = (2 if shape is LLAMA_8B else 1) * shape.vocab_size * shape.hidden_size
    assert shape.weights + embeddings == pytest.approx(parameters, rel=0.005)


@pytest.mark.parametrize("name", CASES)
def test_the_sides_of_a_case_fit_into_the_device_together(name: str) -> None:
    case = CASES[name]
    shape, item = case.shape, getattr(torch, case.dtype).itemsize
    weights = (shape.weights + shape.vocab_size * shape.hidden_size) * item
    each = weights + CACHE_TOKENS * shape.cached_numbers * item + ENGINE_BYTES
    assert len(case.sides) * each < DEVICE_BYTES


@pytest.mark.parametrize("name", CASES)
def test_loads_ask_sides_of_their_case_alone(name: str) -> None:
    for load in _loads(name, CASES[name]):
        assert {FIVESCORE} <= load.contenders.keys() <= set(CASES[name].sides)
        assert {bar.other for bar in load.bars} <= load.contenders.keys()
