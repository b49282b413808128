"""Imported NeMo checkpoints on real vLLM: Megatron's own outputs, from its token ids and ours."""

from __future__ import annotations

from pathlib import Path

import pytest

from fivescore.model.importers import nemo
from fivescore.types import ATTRIBUTES
from tests.e2e.server import running
from tests.nemo.made_folders import KEPT, expected, source, write

TOLERANCE = 1e-4
FIRST = 4
"""The first of the five attributes among NeMo's nine outputs."""


@pytest.mark.parametrize("name", ["torch_dist-llama-layers-tp2", "torch_dist-nemotron-bfloat16"])
def test_an_import_is_served_with_megatron_s_outputs(name: str, tmp_path: Path) -> None:
    made = KEPT / name
    plan = nemo.plan(source(made))
    folder = write(plan, tmp_path / name)
    facts = expected(made)
    flags = ("--model", str(folder), "--engine.dtype", "float32")
    with running(tmp_path / "server.log", *flags) as server:
        server.until_ready()
        pairs = [{"token_ids": sequence["ids"]} for sequence in facts["sequences"]]
        *scores, text = server.score([*pairs, {"prompt": "Hi, a dog?", "response": "A fox."}])
    weights = getattr(plan.manifest.reward, "weights")  # noqa: B009
    for sequence, score in zip(facts["sequences"], scores, strict=True):
        outputs = dict(zip(ATTRIBUTES, sequence["outputs"][FIRST:], strict=True))
        assert {each: score[each] for each in ATTRIBUTES} == pytest.approx(outputs, abs=TOLERANCE)
        reward = sum(weights[each] * outputs[each] for each in ATTRIBUTES)
        assert score["reward"] == pytest.approx(reward, abs=TOLERANCE)
    assert text["tokens"] == len(facts["texts"][0]["ids"])
