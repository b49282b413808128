"""Sequences begin and end with what the manifest says that the model was trained with."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from tokenizers import Tokenizer as RustTokenizer
from tokenizers import processors
from transformers import PreTrainedTokenizerFast

from fivescore.errors import ConfigurationError
from fivescore.model.conversation import Conversation
from fivescore.model.manifest import PromptFormat
from fivescore.types import Pair
from tests.unit.model import made_templates as made
from tests.unit.model import sample_tokenizers as samples

Make = Callable[[], Any]
WITH_BOS = partial(samples.llama2, template_has_bos=True)
WITHOUT_BOS = partial(samples.llama2, template_has_bos=False, adds_bos=False)
PAIR = Pair(prompt="Q", response="A\n")
TURNS = [{"role": "user", "content": "Q"}, {"role": "assistant", "content": "A\n"}]


def ids_of(make: Make, pair: Pair = PAIR, pad_id: int | None = None, **prompt: Any) -> list[int]:
    conversation = Conversation(PromptFormat.model_validate(prompt), make(), pad_id)
    (ids,) = conversation.encode([pair])
    assert isinstance(ids, list)
    return ids


def encoded(make: Make, text: str) -> list[int]:
    return list(make().backend_tokenizer.encode(text, add_special_tokens=False).ids)


def rendered(make: Make) -> str:
    return str(make().apply_chat_template(TURNS, tokenize=False))


@pytest.mark.parametrize("make", [samples.demo, WITH_BOS, WITHOUT_BOS])
@pytest.mark.parametrize("form", ["chat_template", "raw", "text"])
@pytest.mark.parametrize(("bos", "count"), [("always", 1), ("never", 0)])
def test_bos_is_there_once_or_not_at_all_as_the_manifest_says(
    make: Make, form: str, bos: str, count: int
) -> None:
    pair = Pair(text=make().bos_token * 2 + "text") if form == "text" else PAIR
    prompt_format = "raw" if form == "raw" else "chat_template"
    ids = ids_of(make, pair, format=prompt_format, bos=bos)
    assert ids.count(make().bos_token_id) == count
    auto = ids_of(make, pair, format=prompt_format)
    assert ids[count:] == auto[auto[0] == make().bos_token_id :]


def test_steerlm_gets_a_bos_only_where_the_manifest_says_so() -> None:
    make = partial(samples.nemo, markers_are_special=True)
    ids = ids_of(make, format="steerlm")
    assert make().bos_token_id not in ids
    assert ids_of(make, format="steerlm", bos="never") == ids
    assert ids_of(make, format="steerlm", bos="always") == [make().bos_token_id, *ids]


@pytest.mark.parametrize(
    ("make", "text"),
    [
        # ChatML writes a newline after its EOS.
        (samples.chatml, "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA\n<|im_end|>"),
        # Another EOS than the end of turn comes after it.
        (
            samples.chatml_by_fine_tuning,
            "<|im_start|>user\nQ<|im_end|>\n<|im_start|>assistant\nA\n<|im_end|><|endoftext|>",
        ),
        # White space of the response is the response's.
        (partial(made.tokenizer, made.ENDS_WITH_CONTENT), "user\nQ\nassistant\nA\n<|im_end|>"),
    ],
)
def test_one_eos_stands_in_place_of_the_white_space_at_the_end(make: Make, text: str) -> None:
    expected = encoded(make, text)
    assert ids_of(make, end="eos") == expected
    assert ids_of(make, end="rendered") == encoded(make, rendered(make))
    # In a text the template's white space cannot be told from the response's without a marker.
    if make is not samples.chatml and make is not samples.chatml_by_fine_tuning:
        return
    for given in (rendered(make), text, text + "\n\n"):
        assert ids_of(make, Pair(text=given), end="eos") == expected


def test_a_suffix_comes_before_eos() -> None:
    ids = ids_of(samples.chatml, end="eos", suffix="<|im_start|>score\n")
    assert ids == encoded(samples.chatml, rendered(samples.chatml) + "<|im_start|>score<|im_end|>")


def test_the_last_token_that_is_not_pad_is_the_last() -> None:
    make = samples.demo
    whole = ids_of(make)
    eot = make().convert_tokens_to_ids("<|eot_id|>")
    assert whole[-1] == eot
    assert ids_of(make, end="last_not_pad", pad_id=eot) == whole[:-1]
    assert ids_of(make, end="last_not_pad", pad_id=whole[0]) == whole
    several = Pair(text="<|begin_of_text|>a<|eot_id|><|eot_id|>")
    assert ids_of(make, several, end="last_not_pad", pad_id=eot) == encoded(
        make, "<|begin_of_text|>a"
    )
    # Where all are pad tokens, transformers reads the first one.
    pads = Pair(text="<|eot_id|>" * 3)
    assert ids_of(make, pads, end="last_not_pad", pad_id=eot, bos="never") == [eot]


def adds_eos() -> Any:
    """A tokenizer that puts BOS before and EOS after a text, and was saved with padding."""
    backend = RustTokenizer.from_str(WITH_BOS().backend_tokenizer.to_str())
    backend.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>",
        special_tokens=[(token, backend.token_to_id(token)) for token in ("<s>", "</s>")],
    )
    backend.enable_padding(direction="left", length=16, pad_id=0, pad_token="<unk>")
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=samples.INST_TEMPLATE,
    )


@pytest.mark.parametrize("response", ["A", "A</s>"])
def test_raw_ends_as_the_tokenizer_ends_a_text(response: str) -> None:
    ids = ids_of(adds_eos, Pair(prompt="Q ", response=response), format="raw")
    reference = WITH_BOS()
    text = encoded(WITH_BOS, "Q A")
    assert ids == [reference.bos_token_id, *text, reference.eos_token_id]
    # A template writes its own end.
    assert ids_of(adds_eos) == [reference.bos_token_id, *encoded(WITH_BOS, rendered(adds_eos))]


@pytest.mark.parametrize(
    ("make", "prompt", "lacking"),
    [
        (samples.chatml, {"bos": "always"}, "no BOS"),
        (made.without_eos, {"end": "eos"}, "no EOS"),
        (samples.chatml, {"end": "last_not_pad"}, "no pad_token_id"),
    ],
)
def test_a_token_that_the_checkpoint_lacks_is_a_configuration_error(
    make: Make, prompt: dict[str, Any], lacking: str
) -> None:
    with pytest.raises(ConfigurationError, match=lacking):
        ids_of(make, **prompt)
