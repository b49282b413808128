"""Random checkpoints of the shapes that people publish: tokenizer, template, tokens, weights."""

from __future__ import annotations

import datetime
import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

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
    Gemma2Config,
    Gemma2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    MistralConfig,
    MistralForSequenceClassification,
    PreTrainedTokenizerFast,
    Qwen3Config,
    Qwen3ForSequenceClassification,
)

from tests.checkpoints import (
    CORPUS,
    LLAMA_TEMPLATE,
    MAX_TOKENS,
    ROLE_TEMPLATE,
    SHAPE,
    sentencepiece_like,
)
from tests.unit.model.made_templates import (
    DATED,
    DATED_WITH_SYSTEM,
    LLAMA31_DATE,
    LLAMA32_DATE,
    LOOKING,
)

VOCAB_SIZE = 1024
"""Of every model: larger than that of every tokenizer here."""
SPECIALS = (
    "<unk>", "<s>", "</s>", "<pad>", "<|begin_of_text|>", "<|start_header_id|>",
    "<|end_header_id|>", "<|eot_id|>", "<|im_start|>", "<|im_end|>", "<|system|>", "<|user|>",
    "<|assistant|>", "<|end|>", "<extra_id_0>", "<extra_id_1>", "<extra_id_2>",
)  # fmt: skip
UNKNOWN = ("<unk>",)
PLAIN_ADDED = ("<think>", "</think>")
SPACES = ("\n\n", "  ", "\t")


class Body(NamedTuple):
    """A kind of model; all weights of one body are the same, whatever the tokenizer."""

    make: Callable[[Any], Any]
    config: Callable[..., Any]
    outputs: int
    stored: torch.dtype


BODIES = {
    "llama": Body(LlamaForSequenceClassification, LlamaConfig, 5, torch.float32),
    "qwen3": Body(Qwen3ForSequenceClassification, Qwen3Config, 1, torch.bfloat16),
    "mistral": Body(MistralForSequenceClassification, MistralConfig, 9, torch.float16),
    "gemma2": Body(Gemma2ForSequenceClassification, Gemma2Config, 5, torch.float32),
}
TEMPLATES = {
    **LOOKING,
    "llama3": LLAMA_TEMPLATE,
    "roles": ROLE_TEMPLATE,
    "dated": DATED,
    "dated with system": DATED_WITH_SYSTEM,
    "llama 3.1's date": LLAMA31_DATE,
    "llama 3.2's date": LLAMA32_DATE,
}
CLASSES = (
    "PreTrainedTokenizerFast", "LlamaTokenizerFast", "GPT2TokenizerFast", "Qwen2TokenizerFast",
)  # fmt: skip
ENDINGS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "</s>")


@dataclass(frozen=True, slots=True)
class Combination:
    """One checkpoint, by the choices that made it."""

    seed: int
    body: str
    family: str
    template: str | None
    tokenizer_class: str
    bos: str | None
    adds_bos: bool
    adds_eos: bool
    writes_bos: bool
    eos: str | None
    pad: str | None
    spaces: bool
    prompt: dict[str, Any]


def choose(seed: int) -> Combination:
    """A combination; every seed has its own."""
    rng = random.Random(seed)
    form = rng.choices(("chat_template", "raw", "steerlm"), (8, 1, 1))[0]
    prompt: dict[str, Any] = {"format": form} if form != "chat_template" else {}
    for name, values in {
        "bos": ("auto", "always", "never"),
        "end": ("rendered", "eos", "last_not_pad"),
        "system": ("Be strict.", "  Judge.\n"),
        "suffix": ("!", "\n"),
        "date": (str(datetime.date(2024, 7, 26)),),
    }.items():
        if rng.random() < 0.3:
            prompt[name] = rng.choice(values)
    eos = rng.choice((*ENDINGS, None))
    return Combination(
        seed,
        rng.choice(sorted(BODIES)),
        rng.choice(sorted(FAMILIES)),
        rng.choice(sorted(TEMPLATES)) if form == "chat_template" else None,
        rng.choice(CLASSES),
        rng.choice(("<s>", "<|begin_of_text|>", None)),
        rng.random() < 0.5,
        rng.random() < 0.2,
        rng.random() < 0.5,
        eos,
        rng.choice(("<pad>", eos, "<|im_end|>", None)),
        rng.random() < 0.3,
        prompt,
    )


