"""What is cut off the end of a response that was sampled, and what is not."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fivescore.endings import Endings, stop_ids
from tests.unit.model import policy_tokenizers as policies
from tests.unit.model import sample_tokenizers as samples

Make = Callable[[], Any]

LAST_TURN = (
    "{% for message in messages %}{{ '<|start|>' + message['role'] + '<|message|>' }}"
    "{{ message['content'] }}{{ '<|return|>' if loop.last else '<|end|>' }}{% endfor %}"
)
"""gpt-oss's way: a last turn ends otherwise than those before it."""
NEXT_HEADER = "{% for m in messages %}{{ '<|' + m['role'] + '|>\n' + m['content'] }}{% endfor %}"
"""GLM 4's way: a turn ends where the next one's header begins."""
PARTS = (
    "{% for m in messages %}{{ m['content'][0]['text'] + '<|end|>\n' }}{% endfor %}"  # no strings
)


def harmony() -> Any:
    return policies.policy(LAST_TURN, ("<|start|>", "<|end|>", "<|return|>"), eos="<|return|>")


def glm() -> Any:
    tokens = ("<|user|>", "<|assistant|>", "<|observation|>", "<|endoftext|>")
    return policies.policy(NEXT_HEADER, tokens, eos="<|endoftext|>")


def of_parts() -> Any:
    return policies.policy(PARTS, ("<|end|>", "</s>"), eos="</s>")


def padded_with_eos(make: Make) -> Any:
    reference = make()
    return SimpleNamespace(
        eos_token=reference.eos_token,
        pad_token=reference.eos_token,
        added_tokens_decoder=reference.added_tokens_decoder,
        chat_template=reference.chat_template,
        apply_chat_template=reference.apply_chat_template,
    )


ENDED: list[tuple[Make, str, str]] = [
    (samples.demo, "7<|eot_id|>", "7"),
    (samples.demo, "7<|eot_id|><|pad|><|pad|>", "7"),
    (samples.demo, "7 \n<|eot_id|>\n", "7 \n"),
    (samples.demo, "<|eot_id|>", ""),
    (samples.chatml, "7<|im_end|>", "7"),
    (samples.chatml, "7<|im_end|>\n", "7"),
    (samples.chatml, "7<|im_end|><|endoftext|>", "7"),
    (samples.chatml_by_fine_tuning, "7<|im_end|>\n<|endoftext|>", "7"),
    (partial(samples.llama2, template_has_bos=True), "7 </s>", "7"),
    (policies.gemma, "7<end_of_turn>\n<eos><|pad|>", "7"),
    (policies.llama3_as_first_published, "7<|eot_id|><|end_of_text|><|pad|>", "7"),
    (policies.plain, "7</s><|pad|>", "7"),
    (harmony, "7<|return|>", "7"),
    (harmony, "7<|end|>", "7"),
    (glm, "7<|user|>", "7"),
    (of_parts, "7<|end|></s>", "7"),
    (partial(padded_with_eos, samples.chatml), "7<|im_end|>", "7"),
    (partial(padded_with_eos, policies.gemma), "7<end_of_turn><eos><eos><eos>", "7"),
]
WRITTEN: list[tuple[Make, str, str]] = [
    (samples.demo, "7<|eot_id|><|eot_id|>", "7<|eot_id|>"),
    (samples.chatml, "7<|im_end|>\n<|im_end|><|endoftext|>", "7<|im_end|>\n"),
    (policies.chatml_of_a_base_model, "7<|endoftext|><|endoftext|>", "7<|endoftext|>"),
    (policies.chatml_of_a_base_model, "7<|endoftext|><|im_end|>", "7<|endoftext|>"),
    (policies.gemma, "7<end_of_turn><end_of_turn><eos>", "7<end_of_turn>"),
    (partial(padded_with_eos, policies.gemma), "7<eos><eos>", "7<eos>"),
    (partial(padded_with_eos, samples.chatml), "7<|im_end|><|im_end|>", "7<|im_end|>"),
]
NOT_FINISHED: list[tuple[Make, str]] = [
    (samples.demo, ""),
    (samples.demo, "7"),
    (samples.demo, "7 \n"),
    (samples.demo, "7<|eot_i"),
    (samples.demo, "7<|eot_id|>8"),
    (samples.chatml, "a<|im_start|>"),
    (harmony, "7<|start|>"),
    (glm, "7<|assistant|>"),
]


@pytest.mark.parametrize(("make", "sampled", "response"), [*ENDED, *WRITTEN])
def test_one_ending_is_cut_and_what_the_policy_wrote_before_it_is_not(
    make: Make, sampled: str, response: str
) -> None:
    assert Endings.of_tokenizer(make()).cut(sampled) == response


@pytest.mark.parametrize(("make", "sampled"), NOT_FINISHED)
def test_a_response_that_was_cut_stays_cut(make: Make, sampled: str) -> None:
    assert Endings.of_tokenizer(make()).cut(sampled) == sampled


def test_padding_alone_is_behind_a_response_that_was_cut() -> None:
    assert Endings.of_tokenizer(samples.demo()).cut("7 and<|pad|><|pad|>") == "7 and"


@pytest.mark.parametrize("several", [True, False])
def test_a_policy_may_stop_at_further_tokens_than_its_eos(tmp_path: Path, several: bool) -> None:
    reference = policies.llama3()
    id_ = reference.convert_tokens_to_ids("<|end_of_text|>")
    named = {"eos_token_id": [reference.eos_token_id, id_] if several else id_}
    (tmp_path / "generation_config.json").write_text(json.dumps(named))
    assert Endings.of_tokenizer(reference).cut("7<|end_of_text|>") == "7<|end_of_text|>"
    endings = Endings.of_tokenizer(reference, stop_ids(str(tmp_path)))
    assert endings.cut("7<|end_of_text|>") == endings.cut("7<|eot_id|>") == "7"
    assert endings.cut("7<|eot_id|><|eot_id|>") == "7<|eot_id|>"


@pytest.mark.parametrize("content", [None, "", "[]", "{}", '{"eos_token_id": null}', '"x"'])
def test_a_policy_without_a_generation_config_has_no_further_stops(
    tmp_path: Path, content: str | None
) -> None:
    if content is not None:
        (tmp_path / "generation_config.json").write_text(content)
    assert stop_ids(str(tmp_path)) == []


def test_a_tokenizer_without_such_tokens_cuts_nothing() -> None:
    none = SimpleNamespace(eos_token=None, pad_token=None, added_tokens_decoder={})
    assert Endings(none).cut("7</s> \n") == "7</s> \n"


@pytest.mark.timeout(5)
@pytest.mark.parametrize("text", ["</s> ", "<|pad|>\n", " "])
def test_no_text_takes_more_than_its_length_to_cut(text: str) -> None:
    endings = Endings.of_tokenizer(policies.plain())
    endings.cut(text * 500_000 + "x")
    endings.cut(text * 500_000)
