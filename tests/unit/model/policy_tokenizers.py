"""Tokenizers of policies, by what their chat templates write; one vocabulary does for all."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

GENERATION = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}" + GENERATION
)
QWEN = (
    "{% if messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n' }}{% endif %}" + CHATML
)
QWEN_TOOLS = (
    "{% for message in messages %}{% if message.role == 'tool' %}"
    "{% if loop.previtem.role != 'tool' %}{{ '<|im_start|>user' }}{% endif %}"
    "{{ '\n<tool_response>\n' + message.content + '\n</tool_response>' }}"
    "{% if loop.last or loop.nextitem.role != 'tool' %}{{ '<|im_end|>\n' }}{% endif %}"
    "{% else %}{{ '<|im_start|>' + message.role + '\n' + message.content + '<|im_end|>\n' }}"
    "{% endif %}{% endfor %}" + GENERATION
)
THINKING = CHATML.replace("assistant\n' }}{% endif %}", "assistant\n<think>\n' }}{% endif %}")
NO_SYSTEM = (
    "{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}{% endif %}" + CHATML
)
LLAMA3 = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}"
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
LLAMA31 = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}"
    "{% set system = messages[0]['content'] | trim %}{% set messages = messages[1:] %}"
    "{% else %}{% set system = '' %}{% endif %}"
    "{{ '<|start_header_id|>system<|end_header_id|>\n\nCutting Knowledge Date: December 2023\n' }}"
    "{{ 'Today Date: ' + strftime_now('%d %b %Y') + '\n\n' + system + '<|eot_id|>' }}"
    + LLAMA3.removeprefix("{{ bos_token }}")
)
LLAMA2 = (
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\n' + messages[0]['content'] + '\n<</SYS>>\n\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ bos_token + '[INST] ' + (system if loop.index0 == 0 else '') + message['content']"
    " + ' [/INST]' }}"
    "{% else %}{{ ' ' + message['content'] + ' ' + eos_token }}{% endif %}{% endfor %}"
)
GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system') }}"
    "{% endif %}{% for message in messages %}"
    "{% set role = 'model' if message['role'] == 'assistant' else message['role'] %}"
    "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"
)
NOTHING_BETWEEN = "{% for message in messages %}{{ message['content'] }}{% endfor %}"
DROPS_A_TURN = "{{ '<u>' + messages[-1]['content'] + '<a>' }}"
BROKEN = "{{ messages[7]['content'].nothing() }}"


def chatml() -> Any:
    return policy(CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")


def chatml_of_a_base_model() -> Any:
    """The end of a turn is a special token, but not the EOS: fine-tuned from a base model."""
    return policy(CHATML, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|endoftext|>")


def qwen() -> Any:
    return policy(QWEN, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")


def qwen_with_tools() -> Any:
    """A tool's turn stands in tags inside a user's."""
    return policy(QWEN_TOOLS, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")


def thinking() -> Any:
    return policy(THINKING, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")


def no_system() -> Any:
    return policy(NO_SYSTEM, ("<|im_start|>", "<|im_end|>", "<|endoftext|>"), eos="<|im_end|>")


LLAMA3_TOKENS = (
    "<|begin_of_text|>", "<|end_of_text|>", "<|start_header_id|>", "<|end_header_id|>",
    "<|eot_id|>",
)  # fmt: skip


def llama3() -> Any:
    return policy(LLAMA3, LLAMA3_TOKENS, bos="<|begin_of_text|>", eos="<|eot_id|>")


def llama3_as_first_published() -> Any:
    """Its EOS was ``<|end_of_text|>``; what it writes at the end of a turn was not named."""
    return policy(LLAMA3, LLAMA3_TOKENS, bos="<|begin_of_text|>", eos="<|end_of_text|>")


def llama31() -> Any:
    return policy(LLAMA31, LLAMA3_TOKENS, bos="<|begin_of_text|>", eos="<|eot_id|>")


def llama2() -> Any:
    return policy(LLAMA2, ("<s>", "</s>"), bos="<s>", eos="</s>")


def gemma() -> Any:
    tokens = ("<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>")
    return policy(GEMMA, tokens, bos="<bos>", eos="<eos>")


def plain() -> Any:
    """A base model's: no chat template."""
    return policy(None, ("<s>", "</s>"), bos="<s>", eos="</s>")


@cache
def policy(
    template: str | None, special: Sequence[str], bos: str | None = None, eos: str | None = None
) -> Any:
    """Bytes as tokens and some special ones, of which one is always padding."""
    backend = Tokenizer(models.BPE(vocab=_bytes(), merges=[]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    backend.decoder = decoders.ByteLevel()
    tokens = (*special, "<|pad|>")
    backend.add_tokens([AddedToken(t, special=True, normalized=False) for t in tokens])
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        bos_token=bos,
        eos_token=eos,
        pad_token="<|pad|>",
        chat_template=template,
    )


def _bytes() -> dict[str, int]:
    return {letter: i for i, letter in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
