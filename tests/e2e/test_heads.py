"""Heads that are not one linear layer, in vLLM: equal to their formula in plain torch."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import pytest

from fivescore.model import manifest as manifests
from fivescore.model.manifest import FILE_NAME, read
from fivescore.model.reference import prove
from tests.e2e.server import START_SECONDS, Server, environment, running
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
    manifests.write(made.folder / FILE_NAME, prove(made.folder, read(str(made.folder / FILE_NAME))))
    with running(tmp_path / "log", "--model", str(made.folder), *flags) as server:
        server.until_ready()
        alone = [server.score([pair])[0] for pair in PAIRS]
        assert_equal(alone, expected)
        together = server.score(PAIRS)
        assert_equal(together, expected)
        assert any(one["cached_tokens"] for one in together)
        manifest = server.http.get("/manifest").json()
        assert (manifest["head"]["kind"], manifest["proved"]) == (made.head["kind"], True)
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


def test_a_check_compares_a_gated_head_with_its_reference_and_keeps_a_proof(tmp_path: Path) -> None:
    made = llama_gated(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "fivescore", "check", str(made.folder), "--write"],
        capture_output=True, text=True, timeout=START_SECONDS, env=environment({}), check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "agree: token ids are equal" in ended.stdout
    assert "UNEXPECTED" not in ended.stderr, "the head's tensors are no part of the body"
    kept = read(str(made.folder / FILE_NAME)).proof
    assert kept is not None
    assert len(kept.pairs[0].outputs) == made.outputs


def test_a_plugin_that_is_left_out_stops_the_start_with_one_line(tmp_path: Path) -> None:
    made = llama_mlp(tmp_path)
    ended = subprocess.run(
        [sys.executable, "-m", "fivescore", "serve", "--model", str(made.folder), "--port", "0"],
        capture_output=True, text=True, timeout=START_SECONDS, check=False,
        env=environment({"VLLM_PLUGINS": "another"}),
    )  # fmt: skip
    assert ended.returncode == 1
    assert "needs fivescore's plugin in vLLM" in ended.stderr.splitlines()[-1]
