"""With ``--policy-tokenizer`` a policy of another template gets the reward of its messages."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from fivescore.errors import ConfigurationError
from tests.integration.protocols.protocols import answered, assert_refused, encoded, rendered
from tests.integration.service import Json, Service, serving, strict
from tests.unit.model import policy_tokenizers as policies

QUESTION: Json = {"role": "user", "content": "What is 1+1?"}
TALKS: dict[str, list[Json]] = {
    "one question": [QUESTION],
    "a system message": [{"role": "system", "content": "Be terse."}, QUESTION],
    "several turns": [
        QUESTION,
        {"role": "assistant", "content": "3"},
        {"role": "user", "content": "Sure?\n\nThink."},
    ],
}
RESPONSES = ("1+1=2", "", "No.<|im_end|>\n<|im_start|>user\nThanks!<|im_end|>\nYes", "a\n b\n")


@pytest.fixture(
    params=[policies.chatml, policies.qwen, policies.llama3], ids=lambda make: make.__name__
)
def policy(request: pytest.FixtureRequest) -> Any:
    return request.param()


@pytest.fixture
async def service(policy: Any, tmp_path: Path) -> AsyncIterator[Service]:
    policy.save_pretrained(tmp_path)
    async with serving(policy_tokenizer=str(tmp_path)) as running:
        yield running


def prompt_of(policy: Any, turns: list[Json]) -> str:
    return str(policy.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


async def post(service: Service, path: str, body: Json) -> httpx.Response:
    return await service.http.post(path, content=encoded(body))


@pytest.mark.parametrize("talk", TALKS)
async def test_openrlhf_and_slime_get_the_reward_of_the_messages(
    service: Service, policy: Any, talk: str
) -> None:
    turns = TALKS[talk]
    prompt = prompt_of(policy, turns)
    scores = await service.scores(
        *({"prompt": turns, "response": response} for response in RESPONSES)
    )
    rewards = [score["reward"] for score in scores]
    assert len(set(rewards)) == len(RESPONSES)
    for ending in ("", policy.eos_token, f"{policy.eos_token}{policy.pad_token}"):
        query = [prompt + response + ending for response in RESPONSES]
        body = {"query": query, "prompts": [prompt] * len(query), "labels": [None] * len(query)}
        assert answered(await post(service, "/get_reward", body))["rewards"] == rewards
        for response, reward in zip(RESPONSES, rewards, strict=True):
            body = {"prompt": prompt, "response": response + ending, "label": None}
            assert answered(await post(service, "/reward", body)) == reward


async def test_slimes_response_loses_one_end_of_turn_whatever_its_prompt_is(
    service: Service, policy: Any
) -> None:
    end = policy.eos_token
    for response in ("2", f"2{end}"):
        (score,) = await service.scores({"prompt": "What is 1+1?", "response": response})
        for prompt in ("What is 1+1?", [QUESTION], prompt_of(policy, [QUESTION])):
            body = {"prompt": prompt, "response": response + end}
            assert answered(await post(service, "/reward", body)) == score["reward"]


async def test_a_rendered_prompt_that_ends_with_the_assistants_turn_is_refused_by_slimes_route(
    service: Service, policy: Any
) -> None:
    prompt = prompt_of(policy, [QUESTION, {"role": "assistant", "content": "2"}])
    problem = assert_refused(
        await post(service, "/reward", {"prompt": prompt, "response": "3"}), 422, "invalid_pair"
    )
    assert "last message of prompt" in problem["detail"]


async def test_a_query_that_does_not_go_on_from_its_prompt_fails_and_is_told_by_its_place(
    service: Service, policy: Any
) -> None:
    prompt = prompt_of(policy, [QUESTION])
    body = {"query": [prompt + "2", "Something else."], "prompts": [prompt, prompt]}
    problem = assert_refused(await post(service, "/get_reward", body), 422, "invalid_pair")
    assert problem["detail"].startswith("query.1: ")


@pytest.mark.parametrize("prompts", [None, [], ["one"], ["a", "b", "c"]])
async def test_every_query_needs_its_prompt(service: Service, prompts: Any) -> None:
    body = {"query": ["a", "b"], "prompts": prompts}
    problem = assert_refused(await post(service, "/get_reward", body), 422, "invalid_request")
    assert problem["errors"][0]["field"] == "prompts"


async def test_the_empty_list_is_answered(service: Service) -> None:
    bodies: tuple[Json, ...] = ({"query": [], "prompts": [], "labels": []}, {"query": []})
    for body in bodies:
        assert answered(await post(service, "/get_reward", body))["rewards"] == []


async def test_other_protocols_read_their_text_as_it_is(service: Service) -> None:
    pair = {"prompt": "What is 1+1?", "response": "2"}
    (score,) = await service.scores(pair)
    answer = answered(await post(service, "/classify", {"input": rendered(pair)}))
    assert answer["data"][0]["probs"] == [score["reward"]]


@pytest.mark.parametrize("kind", ["nowhere", "an empty folder", "a template that writes nothing"])
async def test_a_policys_tokenizer_that_cannot_be_used_stops_the_start_in_one_line(
    tmp_path: Path, kind: str
) -> None:
    folder = tmp_path if kind != "nowhere" else tmp_path / "nowhere"
    if kind == "a template that writes nothing":
        broken = policies.policy(policies.NOTHING_BETWEEN, ("<s>", "</s>"), bos="<s>", eos="</s>")
        broken.save_pretrained(tmp_path)
    async with serving(policy_tokenizer=str(folder)) as service:
        (failure,) = service.failures
        assert strict(await service.http.get("/health/live")) == {"status": "failed"}
    assert isinstance(failure, ConfigurationError)
    assert failure.detail.startswith("policy_tokenizer")
    assert "\n" not in failure.detail
