"""The policy's end of turn is no word of its response, on every protocol that carries it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.protocols.protocols import Json, answered, encoded, rendered_prompt
from tests.integration.service import Service

QUESTION = "What is 1+1?"
PROMPT = rendered_prompt({"prompt": QUESTION, "response": ""})
MESSAGES = [{"role": "user", "content": QUESTION}]
SAMPLED: dict[str, tuple[str, Callable[[str], Json], Callable[[Any], float]]] = {
    "slime, text": (
        "/reward", lambda said: {"prompt": QUESTION, "response": said}, float
    ),
    "slime, messages": (
        "/reward", lambda said: {"prompt": MESSAGES, "response": said}, float
    ),
    "openrlhf": (
        "/get_reward", lambda said: {"query": [PROMPT + said], "prompts": [PROMPT]},
        lambda answer: float(answer["rewards"][0]),
    ),
    "llama-factory": (
        "/v1/score/evaluation", lambda said: {"messages": [PROMPT + said]},
        lambda answer: float(answer["scores"][0]),
    ),
}  # fmt: skip
sampled = pytest.mark.parametrize("protocol", SAMPLED)


async def reward(service: Service, protocol: str, said: str) -> float:
    path, body, read = SAMPLED[protocol]
    return read(answered(await service.http.post(path, content=encoded(body(said)))))


@sampled
@pytest.mark.parametrize("ending", ["<|eot_id|>", "<|eot_id|>\n", "<|eot_id|><|pad|><|pad|>"])
async def test_an_ending_changes_no_reward(service: Service, protocol: str, ending: str) -> None:
    (score,) = await service.scores({"prompt": QUESTION, "response": "1+1=2"})
    assert await reward(service, protocol, "1+1=2" + ending) == score["reward"]


@pytest.mark.parametrize("protocol", ["slime, text", "slime, messages"])
async def test_an_end_that_the_policy_wrote_itself_is_scored(
    service: Service, protocol: str
) -> None:
    (score,) = await service.scores({"prompt": QUESTION, "response": "2<|eot_id|>"})
    assert await reward(service, protocol, "2<|eot_id|><|eot_id|>") == score["reward"]


@pytest.mark.parametrize("protocol", ["openrlhf", "llama-factory"])
async def test_a_rendered_response_that_was_cut_gets_no_end(
    service: Service, protocol: str
) -> None:
    (score,) = await service.scores({"text": PROMPT + "1+1"})
    assert await reward(service, protocol, "1+1") == score["reward"]
