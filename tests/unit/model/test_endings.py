"""What is cut off the end of a response that was sampled, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest

from fivescore.model.conversation import Conversation
from fivescore.model.endings import Endings
from fivescore.model.manifest import PromptFormat
from tests.unit.model import sample_tokenizers as samples


def of(make: Callable[[], Any]) -> Endings:
    return Endings(make(), Conversation(PromptFormat(), make()).tail)


@pytest.mark.parametrize(
    ("make", "sampled", "response"),
    [
        (samples.demo, "7<|eot_id|>", "7"),
        (samples.demo, "7<|eot_id|><|pad|><|pad|>", "7"),
        (samples.demo, "7", "7"),
        (samples.demo, "7 \n", "7 \n"),
        (samples.demo, "7 \n<|eot_id|>\n", "7 \n"),
        (samples.demo, "<|eot_id|>", ""),
        (samples.demo, "", ""),
        (samples.demo, "7<|eot_id|>8", "7<|eot_id|>8"),
        (samples.demo, "7<|eot_i", "7<|eot_i"),
        (samples.chatml, "7<|im_end|>", "7"),
        (samples.chatml, "7<|im_end|>\n", "7"),
        (samples.chatml, "7<|im_end|><|endoftext|>", "7"),
        (samples.chatml, "a<|im_start|>", "a<|im_start|>"),
        (partial(samples.llama2, template_has_bos=True), "7 </s>", "7"),
    ],
)
def test_the_end_of_turn_and_padding_are_cut_and_nothing_else(
    make: Callable[[], Any], sampled: str, response: str
) -> None:
    assert of(make).cut(sampled) == response


def test_a_tokenizer_without_such_tokens_cuts_nothing() -> None:
    none = SimpleNamespace(eos_token=None, pad_token=None, added_tokens_decoder={})
    assert Endings(none).cut("7</s> \n") == "7</s> \n"
