"""Models that are read at a token of their own after the pair: Athene and InternLM2.

Athene (``rewardbench/models/athene.py``): one linear layer ``v_head`` at the tokenizer's ``cls``
token, id 128003, which is appended to the rendered pair.

InternLM2 (``modeling_internlm2.py`` of internlm/internlm2-7b-reward): ``v_head`` at the token
``reward_token_id``, appended to the ids of the rendered pair; no BOS beside the template's. Its
body is Llama's with other names and with q, k and v in one tensor: for each group of heads the rows
of its queries, then of its key, then of its value.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from fivescore.model.importers import linear, meaning
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan
from fivescore.model.importers.sources import Source, Tensor, read_json

if TYPE_CHECKING:
    import torch

ATHENE = re.compile(r"athene", re.IGNORECASE)
CUSTOM = "CustomAutoModelForSequenceClassification"
"""The class that Athene's config.json names."""
ATHENE_TOKEN = 128003
NAMES = {
    "tok_embeddings": "embed_tokens",
    "attention.wo": "self_attn.o_proj",
    "feed_forward.w1": "mlp.gate_proj",
    "feed_forward.w3": "mlp.up_proj",
    "feed_forward.w2": "mlp.down_proj",
    "attention_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}
"""InternLM2's names and Llama's."""
WQKV = "attention.wqkv"
LLAMA = (
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads",
    "num_key_value_heads", "hidden_act", "max_position_embeddings", "rms_norm_eps", "rope_theta",
    "rope_scaling", "tie_word_embeddings", "pad_token_id", "bos_token_id", "eos_token_id",
    "initializer_range", "torch_dtype", "dtype", "reward_token_id",
)  # fmt: skip
"""Entries of config.json that InternLM2 and Llama have under the same names."""


def plan_athene(source: Source, options: Options) -> Plan | None:
    """The plan of Athene; None for others."""
    named = ATHENE.search(source.name) or ATHENE.search(str(source.config.get("_name_or_path")))
    is_athene = source.architecture == CUSTOM or ATHENE.search(source.architecture)
    if (
        not (named or is_athene or options.kind == "athene")
        or "v_head.weight" not in source.tensors
    ):
        return None
    return _suffixed(source, options, ATHENE_TOKEN, "athene", "Athene", named_by="cls_token")


def plan_internlm2(source: Source, options: Options) -> Plan | None:
    """The plan of an InternLM2 reward model, whose body has Llama's layout by now."""
    token = source.config.get("reward_token_id")
    if not isinstance(token, int) or "v_head.weight" not in source.tensors:
        return None
    found = _suffixed(source, options, token, "internlm2", "InternLM2")
    if found is None:
        return None
    # Its code encodes the rendered text without the tokenizer's own BOS.
    bos = "auto" if writes_bos(source) else "never"
    return replace(found, manifest=meaning.with_prompt(found.manifest, bos=bos))


def _suffixed(
    source: Source,
    options: Options,
    token: int,
    kind: str,
    name: str,
    named_by: str | None = None,
) -> Plan | None:
    plan = linear.plan(source, options)
    if plan is None:
        return None
    text = _string(source, token, named_by)
    # A template may write the token itself.
    suffix = None if text in _template(source).rsplit("endfor", 1)[-1] else text
    manifest = (
        plan.manifest if suffix is None else meaning.with_prompt(plan.manifest, suffix=suffix)
    )
    return replace(
        plan,
        kind=kind,
        sentence=f"{name}, a reward model whose head is one linear layer at the token {text!r}",
        manifest=meaning.with_prompt(manifest, end="rendered"),
    )


def _string(source: Source, token: int, named_by: str | None) -> str:
    """The string of a token by the tokenizer's file, or the one that its configuration names.

    Raises:
        ConfigurationError: the tokenizer does not have it.
    """
    tokenizer = source.tokenizer()
    if tokenizer is None:
        raise source.refuse(
            "it has no tokenizer.json: give a folder that has its tokenizer with --tokenizer"
        )
    text = tokenizer.id_to_token(token)
    named = _tokenizer_config(source).get(named_by) if named_by else None
    if isinstance(named, dict):
        named = named.get("content")
    if text is None and isinstance(named, str) and tokenizer.token_to_id(named) is not None:
        text = named
    if text is None:
        raise source.refuse(f"its tokenizer lacks token {token}, at which the head is read")
    return str(text)


def _tokenizer_config(source: Source) -> Mapping[str, Any]:
    file = source.files.get("tokenizer_config.json")
    return {} if file is None else read_json(file, source.name)


def _template(source: Source) -> str:
    file = source.files.get("chat_template.jinja")
    if file is not None:
        return file.read_text()
    return str(_tokenizer_config(source).get("chat_template") or "")


def writes_bos(source: Source) -> bool:
    """Whether the chat template writes BOS."""
    template = _template(source)
    bos = _tokenizer_config(source).get("bos_token")
    text = bos.get("content") if isinstance(bos, dict) else bos
    return "bos_token" in template or bool(text and text in template)


def as_llama(source: Source) -> Source:
    """An InternLM2 source under Llama's names, with q, k and v apart; others as they are.

    Raises:
        ConfigurationError: config.json does not say how many heads there are.
    """
    if source.config.get("model_type") != "internlm2":
        return source
    config = _llama_config(source)
    heads, groups = config["num_attention_heads"], config["num_key_value_heads"]
    found: dict[str, Tensor] = {}
    for name, tensor in source.tensors.items():
        if WQKV in name:
            for part, letter in enumerate("qkv"):
                new = name.replace(WQKV, f"self_attn.{letter}_proj")
                found[new] = _split(source, name, tensor, (heads, groups), part)
            continue
        for theirs, llamas in NAMES.items():
            name = name.replace(f".{theirs}.", f".{llamas}.")
        found[name] = tensor
    return source.with_(config=config, tensors=found)


def _llama_config(source: Source) -> dict[str, Any]:
    config = source.config
    kept = {name: config[name] for name in LLAMA if name in config}
    heads = config.get("num_attention_heads")
    if not isinstance(heads, int):
        raise source.refuse("config.json has no num_attention_heads: fetch the whole of it")
    scaling = kept.get("rope_scaling")
    if isinstance(scaling, dict) and "rope_type" not in scaling:
        kept["rope_scaling"] = {**scaling, "rope_type": scaling.get("type", "default")}
    bias = bool(config.get("bias", False))
    return {
        **kept,
        "model_type": "llama",
        "architectures": [source.architecture],
        "num_key_value_heads": config.get("num_key_value_heads") or heads,
        "attention_bias": bias,
        "mlp_bias": False,
    }


def _split(source: Source, name: str, tensor: Tensor, counts: tuple[int, int], part: int) -> Tensor:
    """The q (0), k (1) or v (2) rows of a ``wqkv`` tensor."""
    heads, groups = counts
    queries = heads // groups
    size, rest = divmod(tensor.shape[0], groups * (queries + 2))
    if rest:
        raise source.refuse(
            f"{name} has {tensor.shape[0]} rows, which are not those of {heads} heads"
        )
    start, count = ((0, queries), (queries, 1), (queries + 1, 1))[part]

    def read() -> torch.Tensor:
        whole = tensor.read()
        rows = whole.reshape(groups, queries + 2, size, *whole.shape[1:])
        return rows[:, start : start + count].reshape(-1, *whole.shape[1:]).contiguous()

    return Tensor((groups * count * size, *tensor.shape[1:]), tensor.dtype, read)
