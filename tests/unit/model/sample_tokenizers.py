"""Tokenizers of the families that checkpoints bring, small enough to build in a test.

Each is built once; the demo checkpoint's own is the fourth family (Llama 3).
"""

from __future__ import annotations

import string
from collections.abc import Sequence
from functools import cache
from typing import Any

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from fivescore.settings import DEMO
from tests.unit.model.policy_tokenizers import CHATML

CORPUS = (
    "A chat between a curious user and an artificial intelligence assistant.",
    "The assistant gives helpful, detailed, and polite answers to the user's questions.",
    "system user assistant System User Assistant extra id extra_id <extra_id_0> <extra_id_1>",
    "What is the capital of France? The capital of France is Paris, of course.",
    "<|im_start|>user\nHello there\n<|im_end|>\n",
)
CHATML_TEMPLATE = CHATML
INST_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'user' %}"
    "{{ '[INST] ' + message['content'] + ' [/INST]' }}"
    "{% elif message['role'] == 'assistant' %}"
    "{{ ' ' + message['content'] + ' ' + eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
)
SENTENCEPIECE_SPECIAL = ("<unk>", "<s>", "</s>")
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
LETTERS = string.ascii_letters + string.digits + string.punctuation
STEERLM_MARKERS = ("<extra_id_0>", "<extra_id_1>", "<extra_id_2>")


@cache
def demo() -> Any:
    """The bundled checkpoint's: byte-level BPE, BOS from both the template and the tokenizer."""
    return AutoTokenizer.from_pretrained(DEMO)


@cache
def chatml() -> Any:
    """Qwen's way: byte-level BPE, no BOS at all."""
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(("<|endoftext|>", "<|im_start|>", "<|im_end|>")),
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=CHATML_TEMPLATE,
    )


@cache
def chatml_by_fine_tuning() -> Any:
    """ChatML added with ``tokenizer.add_tokens``: its markers are added tokens, not special."""
    tokenizer = _byte_level(("<|endoftext|>",))
    tokenizer.add_tokens(
        [AddedToken(t, normalized=False, special=False) for t in ("<|im_start|>", "<|im_end|>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|endoftext|>", chat_template=CHATML_TEMPLATE
    )


@cache
def llama2(*, template_has_bos: bool, adds_bos: bool = True) -> Any:
    """Llama 2's way: Metaspace, byte fallback, <s> and </s>, and turn markers that are text."""
    merges = [("▁", "t"), ("▁t", "h"), ("▁th", "e"), ("i", "s"), ("▁", "is"), ("u", "s")]
    merges += [("us", "e"), ("use", "r"), ("▁", "user"), ("I", "N"), ("IN", "S"), ("s", ">")]
    pieces = [*SENTENCEPIECE_SPECIAL, *BYTES, "▁", *LETTERS, *(a + b for a, b in merges)]
    vocab = {piece: id_ for id_, piece in enumerate(pieces)}
    return _sentencepiece(
        models.BPE(vocab=vocab, merges=merges, unk_token="<unk>", byte_fallback=True),
        adds_bos,
        ("{{ bos_token }}" if template_has_bos else "") + INST_TEMPLATE,
    )


@cache
def unigram() -> Any:
    """DeBERTa's and T5's way: Unigram, whose model itself has the special tokens as pieces."""
    words = ["▁the", "▁is", "▁user", "▁assistant", "INST", "▁[", "s>", "▁<", "</"]
    pieces = [*BYTES, "▁", *LETTERS, *words]
    scored = [(token, 0.0) for token in SENTENCEPIECE_SPECIAL]
    scored += [(piece, -10.0 / len(piece)) for piece in pieces]
    model = models.Unigram(scored, unk_id=0, byte_fallback=True)
    return _sentencepiece(model, True, "{{ bos_token }}" + INST_TEMPLATE)


@cache
def nemo(*, markers_are_special: bool) -> Any:
    """A SteerLM base: its markers are special tokens, or plain text to the tokenizer."""
    special = ("<s>", "</s>", *(STEERLM_MARKERS if markers_are_special else ()))
    return PreTrainedTokenizerFast(
        tokenizer_object=_byte_level(special, bos="<s>"), bos_token="<s>", eos_token="</s>"
    )


@cache
def gpt_neox(*, adds_bos: bool) -> Any:
    """GPT-NeoX's way: byte-level BPE, one special token for all."""
    tokenizer = _byte_level(("<|endoftext|>",), bos="<|endoftext|>" if adds_bos else None)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )


def saved_with_truncation_and_padding() -> Tokenizer:
    """A ChatML tokenizer as a training script leaves it: tokenizer.json truncates and pads."""
    tokenizer = Tokenizer.from_str(chatml().backend_tokenizer.to_str())
    tokenizer.enable_truncation(max_length=8)
    tokenizer.enable_padding(length=64, pad_id=0, pad_token="<|endoftext|>")
    return tokenizer


def _byte_level(special: Sequence[str], bos: str | None = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=420,
        show_progress=False,
        special_tokens=[AddedToken(text, normalized=False, special=True) for text in special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    if bos is not None:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=f"{bos} $A", special_tokens=[(bos, tokenizer.token_to_id(bos))]
        )
    return tokenizer


def _sentencepiece(model: models.Model, adds_bos: bool, template: str) -> Any:
    tokenizer = Tokenizer(model)
    tokenizer.add_special_tokens(
        [AddedToken(text, normalized=False, special=True) for text in SENTENCEPIECE_SPECIAL]
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    tokenizer.decoder = decoders.Sequence(
        [decoders.ByteFallback(), decoders.Metaspace(prepend_scheme="first")]
    )
    if adds_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<s> $A", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        chat_template=template,
    )
