"""A gated head through the whole service, on the fake engine."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fivescore.engine.fake import FakeEngine
from fivescore.model import gating
from fivescore.model.head import GatedHead
from tests.headed import Headed
from tests.integration.service import assert_problem, serving

PAIR = {"prompt": "What is a dog?", "response": "An animal."}


@pytest.fixture
def made(tmp_path: Path) -> Headed:
    gate = {"hidden": [16], "at": "prompt", "scale": 3.0}
    return Headed(tmp_path, "llama", {"kind": "gated", "gate": gate}, 4)


async def raw(made: Headed, token_ids: list[int]) -> list[float]:
    engine = FakeEngine(str(made.folder), {}, 6)
    await engine.load()
    return (await engine.encode(token_ids, "r")).values


async def test_a_score_has_the_outputs_and_their_gated_sum(made: Headed) -> None:
    ids = made.token_ids(**PAIR)
    gate = GatedHead.model_validate(made.head).gate
    until = gating.position(ids, gate.at) + 1
    weights = gating.weights(await raw(made, ids[:until]), gate)
    expected = gating.combined(await raw(made, ids), weights)
    async with serving(model=str(made.folder)) as service:
        (found,) = await service.scores(PAIR)
        assert 'head="gated"' in (await service.http.get("/metrics")).text
        head = (await service.http.get("/manifest")).json()["head"]
    assert [found[f"o{place}"] for place in range(4)] == pytest.approx(expected)
    assert found["reward"] == pytest.approx(expected[-1])
    assert (head["kind"], head["gate"]["at"]) == ("gated", made.head["gate"]["at"])


async def test_a_pair_that_is_cut_behind_its_prompt_s_end_fails_alone(made: Headed) -> None:
    end = made.tokenizer.decode(made.head["gate"]["at"])
    inside = {"prompt": "What is a dog?", "response": f"An animal.{end}No."}
    long = {"prompt": "What is a dog?", "response": "a dog " * 600}
    async with serving(model=str(made.folder)) as service:
        body = {"pairs": [long, PAIR, inside], "truncate": "prompt_start"}
        answer = await service.http.post("/score", json=body)
        cut, fine, marked = answer.json()["scores"]
    assert cut["error"]["code"] == "no_gate"
    assert "reward" in fine
    gate = GatedHead.model_validate(made.head).gate
    ids = made.token_ids(**PAIR)
    until = gating.position(ids, gate.at) + 1  # the prompt's own end, not the one in the text
    weights = gating.weights(await raw(made, ids[:until]), gate)
    outputs = [marked[f"o{place}"] for place in range(3)]
    total = sum(a * b for a, b in zip(weights, outputs, strict=True))
    assert marked["reward"] == pytest.approx(total)


async def test_a_pair_without_the_gate_s_tokens_fails_alone(made: Headed) -> None:
    bare: dict[str, Any] = {"token_ids": [1, 2, 3]}
    async with serving(model=str(made.folder)) as service:
        refused, fine = await service.scores(bare, PAIR)
        problem = assert_problem(await service.score(bare), 422, "no_gate")
        count = await service.metric("fivescore_pairs_total", outcome="no_gate")
    assert refused["error"]["code"] == "no_gate"
    assert "head.gate.at" in problem["detail"]
    assert "reward" in fine
    assert count == 2
