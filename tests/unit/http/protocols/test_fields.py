"""What the protocols make of a body, and of scores, apart from HTTP."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

from fivescore.endings import Endings
from fivescore.errors import EngineError, InvalidPair, InvalidRequest
from fivescore.http.protocols import nemo_gym, sglang, slime, tei, vllm
from fivescore.http.protocols.fields import dialogue, inputs, prompt_turns, text_of, usage, vector
from fivescore.http.protocols.protocol import Context, _score
from fivescore.http.schema import description_of
from fivescore.model import roles
from fivescore.model.checkpoint import Model
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PRESETS, PromptFormat
from fivescore.settings import Settings
from fivescore.types import MOST_TURNS, Message, Pair, Score
from tests.unit.engines import DEMO_INFO
from tests.unit.model import sample_tokenizers as samples

MODEL = Model(
    name="judge",
    info=DEMO_INFO,
    manifest=PRESETS["helpsteer2"],
    conversation=SimpleNamespace(roles=roles.BASIC, takes_calls=False),  # type: ignore[arg-type]  # a translation renders nothing
    max_tokens=4096,
    max_characters=2**20,
    endings=Endings(SimpleNamespace(eos_token=None, pad_token=None, added_tokens_decoder={})),
)
ATTRIBUTES = dict.fromkeys(MODEL.manifest.attributes, 1.0)
SCORE = Score(ATTRIBUTES, 1.64, tokens=7, cached_tokens=4)


def context(**settings: Any) -> Context:
    return Context(MODEL, Settings(**settings), "abc")


@pytest.mark.parametrize("read", [dialogue, nemo_gym._messages])
def test_more_messages_than_the_limit_are_refused_before_any_is_read(read: Any) -> None:
    unread: list[Any] = [{"role": "assistant", "unknown": object()}] * (MOST_TURNS + 1)
    with pytest.raises(InvalidRequest, match=f"^x.y: has {MOST_TURNS + 1} messages, the limit is"):
        read(unread, "x.y", context())


@pytest.mark.parametrize(
    ("value", "pairs"),
    [
        ("x", [Pair(text="x")]),
        (["x"], [Pair(text="x")]),
        (["x", "y"], [Pair(text="x"), Pair(text="y")]),
        ([1, 2], [Pair(token_ids=[1, 2])]),
        ([[1, 2]], [Pair(token_ids=[1, 2])]),
        ([[1], [2, 3]], [Pair(token_ids=[1]), Pair(token_ids=[2, 3])]),
        (["x", [1]], [Pair(text="x"), Pair(token_ids=[1])]),
        ([], []),
    ],
)
def test_inputs_are_texts_or_token_ids_or_lists_of_them(value: Any, pairs: list[Pair]) -> None:
    assert inputs(value, "input") == pairs


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("x", "x"),
        ("", ""),
        (["x", "y"], "xy"),
        ([{"type": "text", "text": "x"}, {"type": "output_text", "text": "y"}], "xy"),
    ],
)
def test_the_text_of_a_content_is_that_of_its_parts(content: Any, text: str) -> None:
    assert text_of(content, "content") == text


@pytest.mark.parametrize(
    ("read", "value", "place"),
    [
        *((inputs, value, "") for value in (None, 1, 1.5, True, {"a": 1})),
        *((text_of, value, "") for value in (1, {"text": "x"})),
        (text_of, None, ""),
        (text_of, [], ""),
        *((text_of, value, ".0") for value in ([1], [{"text": None}])),
        (text_of, ["x", {"type": "image_url", "image_url": {}}], ".1"),
    ],
)
def test_what_is_no_input_or_no_text_is_named(
    read: Callable[[Any, str], object], value: Any, place: str
) -> None:
    with pytest.raises(InvalidRequest) as caught:
        read(value, "field")
    assert caught.value.errors[0]["field"] == f"field{place}"


@pytest.mark.parametrize("messages", [None, "x", {}, ["x"], [None]])
def test_messages_that_are_none_are_named(messages: Any) -> None:
    with pytest.raises(InvalidRequest, match=r"^messages: "):
        prompt_turns(messages, "messages", context())


@pytest.mark.parametrize("value", [[""], [[]], [None], [{}], [[-1]], [["x"]], [1, "x"], [1, 2.5]])
def test_a_malformed_item_among_inputs_is_its_own_error(value: list[Any]) -> None:
    assert any(isinstance(pair, InvalidPair) for pair in inputs(value, "input"))


def test_a_dialogue_is_its_turns_and_the_last_of_them_as_the_response() -> None:
    turns = [
        {"role": "developer", "content": "s", "name": "x"},
        {"role": "user", "content": ["Q"], "id": 1},
        {"role": "assistant", "content": "A", "tool_calls": []},
    ]
    prompt = [Message(role="system", content="s", name="x"), Message(role="user", content="Q")]
    assert dialogue(turns, "messages", context()) == Pair(prompt=prompt, response="A")
    assert len(turns) == 3


@pytest.mark.parametrize(("setting", "length"), [("reward", 1), ("attributes", 6)])
def test_the_reward_is_a_vectors_last_element(setting: str, length: int) -> None:
    values = vector(SCORE, context(vector=setting))
    assert (len(values), values[-1]) == (length, 1.64)


def test_usage_adds_tokens_up() -> None:
    assert usage([SCORE, SCORE]) == {
        "prompt_tokens": 14,
        "completion_tokens": 0,
        "total_tokens": 14,
        "prompt_tokens_details": {"cached_tokens": 8},
    }


@pytest.mark.parametrize(
    ("body", "theirs"),
    [
        ({"text_1": "a", "text_2": "b"}, True),
        ({"queries": ["a"], "documents": ["b"]}, True),
        ({"data_1": "a", "model": "m"}, True),
        ({"documents": ["b"]}, True),
        ({"prompt": "a", "response": "b"}, False),
        ({"prompt": "a", "response": "b", "text_1": "x"}, False),
        ({"pairs": [], "queries": []}, False),
        ({"text": "a"}, False),
        ({"token_ids": [1]}, False),
        ({}, False),
        ({"model": "m"}, False),
        ([], False),
        (None, False),
        ("text_1", False),
    ],
)
def test_a_body_of_score_is_vllms_only_by_its_keys(body: Any, theirs: bool) -> None:
    assert vllm.asks_for_score(body) is theirs


def test_a_pairs_error_is_told_with_its_place_and_left_as_it_was_for_others() -> None:
    error = EngineError("it failed", tokens=3)
    for field in ("input.2", "prompt"):
        with pytest.raises(EngineError) as caught:
            _score(error, field)
        assert caught.value.detail == f"{field}: it failed"
        assert caught.value.facts == {"tokens": 3}
    assert error.detail == "it failed"
    assert _score(SCORE, "input") is SCORE


@pytest.mark.parametrize(
    ("body", "several"),
    [
        ({"text": "x"}, False),
        ({"text": ["x"]}, True),
        ({"input_ids": [1, 2]}, False),
        ({"input_ids": [[1, 2]]}, True),
        ({"text": []}, True),
    ],
)
def test_sglang_answers_in_the_form_it_was_asked(body: dict[str, Any], several: bool) -> None:
    ask = sglang.classify(body, context())
    answer = ask.answer([SCORE] * len(ask.pairs))
    assert isinstance(answer, list) is several


@pytest.mark.parametrize(
    ("score", "expected"),
    [
        (SCORE, {"helpfulness": 0.3, "verbosity": -0.33}),
        (dataclasses.replace(SCORE, attributes=dict.fromkeys(ATTRIBUTES, 0.0)), {"coherence": 0}),
    ],
)
def test_components_are_weighted_attributes(score: Score, expected: dict[str, float]) -> None:
    components = nemo_gym.reward_components(score, MODEL.manifest)
    assert components.keys() == ATTRIBUTES.keys()
    assert {name: components[name] for name in expected} == expected


def test_a_bias_is_a_component_and_a_scalar_reward_is_one() -> None:
    combined = PRESETS["helpsteer2"]
    biased = combined.model_copy(
        update={"reward": combined.reward.model_copy(update={"bias": 0.5})}
    )
    components = nemo_gym.reward_components(SCORE, biased)
    assert sum(components.values()) == pytest.approx(1.64 + 0.5)
    assert nemo_gym.reward_components(Score({}, -2.5, tokens=1), PRESETS["scalar"]) == {
        "reward": -2.5
    }


def test_the_endpoints_show_an_example_that_they_take() -> None:
    endpoints = (
        vllm.classify, vllm.pooling, vllm.embeddings, vllm.score, vllm.rerank, slime.reward,
        nemo_gym.verify, tei.predict,
    )  # fmt: skip
    for endpoint in endpoints:
        assert description_of(endpoint).example
        assert endpoint.__doc__


@pytest.mark.parametrize("end", ["<|im_end|>", "<|im_end|>\n", "<|im_end|><|endoftext|>"])
def test_a_rendered_text_gets_the_end_that_the_template_writes(end: str) -> None:
    chatml = samples.chatml()
    model = dataclasses.replace(
        MODEL,
        conversation=Conversation(PromptFormat(), chatml),
        endings=Endings.of_tokenizer(chatml),
    )
    turns = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "7"}]
    whole = str(chatml.apply_chat_template(turns, tokenize=False))
    assert model.completed(whole.removesuffix("<|im_end|>\n") + end) == whole
    assert model.completed(whole.removesuffix("<|im_end|>\n")) == whole.removesuffix("<|im_end|>\n")


def test_a_text_of_a_model_without_a_template_stays_as_it_is() -> None:
    raw = Conversation(PromptFormat(format="raw"), samples.chatml())
    model = dataclasses.replace(
        MODEL, conversation=raw, endings=Endings.of_tokenizer(samples.chatml())
    )
    assert model.completed("Q 7<|im_end|><|im_end|>") == "Q 7<|im_end|><|im_end|>"
