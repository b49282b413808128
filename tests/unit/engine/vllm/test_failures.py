"""The line of a failed start: the cause and the next step, in 300 characters."""

from __future__ import annotations

import pytest

from fivescore.engine.vllm.failures import MOST_CHARACTERS, startup_failure

ARCHITECTURES = "Model architectures ['NoSuchModel'] are not supported for now. Supported: " + (
    "'ModelForCausalLM', " * 500
)


@pytest.mark.parametrize(
    ("cause", "named"),
    [
        (ARCHITECTURES, ("NoSuchModel", "config.json")),
        ("Value error, " + ARCHITECTURES, ("NoSuchModel", "config.json")),
        ("Head size 40 is not supported by CPU attention", ("Head size 40", "attention")),
        ("0.1 GiB KV cache is needed", ("0.1 GiB", "--engine.kv-cache-memory-bytes")),
        ("No available memory for the cache blocks.", ("--max-tokens",)),
        ("Error while deserializing header", ("header", "damaged")),
        ("something\nnew " * 100, ("something new", "--log-level debug")),
        ("x" * 5000, ("xxx", "--log-level debug")),
    ],
)
@pytest.mark.parametrize("model", ["me/model", "/a" * 400 + "/model"])
def test_a_short_line_says_what_to_do(model: str, cause: str, named: tuple[str, ...]) -> None:
    line = startup_failure(model, cause)
    assert len(line) <= MOST_CHARACTERS
    assert "\n" not in line
    assert line.startswith("model ")
    for word in ("/model", *named):
        assert word in line
