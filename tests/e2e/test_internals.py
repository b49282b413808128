"""A vLLM whose internal names have moved: scores stay right, by slower ways; the log says so."""

from __future__ import annotations

from pathlib import Path

from fivescore.engine.vllm import internals
from tests.e2e.server import Server, running

TEXTS = [{"prompt": f"What is {n} plus {n}?", "response": f"It is {2 * n}."} for n in range(20)]
NOT_AT_A_START = (internals.HEAD, internals.HEADED)
"""What only a model that is quantised while it loads, and one with another head than a linear
layer, need."""


def test_without_what_vllm_may_move_scores_are_the_same(demo: Server, tmp_path: Path) -> None:
    expected = [entry["reward"] for entry in demo.score(TEXTS)]
    with running(tmp_path / "log", module="tests.e2e.without_internals") as server:
        server.until_ready()
        found = [entry["reward"] for entry in server.score(TEXTS)]
        log = server.log.read_text()
    assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 1e-4
    fallbacks = {one.without for one in internals.INTERNALS} - {internals.STOP, *NOT_AT_A_START}
    assert [one for one in fallbacks if one not in log] == []
