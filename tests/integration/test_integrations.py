"""Trainers' reward functions, called as the trainers call them, against a server."""

from __future__ import annotations

import asyncio
import importlib
import inspect
import json
import logging
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

from fivescore.client import RewardClient
from fivescore.client.integrations import areal, gather, ms_swift, rewardbench, slime, trl, verl
from fivescore.client.integrations.conversation import pair
from fivescore.errors import ConfigurationError, InvalidPair, InvalidRequest, TooLong
from fivescore.model.manifest import ATTRIBUTES
from fivescore.types import Score
from tests.unit.client.fakes import Fleet, Hurry, Json, problem
from tests.unit.model import policy_tokenizers as policies

NOWHERE = "http://127.0.0.1:9"
EXAMPLES = sorted((Path(__file__).parents[2] / "docs" / "examples").glob("client_*.py"))
USER: Json = {"role": "user", "content": "Name a prime."}


@pytest.fixture
def found(url: str) -> Callable[..., list[Score]]:
    """What the client says of pairs of one prompt."""

    def score(*responses: str, prompt: Any = USER["content"]) -> list[Score]:
        with RewardClient(url) as client:
            return client.score([(prompt, response) for response in responses])

    return score


@pytest.fixture
def at_server(url: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """FIVESCORE_URL for what can be told the address in no other way."""
    monkeypatch.setenv("FIVESCORE_URL", url)
    gather._gatherer_of.cache_clear()
    yield
    gather._gatherer_of.cache_clear()


@pytest.mark.parametrize("file", EXAMPLES, ids=lambda file: file.stem)
def test_the_examples_run(url: str, file: Path) -> None:
    environment = {"FIVESCORE_URL": url, "HOME": os.environ.get("HOME", "")}
    command = [sys.executable, str(file)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")
    assert sum(char.isdigit() for char in done.stdout) > 10


def test_there_is_an_example_for_every_trainer() -> None:
    named = {file.stem.removeprefix("client_") for file in EXAMPLES}
    assert named == {
        "trl", "verl", "ms_swift", "areal", "rewardbench", "slime", "verifiers", "tinker", "skyrl",
    }  # fmt: skip


# What trainers hand over


@pytest.mark.parametrize(
    ("completion", "response"),
    [
        ("7", "7"),
        ([{"role": "assistant", "content": "7"}], "7"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "7"}]}], "7"),
        ([], ""),
    ],
)
def test_the_last_message_is_the_response(completion: Any, response: str) -> None:
    assert pair("Q", completion) == {"prompt": "Q", "response": response}


def test_the_turns_of_a_completion_before_its_last_are_part_of_the_prompt() -> None:
    added = [{"role": "assistant", "content": "is_prime(7)"}, {"role": "tool", "content": "True"}]
    completion = [*added, {"role": "assistant", "content": "7"}]
    for prompt in ("Q", [{"role": "user", "content": "Q"}]):
        expected = [{"role": "user", "content": "Q"}, *added]
        assert pair(prompt, completion) == {"prompt": expected, "response": "7"}


def test_what_describes_a_message_and_what_is_empty_stays_behind() -> None:
    turns = [{**USER, "id": "x", "tool_calls": None, "refusal": None, "audio": {"id": None}}]
    assert pair(turns, "A", {"images": [], "label": "x"}) == {"prompt": [USER], "response": "A"}


# TRL


class Log:
    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.columns: dict[str, list[Any]] = {}

    def __call__(self, function: Any, prompts: Any, completions: Any) -> Any:
        count = len(prompts)
        return function(
            prompts=prompts, completions=completions, completion_ids=[[1]] * count,
            label=[1] * count, trainer_state=None,
            log_metric=self.metrics.__setitem__, log_extra=self.columns.__setitem__,
        )  # fmt: skip


def trl_batch(conversational: bool) -> tuple[Any, Any]:
    if not conversational:
        return [USER["content"]] * 2, ["7", "8"]
    return [[USER]] * 2, [[{"role": "assistant", "content": text}] for text in ("7", "8")]


