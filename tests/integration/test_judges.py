"""Judges, preference models and environments, called as their trainers call them."""

from __future__ import annotations

import asyncio
import inspect
import math
import pickle
import sys
import threading
from collections import UserList
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import accumulate
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import httpx
import pytest
from pydantic import BaseModel

from fivescore.client import RewardClient
from fivescore.client.defaults import BATCH_SIZE, FEW_REQUESTS
from fivescore.client.integrations import gather, ms_swift, roll, skyrl, tinker, trl, verifiers
from fivescore.client.integrations.gather import Gatherer, shared_gatherer
from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.types import Score
from tests.unit.client.fakes import Fleet, Hurry, Json
from tests.unit.model import policy_tokenizers as policies

USER: Json = {"role": "user", "content": "Name a prime."}
CALL: Json = {"role": "assistant", "content": "7", "tool_calls": [{"id": "1"}]}


def said(text: str) -> Json:
    return {"role": "assistant", "content": text}


@pytest.fixture
def expected(url: str) -> list[Score]:
    with RewardClient(url) as client:
        return client.score([(USER["content"], "7"), (USER["content"], "eight")])


@pytest.fixture(autouse=True)
def at_server(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("FIVESCORE_URL", url)
    caches = (gather._gatherer_of, trl._from_environment)
    for cache in caches:
        cache.cache_clear()
    yield
    for cache in caches:
        cache.cache_clear()


# verifiers


class Message(BaseModel):
    role: str
    content: str | None = None
    reasoning_content: str | None = None


def rollout(*turns: Json) -> Any:
    metrics: dict[str, float] = {}
    messages = [Message(**turn) for turn in turns]
    return SimpleNamespace(
        messages=messages, last_reply=turns[-1]["content"],
        metrics=metrics, record_metrics=metrics.update,
    )  # fmt: skip


TASK = SimpleNamespace(prompt=USER["content"], system_prompt=None)


def judge(**config: Any) -> Any:
    return verifiers.FivescoreJudge(verifiers.FivescoreJudgeConfig(**config))


@pytest.mark.parametrize("view", ["conversation", "last_reply"])
async def test_a_rollout_gets_its_reward_and_the_attributes_as_metrics(
    expected: list[Score], view: str
) -> None:
    traces = [rollout(USER, said("7")), rollout(USER, said("eight"))]
    # verifiers makes a judge per rollout
    rewards = await asyncio.gather(*(judge(view=view).score(TASK, trace) for trace in traces))
    assert rewards == [score.reward for score in expected]
    for trace, score in zip(traces, expected, strict=True):
        assert trace.metrics == {f"fivescore/{k}": v for k, v in score.attributes.items()}


async def test_reasoning_is_refused_unless_only_the_last_reply_is_to_be_read(
    expected: list[Score],
) -> None:
    trace = rollout(USER, {**said("7"), "reasoning_content": "2, 3, 5, 7"})
    with pytest.raises(InvalidPair, match="reasoning_content"):
        await judge().score(TASK, trace)
    assert trace.metrics == {}
    assert await judge(view="last_reply").score(TASK, trace) == expected[0].reward


async def test_an_empty_answer_which_verifiers_makes_none_of_is_scored(url: str) -> None:
    with RewardClient(url) as client:
        (score,) = client.score([(USER["content"], "")])
    trace = rollout(USER, {"role": "assistant", "content": None})
    assert await judge().score(TASK, trace) == score.reward


@pytest.mark.parametrize("prompt", [USER["content"], [Message(**USER)]], ids=["text", "messages"])
async def test_the_system_prompt_of_a_task_is_part_of_its_prompt(url: str, prompt: Any) -> None:
    system = {"role": "system", "content": "Be brief."}
    with RewardClient(url) as client:
        (score,) = client.score([{"prompt": [system, USER], "response": "7"}])
    task = SimpleNamespace(prompt=prompt, system_prompt=system["content"])
    trace = rollout(USER, said("7"))
    weights = {"verbosity": 2.0}
    one = judge(view="last_reply", urls=url, attribute_weights=weights)
    assert await one.score(task, trace) == pytest.approx(2 * score.attributes["verbosity"])


# tinker-cookbook


def comparison(a: str, b: str, prompt: Json = USER) -> Any:
    return SimpleNamespace(
        prompt_conversation=[prompt], completion_A=[said(a)], completion_B=[said(b)]
    )


@pytest.mark.parametrize("scale", [1.0, 0.25])
async def test_a_preference_is_bradley_and_terrys(expected: list[Score], scale: float) -> None:
    model = tinker.FivescorePreferenceModel(scale=scale)
    a, b = (score.reward for score in expected)
    chance_of_b = 1 / (1 + math.exp(scale * (a - b)))
    preference = await model(comparison("7", "eight"))
    assert preference == pytest.approx(chance_of_b - (1 - chance_of_b))
    assert await model(comparison("eight", "7")) == pytest.approx(-preference)
    assert await model(comparison("7", "7")) == 0


async def test_a_comparison_that_cannot_be_scored_raises() -> None:
    with pytest.raises(InvalidPair, match="tool_calls"):
        await tinker.FivescorePreferenceModel()(comparison("7", "8", CALL))


@pytest.mark.parametrize("scale", [0, -1, math.nan, math.inf])
def test_a_scale_that_is_none_is_refused(scale: float) -> None:
    with pytest.raises(ConfigurationError, match="scale"):
        tinker.FivescorePreferenceModel(scale=scale)


# SkyRL


def test_steps_of_many_threads_get_their_own_rewards(expected: list[Score]) -> None:
    def episode(place: int) -> tuple[Any, Any]:
        env = skyrl.FivescoreEnv(env_config={}, extras={"max_turns": 1})
        assert env.init([USER]) == ([USER], {})
        return env.step(("7", "eight")[place % 2]), env.get_metrics()

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(episode, range(32)))
    for place, (step, metrics) in enumerate(found):
        score = expected[place % 2]
        assert (step["reward"], step["done"], step["observations"]) == (score.reward, True, [])
        assert step["metadata"] == metrics == score.attributes


