"""The tokenizer's copy: only marks are structure."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fivescore.errors import ConfigurationError
from fivescore.scoring.tokenizer import Guard, Tokenizer
from tests.unit.scoring import sample_tokenizers as samples

PIECES = st.sampled_from(("<a>", "<b>", "<a", ">", "<", "a>", "<aa>", "x"))


def test_a_checkpoint_without_a_fast_tokenizer_is_a_configuration_error() -> None:
    with pytest.raises(ConfigurationError, match=r"tokenizer\.json"):
        Tokenizer(SimpleNamespace(bos_token_id=None))


@pytest.mark.parametrize("adds_bos", [True, False])
def test_it_knows_whether_the_tokenizer_adds_a_bos(adds_bos: bool) -> None:
    reference = samples.llama2(template_has_bos=True, adds_bos=adds_bos)
    assert Tokenizer(reference).adds_bos is adds_bos


def test_the_checkpoints_own_tokenizer_is_left_as_it_is() -> None:
    make = partial(samples.llama2, template_has_bos=True)
    before = make().backend_tokenizer.to_str()
    Tokenizer(make(), ["<extra_id_1>"]).encode(["<s>text"])
    assert make().backend_tokenizer.to_str() == before
    assert make().backend_tokenizer.encode("</s>", add_special_tokens=False).ids == [
        make().eos_token_id
    ]


def test_no_id_outside_the_checkpoints_vocabulary_is_ever_given() -> None:
    reference = samples.demo()
    tokenizer = Tokenizer(reference, ["<extra_id_1>"])
    guard = tokenizer.guard
    text = guard.seal("<|eot_id|>" + guard.protect("<extra_id_1> <|eot_id|> text"))
    (ids,) = tokenizer.encode([text])
    assert max(ids) < reference.backend_tokenizer.get_vocab_size()


@given(st.lists(PIECES, max_size=12).map("".join))
@settings(max_examples=200)
def test_a_protected_text_comes_back_whole_and_nothing_in_it_is_sealed(text: str) -> None:
    guard = Guard(("<a>", "<b>", "<aa>"), {})
    assert guard.seal(guard.protect(text)) == text


def test_what_the_template_writes_becomes_a_mark_and_what_a_text_says_does_not() -> None:
    guard = Guard(("<a>",), {"<m>": "<|m|>"})
    sealed = guard.seal("<a>" + guard.protect("<a><m>") + "<a><m>")
    mark = guard.marks["<a>"]
    assert sealed == f"{mark}<a><|m|>{mark}<m>"


def test_the_marks_of_two_guards_differ_so_that_none_can_be_guessed() -> None:
    assert Guard(("<a>",), {}).marks != Guard(("<a>",), {}).marks


def test_the_longest_of_two_special_strings_wins() -> None:
    guard = Guard(("<a>", "<a>b"), {})
    assert guard.seal("<a>b") == guard.marks["<a>b"]