@pytest.mark.parametrize("conversational", [False, True])
def test_trl_gets_the_reward_of_every_completion_and_logs_its_attributes(
    url: str, found: Callable[..., list[Score]], conversational: bool
) -> None:
    function, log = trl.RewardFunction(url), Log()
    scores = found("7", "8")
    rewards = log(function, *trl_batch(conversational))
    assert rewards == [score.reward for score in scores]
    json.dumps([rewards, log.metrics, log.columns], allow_nan=False)
    for name in ATTRIBUTES:
        values = [score.attributes[name] for score in scores]
        assert log.columns[name] == values
        assert log.metrics[f"rm/{name}"] == pytest.approx(sum(values) / 2)
    assert function.__name__ == "fivescore"


def test_trl_logs_what_it_is_asked_to(url: str) -> None:
    log = Log()
    log(trl.RewardFunction(url, attributes_to_log=["verbosity"]), *trl_batch(False))
    assert log.columns.keys() == {"verbosity"}
    log = Log()
    log(trl.RewardFunction(url, attributes_to_log=False), *trl_batch(False))
    assert (log.columns, log.metrics) == ({}, {})
    assert trl.RewardFunction(url)(["Q"], ["A"]) == trl.RewardFunction(url)(["Q"], ["A"])


def test_trl_finds_the_asynchronous_function_to_be_one_and_may_run_it_in_a_new_loop_every_step(
    url: str, found: Callable[..., list[Score]]
) -> None:
    function = trl.AsyncRewardFunction(url, weights={"verbosity": 1.0})
    assert inspect.iscoroutinefunction(function.__call__)
    assert function.__name__ == "fivescore"
    expected = [score.attributes["verbosity"] for score in found("7", "8")]
    for conversational in (True, False, True):
        assert asyncio.run(Log()(function, *trl_batch(conversational))) == expected


def test_a_pair_that_fails_ends_the_training_or_is_none(url: str) -> None:
    batch = ([[USER], [{**USER, "tool_calls": [{}]}], [USER]], ["7", "8", "9"])
    with pytest.raises(InvalidPair, match="pair 1"):
        Log()(trl.RewardFunction(url), *batch)
    log = Log()
    first, none, last = log(trl.RewardFunction(url, on_failure="none"), *batch)
    assert none is None
    assert None not in (first, last)
    values = log.columns["verbosity"]
    assert values[1] is None
    assert log.metrics["rm/verbosity"] == pytest.approx((values[0] + values[2]) / 2)
    down = trl.RewardFunction(NOWHERE, on_failure="none", deadline_seconds=0)
    assert Log()(down, *batch) == [None] * 3


def test_what_is_too_long_is_truncated_unless_it_may_not_be(url: str) -> None:
    batch = (["word " * 5000], ["7"])
    assert len(Log()(trl.RewardFunction(url), *batch)) == 1
    with pytest.raises(TooLong):
        Log()(trl.RewardFunction(url, truncate="never"), *batch)
    with pytest.raises(InvalidRequest, match="humor"):
        Log()(trl.RewardFunction(url, weights={"humor": 1}, on_failure="none"), *batch)


def test_attribute_functions_are_named_and_give_their_attribute(
    url: str, found: Callable[..., list[Score]]
) -> None:
    functions = trl.attribute_functions(url)
    assert [function.__name__ for function in functions] == list(ATTRIBUTES)
    for function in functions:
        expected = [score.attributes[function.__name__] for score in found("7", "8")]
        assert Log()(function, *trl_batch(True)) == expected
    (verbosity,) = trl.attribute_functions(url, ["verbosity"])
    assert verbosity.__name__ == "verbosity"


def counting(fleet: Fleet, **options: Any) -> list[trl.AttributeFunction]:
    return trl.attribute_functions(
        "http://rm", ["helpfulness", "verbosity"], transport=fleet, clock=Hurry(), **options
    )