def make(one: Combination, folder: Path, bodies: Path) -> Path:
    """Write the combination's checkpoint; its weights are links into ``bodies``."""
    weights = _body(one.body, bodies)
    folder.mkdir(parents=True)
    for file in weights.glob("*.safetensors"):
        (folder / file.name).symlink_to(file)
    tokenizer = _tokenizer(one)
    tokenizer.save_pretrained(folder)
    file = folder / "tokenizer_config.json"
    settings = json.loads(file.read_text())
    file.write_text(json.dumps({**settings, "tokenizer_class": one.tokenizer_class}))
    config = json.loads((weights / "config.json").read_text())
    names = ("bos_token_id", "eos_token_id", "pad_token_id")
    ids = {name: getattr(tokenizer, name) for name in names}
    (folder / "config.json").write_text(json.dumps({**config, **ids}))
    outputs = BODIES[one.body].outputs
    manifest = {"outputs": outputs, "reward": {"output": 0}, "prompt": one.prompt}
    (folder / "reward.json").write_text(json.dumps({"version": 2, **manifest}))
    return folder


def _body(name: str, bodies: Path) -> Path:
    folder = bodies / name
    if folder.exists():
        return folder
    body = BODIES[name]
    torch.manual_seed(len(name))
    config = body.config(**{**SHAPE, "num_labels": body.outputs, "vocab_size": VOCAB_SIZE,
                            "max_position_embeddings": 16 * MAX_TOKENS})  # fmt: skip
    model = body.make(config).eval()
    with torch.no_grad():
        model.score.weight.normal_(0.0, 0.3)
    model.to(body.stored).save_pretrained(folder)
    return folder


def _tokenizer(one: Combination) -> PreTrainedTokenizerFast:
    backend = FAMILIES[one.family]()
    backend.add_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIALS])
    others = (*PLAIN_ADDED, *(SPACES if one.spaces else ()))
    backend.add_tokens([AddedToken(t, special=False, normalized=False) for t in others])
    first = one.bos if one.adds_bos else None
    last = one.eos if one.adds_eos else None
    if first or last:
        used = [token for token in (first, last) if token]
        backend.post_processor = processors.TemplateProcessing(
            single=" ".join(filter(None, (first, "$A", last))),
            special_tokens=[(token, backend.token_to_id(token)) for token in used],
        )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, bos_token=one.bos, eos_token=one.eos, pad_token=one.pad
    )
    if one.template is not None:
        start = "{{ bos_token }}" if one.writes_bos and one.bos else ""
        template = TEMPLATES[one.template]
        tokenizer.chat_template = start + template.replace("{{ bos_token }}", "")
    return tokenizer


def _byte_level(normalizer: Any = None) -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.normalizer = normalizer
    trainer = trainers.BpeTrainer(
        vocab_size=600, show_progress=False, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    return tokenizer


def _split_by_digits() -> Tokenizer:
    tokenizer = _byte_level()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True),
         pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )  # fmt: skip
    return tokenizer


def _metaspace_first() -> Tokenizer:
    tokenizer = sentencepiece_like(UNKNOWN)
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    return tokenizer


FAMILIES: dict[str, Callable[[], Tokenizer]] = {
    "byte level": _byte_level,
    "byte level, NFC": lambda: _byte_level(normalizers.NFC()),
    "digits": _split_by_digits,
    "sentencepiece": lambda: sentencepiece_like(UNKNOWN),
    "metaspace first": _metaspace_first,
}


def discard(folder: Path) -> None:
    """Remove a combination's folder."""
    shutil.rmtree(folder, ignore_errors=True)
