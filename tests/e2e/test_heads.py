"""Heads that are not one linear layer, in vLLM: equal to their formula in plain torch."""

from __future__ import annotations

from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from tests.e2e.server import Server, running
from tests.e2e.test_parity import RESPONSES, STRUCTURE
from tests.headed import Headed

TOLERANCE = 1e-4
LEAST_RANGE = 0.3
PROMPTS = (
    "What is a dog?",
    "  Two spaces before, and a newline after.\n",
    "def add(a, b):\n    return a + b",
    "人工智能是计算机科学的一个分支。" * 12,
)
TEXTS = [text for text in RESPONSES.values() if not any(one in text for one in STRUCTURE)]
PAIRS = [
    {"prompt": prompt, "response": response}
    for response, prompt in zip([*TEXTS, *TEXTS[:8]][:40], cycle(PROMPTS), strict=False)
]
TWO = ("--engine.tensor-parallel-size", "2")
"""Two ranks, each with a part of the vocabulary."""


def llama_mlp(folder: Path) -> Headed:
    return Headed(folder, "llama", {"kind": "mlp", "hidden": [48]}, 1)


def qwen_mlp(folder: Path) -> Headed:
    head = {"kind": "mlp", "hidden": [48, 32], "activation": "selu"}
    return Headed(folder, "qwen", head, 3)


def llama_token(folder: Path) -> Headed:
    return Headed(folder, "llama", {"kind": "token", "token": 0}, 1)


def qwen_token(folder: Path) -> Headed:
    """Tied; of the two ids one is in each rank's part."""
    head = {"kind": "token", "token": 600, "minus": 17}
    return Headed(folder, "qwen", head, 1, tied=True)


def llama_gated(folder: Path) -> Headed:
    """As ArmoRM: three layers, softmax, a scale, at the prompt's end."""
    gate = {"hidden": [32, 48], "scale": 1.5, "at": "prompt"}
    return Headed(folder, "llama", {"kind": "gated", "gate": gate}, 20)


def qwen_gated(folder: Path) -> Headed:
    """As URM: weights as they are, at the last token."""
    gate = {"hidden": [32], "activation": "silu", "softmax": False}
    return Headed(folder, "qwen", {"kind": "gated", "gate": gate}, 6)


@pytest.mark.parametrize(
    ("make", "flags"),
    [
        (llama_mlp, ()), (qwen_mlp, TWO),
        (llama_token, ()), (qwen_token, TWO),
        (llama_gated, TWO), (qwen_gated, ()),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)  # fmt: skip
def test_outputs_are_those_of_the_formula_alone_batched_and_cached(
    make: Callable[[Path], Headed],
    flags: tuple[str, ...],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Without it vLLM asks for a NUMA node for each rank.
    monkeypatch.setenv("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    made = make(tmp_path / "model")
    expected = [made.reference(made.token_ids(**pair)) for pair in PAIRS]
    for output in zip(*expected, strict=True):
        assert max(output) - min(output) > LEAST_RANGE
    with running(tmp_path / "log", "--model", str(made.folder), *flags) as server:
        server.until_ready()
        alone = [server.score([pair])[0] for pair in PAIRS]
        assert_equal(alone, expected)
        together = server.score(PAIRS)
        assert_equal(together, expected)
        assert any(one["cached_tokens"] for one in together)
        assert server.http.get("/manifest").json()["head"]["kind"] == made.head["kind"]
        if make is llama_gated:
            assert_refused_without_prompt(server)


def assert_equal(found: list[dict[str, float]], expected: list[list[float]]) -> None:
    for one, wanted in zip(found, expected, strict=True):
        outputs = [one[f"o{place}"] for place in range(len(wanted))]
        assert outputs == pytest.approx(wanted, abs=TOLERANCE)
        assert one["reward"] == outputs[-1]


def assert_refused_without_prompt(server: Server) -> None:
    entry, fine = server.score([{"token_ids": [1, 2, 3]}, PAIRS[0]])
    assert entry["error"]["code"] == "no_gate"
    assert "reward" in fine