def test_attribute_functions_share_one_request_a_batch() -> None:
    fleet = Fleet()
    helpfulness, verbosity = counting(fleet)
    for step in range(3):
        assert helpfulness(["Q", "Q"], ["2", "4"]) == [1, 2]
        assert verbosity(["Q", "Q"], ["2", "4"]) == [-2, -4]
        assert len(fleet.requests) == step + 1  # the same texts in a later step are asked again
    assert helpfulness(["Q", "Q"], ["4", "2"]) == [2, 1]


def test_attribute_functions_share_a_request_from_threads_too() -> None:
    fleet = Fleet()
    functions = counting(fleet)
    together = threading.Barrier(8)

    def ask(number: int) -> list[Any]:
        together.wait()
        return functions[number % 2](["Q"], [str(2 * (number // 2))])

    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(ask, range(8)))
    assert found == [[(number // 2) * (-2 if number % 2 else 1)] for number in range(8)]
    assert len(fleet.requests) == 4


def test_attribute_functions_do_not_keep_a_failure_for_the_next_batch() -> None:
    fleet = Fleet(problem(422, "invalid_request"))
    helpfulness, verbosity = counting(fleet)
    for function in (helpfulness, verbosity):
        with pytest.raises(InvalidRequest):
            function(["Q"], ["2"])
    assert len(fleet.requests) == 1
    assert (helpfulness(["Q"], ["2"]), verbosity(["Q"], ["2"])) == ([1], [-2])


def test_attribute_functions_remember_few_batches() -> None:
    helpfulness, verbosity = counting(Fleet())
    for number in range(trl.KEPT_BATCHES + 5):
        helpfulness(["Q"], [str(number)])
    assert len(helpfulness._shared._batches) == trl.KEPT_BATCHES
    assert verbosity(["Q"], ["0"]) == [0]


def test_an_attribute_that_the_model_has_not_is_named() -> None:
    (humor,) = trl.attribute_functions(
        "http://rm", ["humor"], transport=Fleet(), clock=Hurry(), on_failure="none"
    )
    with pytest.raises(KeyError, match="humor"):
        humor(["Q"], ["1"])


SPAWNED = """
import pickle, sys, asyncio, inspect
functions = pickle.load(sys.stdin.buffer)
for function in functions:
    found = function(prompts=["Name a prime."], completions=["7"], label=[1])
    print(function.__name__, asyncio.run(found) if inspect.iscoroutine(found) else found)
"""


def test_trl_may_pickle_every_function_into_a_spawned_process(url: str) -> None:
    asked: list[Any] = [trl.RewardFunction(url), trl.AsyncRewardFunction(url)]
    asked[0](["Q"], ["A"])  # used before, as in a warm-up
    given = pickle.dumps([*asked, *trl.attribute_functions(url)])
    done = subprocess.run(
        [sys.executable, "-c", SPAWNED], input=given, capture_output=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, b"")
    told = [line.partition(" ") for line in done.stdout.decode().splitlines()]
    assert [name for name, _, _ in told] == ["fivescore", "fivescore", *ATTRIBUTES]
    assert told[0] == told[1]
    assert len({value for _, _, value in told}) == 6


# verl


def sample(response: str, **extra_info: Any) -> dict[str, Any]:
    return {
        "data_source": "mine", "solution_str": response, "ground_truth": None,
        "extra_info": extra_info, "reward_router_address": None,
    }  # fmt: skip


@pytest.mark.usefixtures("at_server")
@pytest.mark.parametrize("key", ["question", "prompt"])
@pytest.mark.parametrize("prompt", [USER["content"], [USER]], ids=["text", "messages"])
def test_verl_gets_the_reward_and_the_attributes_in_one_loop_after_another(
    found: Callable[..., list[Score]], key: str, prompt: Any
) -> None:
    async def scored() -> list[dict[str, Any]]:
        samples = [sample(response, **{key: prompt}) for response in ("7", "8")]
        return await asyncio.gather(*(verl.compute_score(**each) for each in samples))

    expected = [{"score": score.reward, **score.attributes} for score in found("7", "8")]
    assert [asyncio.run(scored()) for _ in range(3)] == [expected] * 3


async def test_verl_takes_options_beside_the_sample(
    url: str, found: Callable[..., list[Score]]
) -> None:
    given = {**sample("7", question=USER["content"]), "weights": {"verbosity": 1.0}, "urls": [url]}
    result = await verl.compute_score(**given)
    assert result["score"] == result["verbosity"] == found("7")[0].attributes["verbosity"]
    with pytest.raises(TooLong):
        await verl.compute_score(**{**given, "solution_str": "word " * 5000, "truncate": "never"})


@pytest.mark.parametrize("info", [{}, {"index": 3, "split": "train"}, {"question": None}])
async def test_verl_is_told_where_the_prompt_is_missing(info: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="neither 'question' nor 'prompt'") as caught:
        await verl.compute_score(**sample("7", **info))
    assert all(name in caught.value.detail for name in info)


class Ids(list[int]):
    """As much of a tensor as the manager touches."""

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __getitem__(self, key: Any) -> Any:
        return Ids(super().__getitem__(key))

    def sum(self) -> int:
        return sum(self)


POLICY = policies.chatml()


def proto(sampled: str) -> list[Any]:
    """verl's DataProto of one sample: prompt and response are padded."""
    ids = POLICY.encode(sampled)
    batch = {
        "responses": Ids([*ids, *[0] * 3]),
        "attention_mask": Ids([0] * 4 + [1] * 5 + [1] * len(ids) + [0] * 3),
    }
    return [SimpleNamespace(batch=batch, non_tensor_batch={"raw_prompt": [USER]})]


@pytest.mark.usefixtures("at_server")
async def test_verls_manager_scores_the_response_with_the_messages(
    found: Callable[..., list[Score]],
) -> None:
    config = SimpleNamespace(reward={"custom_reward_function": None})
    manager = verl.RewardManager(config=config, tokenizer=POLICY, reward_router_address=None)
    results = await asyncio.gather(*(manager.run_single(proto(text)) for text in ("7", "eight")))
    for result, score in zip(results, found("7", "eight"), strict=True):
        assert result["reward_score"] == score.reward
        assert result["reward_extra_info"] == {"score": score.reward, **score.attributes}


async def test_verls_manager_reads_its_options_from_the_configuration(
    url: str, found: Callable[..., list[Score]]
) -> None:
    options = {"urls": url, "weights": {"verbosity": 1.0}, "else": 1}
    config = SimpleNamespace(reward={"custom_reward_function": {"reward_kwargs": options}})
    result = await verl.RewardManager(config, POLICY, None).run_single(proto("7"))
    assert result["reward_score"] == found("7")[0].attributes["verbosity"]


def test_verls_manager_is_a_subclass_of_verls_own(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "verl.experimental.reward_loop.reward_manager.base"

    class RewardManagerBase:
        def __init__(self, config: Any, tokenizer: Any, compute_score: Any) -> None:
            self.given = (config, tokenizer, compute_score)

    parts = name.split(".")
    for length in range(1, len(parts) + 1):
        monkeypatch.setitem(sys.modules, ".".join(parts[:length]), ModuleType(parts[length - 1]))
    monkeypatch.setattr(sys.modules[name], "RewardManagerBase", RewardManagerBase, raising=False)
    package = sys.modules[name.rpartition(".")[0]]
    monkeypatch.setattr(package, "RateLimitedRewardManager", type("R", (), {}), raising=False)
    spec = importlib.util.spec_from_file_location("custom_module", str(verl.__file__))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)  # as verl loads a file
    spec.loader.exec_module(module)
    assert issubclass(module.RewardManager, RewardManagerBase)
    config = SimpleNamespace(reward={})
    assert module.RewardManager(config, POLICY, "c").given == (config, POLICY, "c")


@pytest.mark.usefixtures("at_server")
@pytest.mark.parametrize(
    ("sampled", "response"),
    [
        ("7<|im_end|>", "7"),
        ("7<|im_end|><|im_end|>", "7<|im_end|>"),
        ("<|im_start|>7 and", "<|im_start|>7 and"),
    ],
)
async def test_verls_manager_scores_what_the_policy_wrote_special_tokens_too(
    found: Callable[..., list[Score]], sampled: str, response: str
) -> None:
    config = SimpleNamespace(reward={"custom_reward_function": None})
    result = await verl.RewardManager(config, POLICY).run_single(proto(sampled))
    assert result["reward_score"] == found(response)[0].reward


class RateLimited:
    """As verl 0.9.1's manager ``rate_limited`` calls the function, and what it makes of errors."""

    def __init__(self, function: Any, timeout: float = 60.0) -> None:
        self.function, self.timeout = function, timeout

    async def compute(self, given: Json) -> Any:
        if inspect.iscoroutinefunction(self.function):
            return await self.function(**given)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(None, lambda: self.call(given))

    def call(self, given: Json) -> Any:
        return self.function(**given)

    async def reward(self, given: Json) -> float:
        try:
            return float((await asyncio.wait_for(self.compute(given), self.timeout))["score"])
        except Exception:  # a time-out too
            return 0.0


@pytest.fixture
def rate_limited(monkeypatch: pytest.MonkeyPatch) -> type[RateLimited]:
    monkeypatch.setattr(verl, "RateLimitedRewardManager", RateLimited)
    return RateLimited


@pytest.mark.usefixtures("at_server")
async def test_under_verls_rate_limits_no_failure_becomes_a_reward(
    rate_limited: type[RateLimited], found: Callable[..., list[Score]]
) -> None:
    manager = rate_limited(verl.compute_score)
    good = sample("7", question=USER["content"])
    assert await manager.reward(good) == found("7")[0].reward
    with pytest.raises(verl.RewardFailed, match="neither 'question' nor 'prompt'"):
        await manager.reward(sample("7"))
    with pytest.raises(verl.RewardFailed, match="tokens"):
        await manager.reward({**good, "solution_str": "word " * 5000, "truncate": "never"})
    with pytest.raises(verl.RewardFailed, match="compute_score_sync"):
        await rate_limited(verl.compute_score_sync).reward(good)


async def test_under_verls_rate_limits_its_time_out_is_no_reward(
    rate_limited: type[RateLimited],
) -> None:
    given = {**sample("7", question=USER["content"]), "urls": NOWHERE}
    with pytest.raises(verl.RewardFailed, match=r"reward\.timeout"):
        await rate_limited(verl.compute_score, timeout=0.2).reward(given)
    with pytest.raises(asyncio.TimeoutError):  # another manager's stays what it is
        await asyncio.wait_for(verl.compute_score(**given), 0.2)


@pytest.mark.usefixtures("at_server")
def test_verls_processes_get_the_reward_from_a_synchronous_function(
    found: Callable[..., list[Score]],
) -> None:
    assert not inspect.iscoroutinefunction(verl.compute_score_sync)
    expected = {"score": found("7")[0].reward, **found("7")[0].attributes}
    for _ in range(2):
        assert verl.compute_score_sync(**sample("7", question=USER["content"])) == expected
    with pytest.raises(ConfigurationError, match="neither 'question' nor 'prompt'"):
        verl.compute_score_sync(**sample("7"))


# ms-swift


TURNS = [[USER, {"role": "assistant", "content": text}] for text in ("7", "8")]


@pytest.mark.usefixtures("at_server")
def test_ms_swift_gets_rewards_from_whole_conversations(
    found: Callable[..., list[Score]], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "fivescore")
    expected = [score.reward for score in found("7", "8")]
    columns: dict[str, Any] = {"messages": TURNS, "trainer_state": None, "solution": ["7", "7"]}
    assert ms_swift.Fivescore(args=None)(["7", "8"], **columns) == expected
    assert all(name in caplog.text for name in ATTRIBUTES)
    function = ms_swift.AsyncFivescore(args=None)
    assert inspect.iscoroutinefunction(function.__call__)
    for _ in range(3):
        assert asyncio.run(function(["7", "8"], **columns)) == expected


def test_ms_swifts_conversations_are_cut_after_the_last_user_message() -> None:
    system = {"role": "system", "content": "s"}
    turns = [system, *TURNS[0], {"role": "tool", "content": "x"}, TURNS[1][-1]]
    (made,) = ms_swift._pairs([turns], {})
    assert made == {"prompt": turns[:-1], "response": "8"}


def test_ms_swifts_plugin_registers_its_functions(monkeypatch: pytest.MonkeyPatch) -> None:
    rewards = ModuleType("swift.rewards")
    orms: dict[str, Any] = {"accuracy": object}
    monkeypatch.setattr(rewards, "orms", orms, raising=False)
    monkeypatch.setitem(sys.modules, "swift", ModuleType("swift"))
    monkeypatch.setitem(sys.modules, "swift.rewards", rewards)
    importlib.reload(ms_swift)
    assert {name: kind.__name__ for name, kind in orms.items()} == {
        "accuracy": "object",
        "fivescore": "Fivescore",
        "fivescore_async": "AsyncFivescore",
    }


# AReaL


def rendered(*turns: Json) -> str:
    """The prompt that the policy goes on from, as AReaL and slime have it."""
    return str(POLICY.apply_chat_template(turns, tokenize=False, add_generation_prompt=True))


@pytest.mark.usefixtures("at_server")
async def test_areal_gets_the_reward_of_a_completion(found: Callable[..., list[Score]]) -> None:
    reward = areal.RewardWorkflow(tokenizer=POLICY).async_reward_fn
    columns: dict[str, Any] = {"messages": [USER], "answer": "7"}
    for response in ("7", "7<|im_end|>"):
        (expected,) = found(response)
        sampled = response + "<|im_end|>"
        assert await reward("not read", sampled, [1], [2], **columns) == expected.reward
        assert await reward(rendered(USER), sampled, [1], [2]) == expected.reward
    (expected,) = found("7 and")
    assert await reward("not read", "7 and", [1], [2], **columns) == expected.reward


async def test_any_workflow_of_areal_gets_rewards_and_options(
    url: str, found: Callable[..., list[Score]]
) -> None:
    (score,) = found("7")
    stops = SimpleNamespace(stop_token_ids=[POLICY.convert_tokens_to_ids("<|im_start|>")])
    options: dict[str, Any] = {"urls": url, "weights": {"verbosity": 2}}
    for workflow in (
        areal.with_rewards(SimpleNamespace(tokenizer=POLICY, gconfig=stops), **options),
        areal.with_rewards(SimpleNamespace(gconfig=stops), tokenizer=POLICY, **options),
    ):
        reward = await workflow.async_reward_fn("x", "7<|im_start|>", messages=[USER])
        assert reward == pytest.approx(2 * score.attributes["verbosity"])
    with pytest.raises(ConfigurationError, match="has no tokenizer"):
        areal.with_rewards(SimpleNamespace(), **options)


@pytest.mark.usefixtures("at_server")
def test_workflows_of_areal_which_makes_one_a_sample_share_requests() -> None:
    for _ in range(2):
        areal.RewardWorkflow(tokenizer=POLICY)
    assert gather._gatherer_of.cache_info().currsize == 1


async def test_areal_is_told_of_a_pair_that_fails(url: str) -> None:
    reward = areal.Reward(POLICY, url, truncate="never")
    with pytest.raises(TooLong):
        await reward("x", "word " * 10_000, messages=[USER])
    with pytest.raises(InvalidPair, match="generation prompt"):
        await reward("no prompt of the template's", "7")
    with pytest.raises(ConfigurationError, match="tools"):
        await reward(rendered(USER), "7", tools=[{"name": "x"}])


# slime


@pytest.fixture
def slime_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("slime.utils.processing_utils")
    monkeypatch.setattr(module, "load_tokenizer", lambda *_, **__: POLICY, raising=False)
    for name in ("slime", "slime.utils"):
        monkeypatch.setitem(sys.modules, name, ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    slime._policy.cache_clear()


def slime_args(**given: Any) -> SimpleNamespace:
    known = {"hf_checkpoint": "policy", "apply_chat_template": False, "reward_key": None}
    return SimpleNamespace(**{**known, "eval_reward_key": None, **given})


def slime_sample(prompt: Any, response: str, **given: Any) -> SimpleNamespace:
    known: Json = {"metadata": {}, "multimodal_inputs": None, "label": None, "reward": None}
    return SimpleNamespace(prompt=prompt, response=response, **{**known, **given})


@pytest.mark.usefixtures("at_server", "slime_installed")
@pytest.mark.parametrize(
    ("prompt", "templated"),
    [(USER["content"], False), ([USER], False), (rendered(USER), False), (rendered(USER), True)],
)
async def test_slime_gets_the_reward_of_a_sample_or_of_a_group(
    found: Callable[..., list[Score]], prompt: Any, templated: bool
) -> None:
    responses = ("7", "7<|im_end|>", "8 and")
    sampled = ("7<|im_end|>", "7<|im_end|><|im_end|>", "8 and")
    expected = [score.reward for score in found(*responses)]
    args = slime_args(apply_chat_template=templated)
    group = [slime_sample(prompt, text) for text in sampled]
    assert await slime.Reward()(args, group) == expected
    assert await slime.Reward()(args, group[0], evaluation=False) == expected[0]


@pytest.mark.usefixtures("at_server", "slime_installed")
async def test_slime_gets_the_attributes_where_it_reads_a_key(
    found: Callable[..., list[Score]],
) -> None:
    (score,) = found("7")
    args = slime_args(reward_key="reward", eval_reward_key="helpfulness")
    value = await slime.Reward()(args, slime_sample([USER], "7<|im_end|>"))
    assert value == {"reward": score.reward, **score.attributes}


@pytest.mark.usefixtures("at_server", "slime_installed")
@pytest.mark.parametrize(
    ("args", "given", "named"),
    [
        ({"reward_key": "humor"}, {}, "humor.*helpfulness"),
        ({"eval_reward_key": "reward"}, {}, "--reward-key"),
        ({"apply_chat_template": True}, {"prompt": "plain"}, "generation prompt.*--hf-checkpoint"),
        (
            {},
            {"prompt": rendered(USER, {"role": "assistant", "content": "7"})},
            "last message of prompt",
        ),
        ({}, {"multimodal_inputs": {"images": ["x"]}}, "images"),
        ({}, {"metadata": {"tools": [{"name": "x"}]}}, "tools"),
    ],
)
async def test_slime_is_told_what_cannot_be_scored(args: Json, given: Json, named: str) -> None:
    bad = slime_sample(**{"prompt": [USER], "response": "7", **given})
    with pytest.raises((ConfigurationError, InvalidPair), match=named):
        await slime.Reward()(slime_args(**args), [bad])


# RewardBench


@pytest.mark.usefixtures("at_server")
def test_rewardbench_gets_one_number_a_text(url: str, caplog: pytest.LogCaptureFixture) -> None:
    torch = pytest.importorskip("torch")
    builder: Any = rewardbench.CONFIG["model_builder"]
    model = builder("fivescore", torch_dtype=torch.float16, trust_remote_code=False, revision=None)
    assert model.config.pad_token_id is not None
    make: Any = rewardbench.CONFIG["pipeline_builder"]
    pipeline = make("text-classification", model=model, tokenizer=None)
    texts = ["[user]Q\n[assistant]7\n", "[user]Q\n[assistant]8\n"]
    rewards = pipeline(texts, batch_size=8, truncation=False, padding=True, max_length=512)
    assert (rewards.shape, rewards.dtype) == ((2,), torch.float32)
    with RewardClient(url) as client:
        scores = client.score([{"text": text} for text in texts])
    assert rewards.tolist() == pytest.approx([score.reward for score in scores])
    assert caplog.text == ""
    pipeline(["word " * 5000])
    assert "1 of 1 texts were too long" in caplog.text