def test_a_step_that_cannot_be_scored_raises() -> None:
    env = skyrl.FivescoreEnv(extras={"tools": [{"name": "f"}]}, weights={"verbosity": 1.0})
    with pytest.raises(ConfigurationError, match="init"):
        env.step("7")
    env.init([USER])
    with pytest.raises(ConfigurationError, match="tools"):
        env.step("7")


class Held(Fleet):
    """Answers nothing before ``go``."""

    def __init__(self) -> None:
        super().__init__()
        self.go = threading.Event()

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        await asyncio.to_thread(self.go.wait)
        return await super().handle_async_request(request)


def test_what_comes_while_requests_run_shares_the_next_one() -> None:
    fleet = Held()
    gatherer = Gatherer(RewardClient("http://rm", transport=fleet, clock=Hurry()))
    futures = [gatherer.submit(("Q", str(number))) for number in range(FEW_REQUESTS + BATCH_SIZE)]
    fleet.go.set()
    assert [future.result().reward for future in futures] == list(range(len(futures)))
    assert len(fleet.requests) == FEW_REQUESTS + 1


def test_a_process_has_one_gatherer_of_the_same_options() -> None:
    weights = {"verbosity": 1.0, "coherence": 2.0}
    same = shared_gatherer("http://rm", dict(reversed(weights.items())))
    assert shared_gatherer("http://rm", MappingProxyType(weights)) is same
    assert shared_gatherer(UserList(["http://rm"])) is shared_gatherer(["http://rm"])
    assert shared_gatherer("http://rm") is not same


# Axolotl


