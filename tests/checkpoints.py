"""Makers of tiny random checkpoints, each as its model family's own files would be.

Every maker writes a servable folder and returns it. The weights are seeded and wide enough that
each token of a conversation moves every output far more than any rounding does.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import (
    AddedToken,
    Tokenizer,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import (
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from demo.vocabulary import byte_level_bpe

MAX_TOKENS = 512
"""Every checkpoint's context: a test of the exact limit stays cheap."""
VOCAB_SIZE = 700
SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 32,  # the smallest that vLLM's CPU attention takes
    "max_position_embeddings": MAX_TOKENS,
    "initializer_range": 0.2,
}
CORPUS = (
    "A reward model reads a prompt and a response and says how good the response is.",
    "a b c d e the quick brown fox jumps over a lazy dog; a dog, a fox, and a bird.",
    "What is the capital of France? The capital of France is Paris. Explain a for loop.",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(add(i, 1))\n",
    "Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich.",
    "Voilà un élève très âgé à Noël, où il a mangé des crêpes.",
    "Съешь же ещё этих мягких французских булок, да выпей чаю.",
    "人工智能是计算机科学的一个分支。東京は日本の首都です。",
    "مرحبا بالعالم، كيف حالك اليوم؟ שלום עולם, מה שלומך היום?",
    "System\nUser\nAssistant\nsystem\nuser\nassistant\n\n",
)

LLAMA_BOS, LLAMA_EOT, LLAMA_PAD = "<|begin_of_text|>", "<|eot_id|>", "<|pad|>"
LLAMA_HEADER = ("<|start_header_id|>", "<|end_header_id|>")
LLAMA_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}"
    "{{ message['content'] | trim }}{{ '<|eot_id|>' }}{% endfor %}"
)
CHATML_TEMPLATE = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
)
ROLE_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{{ '<|' + message['role'] + '|>\n' + message['content'] + '<|end|>\n' }}{% endfor %}"
)
CHATML_SYSTEM = "You judge answers."
CHATML_MANIFEST: dict[str, Any] = {
    "version": 1,
    "outputs": 5,
    "attributes": {"verbosity": {"output": 0}, "safety": {"output": 3, "scale": -0.5}},
    "reward": {"weights": {"safety": 2.0, "verbosity": -0.25}, "bias": 1.5},
    "prompt": {"format": "chat_template", "system": CHATML_SYSTEM},
}
STEERLM_MANIFEST: dict[str, Any] = {
    "version": 1,
    "outputs": 9,
    "attributes": {
        "helpfulness": {"output": 4, "scale": 1.25, "offset": 0.5},
        "correctness": {"output": 5, "scale": 0.75, "offset": -0.25},
        "coherence": {"output": 6, "scale": -1.5, "offset": 3.0},
        "complexity": {"output": 7, "scale": 0.4, "offset": 1.0},
        "verbosity": {"output": 8, "scale": 2.0, "offset": -2.0},
    },
    "reward": {
        "weights": {
            "helpfulness": 0.65,
            "correctness": 0.8,
            "coherence": 0.45,
            "complexity": 0.55,
            "verbosity": -0.4,
        },
        "bias": 0.125,
    },
    "prompt": {"format": "steerlm"},
    "max_tokens": MAX_TOKENS,
}


def llama(folder: Path) -> Path:
    """Llama 3's turns, BOS from template and post-processor, 5 outputs, no manifest."""
    specials = (LLAMA_BOS, *LLAMA_HEADER, LLAMA_EOT, LLAMA_PAD)
    backend = _byte_level_bpe([AddedToken(text, special=True) for text in specials])
    backend.post_processor = processors.TemplateProcessing(
        single=f"{LLAMA_BOS} $A", special_tokens=[(LLAMA_BOS, backend.token_to_id(LLAMA_BOS))]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=LLAMA_BOS, eos_token=LLAMA_EOT, pad_token=LLAMA_PAD
    )
    tokenizer.chat_template = LLAMA_TEMPLATE
    return _save(folder, tokenizer, _llama_head(tokenizer, outputs=5, seed=1))


