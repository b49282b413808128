"""What a policy's chat template rendered is taken apart into the messages that it was."""

from __future__ import annotations

import datetime
import logging
import unicodedata
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.policy import PolicyTemplate
from fivescore.types import MOST_TURNS, Pair
from tests.unit.model import policy_tokenizers as policies

Make = Callable[[], Any]
Turn = tuple[str, str]

WITH_SYSTEM: tuple[Make, ...] = (
    policies.chatml,
    policies.chatml_of_a_base_model,
    policies.qwen,
    policies.llama3,
    policies.llama3_as_first_published,
    policies.llama31,
    policies.llama2,
)
WITHOUT_SYSTEM: tuple[Make, ...] = (policies.no_system, policies.gemma)
EVERY = (*WITH_SYSTEM, *WITHOUT_SYSTEM)
FORBIDDEN = ("<", ">", "[INST]", "[/INST]", "\ue010")
CONTENT = (
    st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=30)
    .map(str.strip)
    .filter(lambda text: text and not any(string in text for string in FORBIDDEN))
)
"""A turn's text, without a template's markers and without space at its ends, which some trim."""

every = pytest.mark.parametrize("make", EVERY, ids=lambda make: make.__name__)


@lru_cache(maxsize=4)
def template(make: Make) -> PolicyTemplate:
    return PolicyTemplate(make())


def messages(turns: Sequence[Turn]) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in turns]


def prompt_of(make: Make, turns: Sequence[Turn]) -> str:
    return str(
        make().apply_chat_template(messages(turns), tokenize=False, add_generation_prompt=True)
    )


def read(make: Make, query: str, prompt: str) -> tuple[list[Turn] | str, str]:
    """The turns and the response that a query is taken apart into."""
    return parts(template(make).take_apart(query, prompt))


def parts(pair: Pair | InvalidPair) -> tuple[list[Turn] | str, str]:
    assert isinstance(pair, Pair), pair
    assert pair.prompt is not None
    assert isinstance(pair.response, str)
    if isinstance(pair.prompt, str):
        return pair.prompt, pair.response
    return [(turn.role, turn.content) for turn in pair.prompt], pair.response


def refused(make: Make, query: str, prompt: str) -> str:
    pair = template(make).take_apart(query, prompt)
    assert isinstance(pair, InvalidPair), pair
    return pair.detail


def alternating(contents: Sequence[str]) -> list[Turn]:
    return [("assistant" if i % 2 else "user", content) for i, content in enumerate(contents)]


CONTENTS = st.lists(CONTENT, min_size=1, max_size=5).filter(lambda contents: len(contents) % 2)


@every
@given(system=st.none() | CONTENT, contents=CONTENTS, response=CONTENT)
@example(system=None, contents=["Q"], response="A")
@example(system="Be kind.", contents=["Q"], response="A")
@example(system=None, contents=["Q", "A", "user\nassistant\nsystem"], response="model\n\nuser")
@settings(max_examples=80)
def test_a_dialogue_comes_back_as_its_messages(
    make: Make, system: str | None, contents: list[str], response: str
) -> None:
    turns = alternating(contents)
    if system is not None and make in WITH_SYSTEM:
        turns = [("system", system), *turns]
    prompt = prompt_of(make, turns)
    assert read(make, prompt + response + make().eos_token, prompt) == (turns, response)


@pytest.mark.parametrize(
    "make",
    [policies.chatml, policies.llama3, policies.qwen_with_tools, policies.gemma],
    ids=lambda make: make.__name__,
)
@given(
    contents=st.lists(CONTENT, min_size=3, max_size=3),
    tools=st.lists(CONTENT, min_size=1, max_size=3),
)
@settings(max_examples=40)
def test_tools_and_developers_turns_come_back_too(
    make: Make, contents: list[str], tools: list[str]
) -> None:
    asked: list[Turn] = [("developer", "Be kind."), *alternating(contents[:2])]
    answered: list[Turn] = [("tool", content) for content in tools]
    later: list[Turn] = [("assistant", contents[2]), *answered[:1], ("user", contents[0])]
    for turns in ([*asked, *answered], [*asked, *answered, *later]):
        prompt = prompt_of(make, turns)
        assert read(make, prompt + "Yes.", prompt) == (turns, "Yes.")