def test_a_function_has_a_dotted_name_and_reads_the_address_when_it_is_called(
    expected: list[Score],
) -> None:
    function = pickle.loads(pickle.dumps(trl.fivescore))  # imported before the address was set
    assert len(inspect.signature(function).parameters) >= 2  # what Axolotl asks of one
    metrics: dict[str, float] = {}
    rewards = function(
        prompts=[USER["content"]] * 2, completions=["7", "eight"], completion_ids=[[1], [2]],
        log_metric=metrics.__setitem__, label=[1, 1],
    )  # fmt: skip
    assert rewards == [score.reward for score in expected]
    assert metrics.keys() == {f"rm/{name}" for name in expected[0].attributes}


# swift sample


def request(*turns: Json, **fields: Any) -> Any:
    return SimpleNamespace(messages=list(turns), tools=None, images=[], objects={}, **fields)


def test_swift_sample_gets_rewards_of_whole_requests(expected: list[Score]) -> None:
    requests = [request(USER, said("7")), request(USER, said("eight"))]
    found = ms_swift.Fivescore()(requests, request_config=None)
    assert found == [score.reward for score in expected]
    found = ms_swift.Fivescore()(requests, request_config=None, ground_truths=["7", "7"])
    assert found == [score.reward for score in expected]


def test_swift_sample_is_told_what_is_not_scored() -> None:
    with pytest.raises(ConfigurationError, match="videos"):
        ms_swift.Fivescore()([request(USER, said("7"), videos=["a.mp4"])], request_config=None)
    with pytest.raises(ConfigurationError, match="messages"):
        ms_swift.Fivescore()(["7"], request_config=None)


# ROLL


POLICY = policies.chatml()


class Proto:
    """What is read of ROLL's DataProto."""

    def __init__(self, batch: Json, **columns: Any) -> None:
        self.batch, self.non_tensor_batch = batch, columns
        self.meta_info: Json = {}

    @classmethod
    def from_dict(cls, tensors: Json) -> Proto:
        return cls(tensors)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> roll.RewardWorker:
    for name, given in (
        ("roll.models.model_providers", {"default_tokenizer_provider": lambda _: POLICY}),
        ("roll.distributed.scheduler.protocol", {"DataProto": Proto}),
    ):
        for package in accumulate(name.split("."), "{}.{}".format):
            monkeypatch.setitem(sys.modules, package, ModuleType(package))
        vars(sys.modules[name]).update(given)
    made = roll.RewardWorker(SimpleNamespace())
    made.initialize(SimpleNamespace(actor_train=SimpleNamespace(model_args=None)))
    return made


def rollouts(*responses: str, **columns: Any) -> Proto:
    """A prompt's responses as ROLL pads them: both at the right, after one another."""
    import torch

    prompt = POLICY.apply_chat_template([USER], add_generation_prompt=True, return_dict=False)
    sampled = [POLICY.encode(response) for response in responses]
    length = len(prompt) + max(map(len, sampled)) + 3
    names = ("input_ids", "prompt_mask", "response_mask", "responses")
    batch: Json = {name: torch.zeros((len(sampled), length), dtype=torch.long) for name in names}
    for row, ids in enumerate(sampled):
        end = len(prompt) + len(ids)
        batch["input_ids"][row, :end] = torch.tensor([*prompt, *ids])
        batch["prompt_mask"][row, : len(prompt)] = 1
        batch["response_mask"][row, len(prompt) : end] = 1
    return Proto(batch, id=[1] * len(sampled), **columns)


def test_roll_gets_the_rewards_of_the_messages(
    worker: roll.RewardWorker, expected: list[Score]
) -> None:
    found = worker.compute_rewards(rollouts("7<|im_end|>", "eight"))
    for name in ("response_level_rewards", "scores"):
        assert found.batch[name].tolist() == pytest.approx([one.reward for one in expected])
    assert not found.batch["token_level_rewards"].any()
    means = {f"fivescore/{name}": (value + expected[1].attributes[name]) / 2
             for name, value in expected[0].attributes.items()}  # fmt: skip
    assert found.meta_info["metrics"] == pytest.approx(means)


def test_rolls_run_ends_with_what_is_not_scored(worker: roll.RewardWorker) -> None:
    with pytest.raises(ConfigurationError, match="images"):
        worker.compute_rewards(rollouts("7", images=["a.png"]))