def qwen(folder: Path) -> Path:
    """Qwen's ChatML, NFC, no BOS, 5 outputs of which a manifest reads two and adds a system turn.

    ``<think>`` is a token of its own that is not special: in a text it stays that token.
    """
    specials = [
        AddedToken(t, special=True) for t in ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    ]
    backend = _byte_level_bpe([*specials, AddedToken("<think>", special=False, normalized=False)])
    backend.normalizer = normalizers.NFC()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML_TEMPLATE
    config = Qwen3Config(**SHAPE, **_head_settings(tokenizer, outputs=5))
    model = _seeded(Qwen3ForSequenceClassification, config, seed=2)
    return _save(folder, tokenizer, model, CHATML_MANIFEST)


def steerlm(folder: Path) -> Path:
    """NeMo's SteerLM format on a SentencePiece-like tokenizer, 9 outputs, an affine manifest."""
    specials = ("<unk>", "<s>", "</s>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=sentencepiece_like(specials),
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )
    return _save(folder, tokenizer, _llama_head(tokenizer, outputs=9, seed=3), STEERLM_MANIFEST)


def scalar(folder: Path) -> Path:
    """One output, no manifest; BOS from the template alone; tokens that swallow what follows."""
    bos = AddedToken("<s>", special=True)
    # Phi-3's role tokens are like this: the whitespace after them belongs to them.
    turns = [
        AddedToken(f"<|{name}|>", special=True, rstrip=True)
        for name in ("system", "user", "assistant", "end")
    ]
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=_byte_level_bpe([bos, *turns]),
        bos_token=bos,
        eos_token=turns[-1],
        pad_token=turns[-1],
    )
    tokenizer.chat_template = ROLE_TEMPLATE
    return _save(folder, tokenizer, _llama_head(tokenizer, outputs=1, seed=4))


def three_outputs(folder: Path) -> Path:
    """A head whose number of outputs does not say what they mean, and no manifest."""
    tokenizer = PreTrainedTokenizerFast.from_pretrained(llama(folder))
    return _save(folder, tokenizer, _llama_head(tokenizer, outputs=3, seed=5))


MAKERS: dict[str, Callable[[Path], Path]] = {
    "llama": llama,
    "qwen": qwen,
    "steerlm": steerlm,
    "scalar": scalar,
}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> Path:
    """Put ``manifest`` beside the weights."""
    (folder / "reward.json").write_text(json.dumps(manifest, indent=1))
    return folder


def _byte_level_bpe(added: Sequence[AddedToken]) -> Tokenizer:
    tokenizer = byte_level_bpe()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_tokens(list(added))
    return tokenizer


def sentencepiece_like(specials: Sequence[str]) -> Tokenizer:
    """What conversion makes of Llama 2's and Nemotron's models: BPE with bytes to fall back on."""
    trained = Tokenizer(models.BPE(unk_token="<unk>"))
    trained.pre_tokenizer = pre_tokenizers.Metaspace()
    trainer = trainers.BpeTrainer(vocab_size=400, show_progress=False)
    trained.train_from_iterator(CORPUS, trainer)
    model = json.loads(trained.to_str())["model"]
    pieces = [*specials, *(f"<0x{byte:02X}>" for byte in range(256)), *model["vocab"]]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={piece: id_ for id_, piece in enumerate(pieces)},
            merges=[tuple(merge) for merge in model["merges"]],
            unk_token="<unk>",
            byte_fallback=True,
            fuse_unk=True,
        )
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]
    )
    tokenizer.add_tokens([AddedToken(text, special=True, normalized=False) for text in specials])
    return tokenizer


def _llama_head(tokenizer: Any, outputs: int, seed: int) -> Any:
    config = LlamaConfig(**SHAPE, **_head_settings(tokenizer, outputs))
    return _seeded(LlamaForSequenceClassification, config, seed)


def _head_settings(tokenizer: Any, outputs: int) -> dict[str, Any]:
    # No problem_type: published checkpoints leave it out too, and vLLM would then squash.
    return {
        "vocab_size": len(tokenizer),
        "num_labels": outputs,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }


def _seeded(kind: Any, config: Any, seed: int) -> Any:
    torch.manual_seed(seed)
    model = kind(config).to(torch.float32).eval()
    with torch.no_grad():
        model.score.weight.normal_(0.0, 0.3)
    return model


def _save(folder: Path, tokenizer: Any, model: Any, manifest: dict[str, Any] | None = None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save_pretrained(folder)
    model.save_pretrained(folder)
    return folder if manifest is None else write_manifest(folder, manifest)