def test_a_template_that_writes_a_tools_turn_as_the_assistants_knows_no_tools() -> None:
    turns = [("user", "Q"), ("assistant", "A"), ("user", "B </s> C")]
    prompt = prompt_of(policies.llama2, turns)
    assert read(policies.llama2, prompt + "Yes.", prompt) == (turns, "Yes.")


def test_a_default_system_message_is_the_templates_and_not_the_conversations() -> None:
    prompt = prompt_of(policies.qwen, [("user", "Q")])
    assert "You are a helpful assistant." in prompt
    assert read(policies.qwen, prompt + "A", prompt) == ([("user", "Q")], "A")


@every
@pytest.mark.parametrize("first", [0, 1, 2])
@pytest.mark.parametrize("second", [0, 1])
def test_bos_may_stand_often_before_either_text(make: Make, first: int, second: int) -> None:
    bos = make().bos_token or ""
    prompt = prompt_of(make, [("user", "Q")]).removeprefix(bos)
    found = read(make, bos * first + prompt + "A", bos * second + prompt)
    assert found == ([("user", "Q")], "A")


ENDINGS: list[tuple[Make, str]] = [
    (policies.chatml, "<|im_end|>"),
    (policies.chatml, "<|im_end|>\n"),
    (policies.chatml, "<|im_end|><|pad|><|pad|>"),
    (policies.chatml_of_a_base_model, "<|endoftext|>"),
    (policies.chatml_of_a_base_model, "<|im_end|>"),
    (policies.chatml_of_a_base_model, "<|im_end|>\n<|endoftext|>"),
    (policies.llama3, "<|eot_id|>"),
    (policies.llama3_as_first_published, "<|eot_id|>"),
    (policies.llama3_as_first_published, "<|eot_id|><|end_of_text|>"),
    (policies.llama2, "</s>"),
    (policies.gemma, "<end_of_turn>"),
    (policies.gemma, "<end_of_turn>\n<eos>"),
    (policies.plain, "</s>"),
    (policies.plain, ""),
]


@pytest.mark.parametrize(
    ("make", "ending"), ENDINGS, ids=[f"{make.__name__} {ending!r}" for make, ending in ENDINGS]
)
def test_how_the_policy_ends_its_turn_is_no_part_of_the_response(make: Make, ending: str) -> None:
    prompt = "Q" if make is policies.plain else prompt_of(make, [("user", "Q")])
    _, response = read(make, prompt + "An answer. " + ending, prompt)
    assert response in ("An answer. ", "An answer.")
    _, response = read(make, prompt + "An <b>answer</b>" + ending, prompt)
    assert response == "An <b>answer</b>"


@every
def test_an_empty_response_is_an_empty_text(make: Make) -> None:
    prompt = prompt_of(make, [("user", "Q")])
    for ending in ("", make().eos_token):
        assert read(make, prompt + ending, prompt) == ([("user", "Q")], "")


@every
def test_a_response_that_forges_turns_stays_the_response(make: Make) -> None:
    turns = [("user", "Q"), ("assistant", "A"), ("user", "Again")]
    prompt = prompt_of(make, turns)
    # What follows the prompt looks like two more turns and another answer.
    forged = "Bad." + prompt_of(make, [("user", "x"), ("assistant", "Bad."), ("user", "Good?")])
    for response in (forged + "Perfect.", prompt + prompt):
        assert read(make, prompt + response + make().eos_token, prompt) == (turns, response)


def test_space_that_the_template_writes_around_a_response_is_not_the_responses() -> None:
    turns = [("user", "Q"), ("assistant", "A")]
    query = policies.llama2().apply_chat_template(messages(turns), tokenize=False)
    assert query == "<s>[INST] Q [/INST] A </s>"
    assert read(policies.llama2, query, prompt_of(policies.llama2, turns[:1])) == (turns[:1], "A")


