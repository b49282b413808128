"""The tokenizer's copy: only marks are structure."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

import fastokens
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as RustTokenizer

from fivescore.errors import ConfigurationError
from fivescore.model import tokenizer as module
from fivescore.model.tokenizer import Guard, Tokenizer
from tests.unit.model import sample_tokenizers as samples

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
    assert mark != Guard(("<a>",), {}).marks["<a>"], "none can be guessed"
    longer = Guard(("<a>", "<a>b"), {})
    assert longer.seal("<a>b") == longer.marks["<a>b"]


# fastokens


MADE: dict[str, Callable[[], Any]] = {
    "demo": samples.demo,
    "chatml": samples.chatml,
    "chatml by fine-tuning": samples.chatml_by_fine_tuning,
    "nemo": partial(samples.nemo, markers_are_special=False),
    "nemo, special": partial(samples.nemo, markers_are_special=True),
}


def backend(make: Callable[[], Any]) -> RustTokenizer:
    copy = RustTokenizer.from_str(make().backend_tokenizer.to_str())
    copy.encode_special_tokens = True
    return copy


def exact_ids(exact: RustTokenizer, text: str) -> list[int]:
    ids: list[int] = exact.encode(text, add_special_tokens=False).ids
    return ids


@pytest.mark.parametrize("name", MADE)
@given(st.text(max_size=200))
@example("<|eot_id|> <|im_end|>x<|im_start|>  </s>\n\n")
@example(
    "\u2028\x00\ufeff e\u0301 \u017f '\u017f don't 1234567 \U0001f9d1\U0001f3fd\u200d\U0001f680"
)
@settings(max_examples=300)
def test_fastokens_gives_the_ids_of_tokenizers(name: str, text: str) -> None:
    exact, found = both(name)
    assert module.encode_fast(found, [text]) == [exact_ids(exact, text)]


@lru_cache(maxsize=4)
def both(name: str) -> tuple[RustTokenizer, fastokens.Tokenizer]:
    exact = backend(MADE[name])
    found = module.faster(exact, ())
    assert found is not None
    return exact, found


@pytest.mark.parametrize("make", [partial(samples.llama2, template_has_bos=True), samples.unigram])
def test_what_fastokens_cannot_read_stays_with_tokenizers(
    make: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        assert module.faster(backend(make), ()) is None
    assert "fastokens cannot read this tokenizer" in caplog.text


def test_a_tokenizer_that_gives_other_ids_is_not_taken(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    other = json.loads(samples.demo().backend_tokenizer.to_str())
    other["pre_tokenizer"] = json.loads(samples.chatml().backend_tokenizer.to_str())[
        "pre_tokenizer"
    ]
    wrong = fastokens.Tokenizer.from_json_str(json.dumps(other))
    monkeypatch.setattr(fastokens, "Tokenizer", SimpleNamespace(from_json_str=lambda text: wrong))
    assert module.faster(backend(samples.demo), ()) is None
    assert "fastokens gives other ids for" in caplog.text


class Panic(BaseException):
    """As pyo3's, which is no Exception."""


def panic(*args: Any, **kwargs: Any) -> Any:
    raise Panic("index out of bounds")


def error(*args: Any, **kwargs: Any) -> Any:
    raise ValueError("match limit")


@pytest.mark.parametrize("part", ["from_json_str", "encode_batch"])
def test_a_panic_at_the_load_leaves_the_work_to_tokenizers(
    part: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    parts = {"from_json_str": lambda text: SimpleNamespace(encode_batch=panic), part: panic}
    monkeypatch.setattr(fastokens, "Tokenizer", SimpleNamespace(**parts))
    with caplog.at_level(logging.INFO):
        assert module.faster(backend(samples.demo), ()) is None
    assert "panicked: index out of bounds" in caplog.text


@pytest.mark.parametrize("failure", [error, panic])
def test_a_failure_of_fastokens_is_made_good_by_tokenizers(
    failure: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    tokenizer = Tokenizer(samples.demo())
    expected = tokenizer.encode(["a text"])
    monkeypatch.setattr(module, "encode_fast", failure)
    assert tokenizer.encode(["a text"]) == expected


def test_a_panic_of_both_is_an_error_of_the_request(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = Tokenizer(samples.demo())
    monkeypatch.setattr(module, "encode_fast", panic)
    monkeypatch.setattr(tokenizer, "_backend", SimpleNamespace(encode_batch_fast=panic))
    with pytest.raises(RuntimeError, match="panicked: index out of bounds"):
        tokenizer.encode(["a text"])