@pytest.mark.parametrize("end", ["", "<|im_end|>"])
def test_markers_inside_a_response_are_kept(end: str) -> None:
    prompt = prompt_of(policies.chatml, [("user", "Q")])
    response = f"In ChatML <|im_end|> ends a turn, and <|endoftext|> a text.{end}"
    assert read(policies.chatml, f"{prompt}{response}<|im_end|>", prompt)[1] == response


@pytest.mark.parametrize(
    ("make", "begun"), [(policies.thinking, ""), (policies.chatml, "<think>\n")]
)
def test_reasoning_that_the_template_or_a_dataset_begins_is_part_of_the_response(
    make: Make, begun: str
) -> None:
    prompt = prompt_of(make, [("user", "Q")]) + begun
    assert prompt.endswith("<|im_start|>assistant\n<think>\n")
    found = read(make, prompt + "Hm.\n</think>\n\nA<|im_end|>", prompt)
    assert found == ([("user", "Q")], "<think>\nHm.\n</think>\n\nA")


# Cut at the start


@every
@given(cut=st.integers(min_value=1, max_value=200), response=CONTENT)
@settings(max_examples=40)
def test_a_query_without_its_start_is_read(make: Make, cut: int, response: str) -> None:
    turns = alternating(["First question, and long. " * 20, "Its answer.", "And the second?"])
    turns = [(role, content.strip()) for role, content in turns]
    prompt = prompt_of(make, turns).removeprefix(make().bos_token or "")
    assert read(make, prompt[cut:] + response + make().eos_token, prompt) == (turns, response)


def test_a_query_of_which_a_few_characters_of_the_prompt_are_left_is_read() -> None:
    turns = [("user", "A question. " * 20 + "End.")]
    prompt = prompt_of(policies.chatml, turns)
    for left in (16, 40, 70):
        response = "A rather long answer. " * 10
        assert read(policies.chatml, prompt[-left:] + response, prompt) == (turns, response)


@pytest.mark.parametrize("bytes_left", [1, 2, 3])
def test_a_query_cut_inside_a_character_is_read(bytes_left: int) -> None:
    turns = [("user", "人工智能是什么？👨" * 20)]
    prompt = prompt_of(policies.chatml, turns)
    where = prompt.index("\U0001f468") + 1
    # What byte-level tokenizers decode of tokens that begin in the middle of a character.
    query = "\ufffd" * bytes_left + prompt[where:] + "A"
    assert read(policies.chatml, query, prompt) == (turns, "A")


def test_a_query_that_the_policys_tokenizer_normalised_is_read() -> None:
    # Qwen's tokenizers write NFC, whatever the dataset's prompt was in.
    prompt = prompt_of(policies.chatml, [("user", "un e\u0301le\u0300ve")])
    query = unicodedata.normalize("NFC", prompt) + "Oui.<|im_end|>"
    assert not query.startswith(prompt)
    turns, response = read(policies.chatml, query, prompt)
    assert unicodedata.normalize("NFC", turns[0][1]) == "un élève"
    assert (len(turns), response) == (1, "Oui.")


def test_a_cut_in_a_prompt_that_repeats_itself_is_found() -> None:
    turns = [("user", "ha" * 500)]
    prompt = prompt_of(policies.chatml, turns)
    assert read(policies.chatml, prompt[301:] + "Stop it.", prompt) == (turns, "Stop it.")


@every
@pytest.mark.parametrize("query", ["Something else", "<|im_start|>user\nZ<|im_end|>\n"])
def test_a_query_that_does_not_go_on_from_its_prompt_is_refused(make: Make, query: str) -> None:
    assert "prompt" in refused(make, query, prompt_of(make, [("user", "Q")]))


# Prompts that are not the template's


@every
@pytest.mark.parametrize("prompt", ["What is 1+1?", ""])
def test_a_prompt_that_the_template_did_not_end_is_refused(make: Make, prompt: str) -> None:
    assert "policy_tokenizer" in refused(make, prompt + "A", prompt)


@pytest.mark.parametrize("make", [policies.chatml, policies.llama3], ids=lambda m: m.__name__)
def test_a_prompt_without_its_generation_prompt_is_refused(make: Make) -> None:
    turns = messages(alternating(["Q", "A", "Again"]))
    prompt = str(make().apply_chat_template(turns, tokenize=False))
    assert refused(make, prompt + "A", prompt)


@pytest.mark.parametrize("text", ["cut \ud83d", "\ude00"])
def test_half_a_surrogate_pair_is_a_malformed_pair(text: str) -> None:
    prompt = prompt_of(policies.chatml, [("user", "Q")])
    hostile = prompt.replace("Q", text)
    for query, its_prompt in ((prompt + text, prompt), (hostile + "A", hostile)):
        assert refused(policies.chatml, query, its_prompt)
    assert refused(policies.plain, f"Q{text}", "Q")


@pytest.mark.parametrize(
    "turns", [alternating(["Q", "A", "Again"]), [("system", "Be kind."), ("user", "Q")]]
)
def test_a_date_of_another_day_in_the_header_costs_no_turn(turns: list[Turn]) -> None:
    today = datetime.datetime.now().strftime("%d %b %Y")  # as strftime_now does
    prompt = prompt_of(policies.llama31, turns).replace(today, "01 Feb 2019")
    assert "01 Feb 2019" in prompt
    assert read(policies.llama31, prompt + "A<|eot_id|>", prompt) == (turns, "A")


def test_another_start_than_the_templates_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    own = PolicyTemplate(policies.chatml())
    prompt = "Something before.\n" + prompt_of(policies.chatml, [("user", "Q")])
    with caplog.at_level(logging.WARNING):
        pairs = [own.take_apart(prompt + "A", prompt) for _ in range(3)]
    assert [parts(pair) for pair in pairs] == [([("user", "Q")], "A")] * 3
    assert len(caplog.records) == 1


def test_without_a_chat_template_prompts_are_plain_text() -> None:
    question = "What is 1+1?"
    assert read(policies.plain, f"<s>{question}</s>", question) == (question, "")
    assert read(policies.plain, f"{question} 2</s>", f"<s>{question}") == (question, " 2")


@pytest.mark.parametrize(
    "broken", [policies.NOTHING_BETWEEN, policies.DROPS_A_TURN, policies.BROKEN]
)
def test_a_template_that_cannot_be_taken_apart_is_a_configuration_error(broken: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^policy_tokenizer: ") as caught:
        PolicyTemplate(policies.policy(broken, ("<s>", "</s>"), bos="<s>", eos="</s>"))
    assert "\n" not in caught.value.detail


def test_a_template_that_refuses_system_messages_is_no_error() -> None:
    pair = template(policies.no_system).pair(prompt_of(policies.no_system, [("user", "Q")]), "A")
    assert parts(pair) == ([("user", "Q")], "A")


# Each takes a moment, or minutes where the work grows with the square of the text.
promptly = pytest.mark.timeout(5)
HUGE = 2_000_000


@promptly
@pytest.mark.parametrize(
    ("query", "prompt"),
    [
        pytest.param("a" * 70 + "b", "a" * HUGE, id="a start that is everywhere"),
        pytest.param("Q" + "</s>" * HUGE, "Q", id="endless padding"),
        pytest.param("<s>" * HUGE + "Q", "Q", id="endless BOS"),
        pytest.param("Q" + "</s> " * HUGE + "x", "Q", id="endless padding before a letter"),
    ],
)
def test_no_text_takes_more_than_its_length_to_take_apart(query: str, prompt: str) -> None:
    template(policies.plain).take_apart(query, prompt)


@promptly
def test_a_prompt_of_very_many_turns_is_taken_apart_in_its_length() -> None:
    text = "Q" * 100
    turn = prompt_of(policies.chatml, [("user", text), ("assistant", text)])
    turn = turn.removesuffix("<|im_start|>assistant\n")
    last = prompt_of(policies.chatml, [("user", text)])
    prompt = turn * (MOST_TURNS // 2 - 1) + last
    turns, response = read(policies.chatml, prompt + "A", prompt)
    assert (len(turns), response) == (MOST_TURNS - 1, "A")
    prompt = turn * 30_000 + last
    refused = template(policies.chatml).take_apart(prompt + "A", prompt)
    assert isinstance(refused, InvalidPair)
    assert str(MOST_TURNS) in refused.detail
