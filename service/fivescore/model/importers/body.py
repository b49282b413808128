"""The body of a source, under the names of transformers' classes, and its head apart."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from typing import Any

from fivescore.model.importers.plan import PlannedTensor
from fivescore.model.importers.sources import Source, Tensor

WRAPPERS = re.compile(
    r"^(_orig_mod\.|module\.|pretrained_model\.|rwtransformer\.|rwtranrsformer\.)+"
)
"""What torch.compile, data parallelism, TRL and DeepSpeed-Chat (in two spellings) put before the
names of the model that they wrap."""
LAYER = re.compile(r"(.*?)(layers|h|blocks|block)\.\d+\.\w+\.")
"""The name of a tensor of a module inside a body's layer; a gate's own layers have none."""
BODY = re.compile(
    r"(decoder\.)?(embed\w*|wte|wpe|word_embed\w*|\w*norm(_f)?|ln_\w+|rotary\w*|project_(in|out))\."
)
"""Names of what a body has beside its layers, in transformers' classes."""
BARE = frozenset({"", "decoder"})
"""First parts of the names of layers where the body's own name is not before them."""
LANGUAGE_HEADS = ("lm_head", "embed_out", "output", "output_layer")
"""Names of the linear layer from hidden states to the vocabulary."""
NOT_WEIGHTS = re.compile(
    r"(rotary_emb\.inv_freq|attention\.(masked_)?bias|rotary_pos_emb\.inv_freq)$"
)
"""Buffers that old checkpoints keep and no class loads."""


def named(source: Source) -> Source:
    """The source with its tensors' names as transformers' class with a head has them.

    Wrappers' prefixes are taken off, and the body's own name, such as ``model.``, is put before
    names that lack it or that have another one.
    """
    names = {
        name: WRAPPERS.sub("", name) for name in source.tensors if not NOT_WEIGHTS.search(name)
    }
    tops = {_top(match[1]) for name in names.values() if (match := LAYER.match(name))}
    own = f"{prefix(source)}."
    bare = bool(tops) and tops <= BARE
    foreign, instead = ("", "") if bare else _foreign(names.values(), own)
    renamed = {}
    for old, new in names.items():
        if bare and (LAYER.match(new) or BODY.match(new)):
            new = own + new
        elif foreign and new.startswith(foreign):
            new = instead + new.removeprefix(foreign)
        renamed[new] = source.tensors[old]
    return source.with_(tensors=renamed)


def _foreign(names: Collection[str], own: str) -> tuple[str, str]:
    """What stands before a body's names in place of ``own``, and what belongs there; else empty.

    ``backbone.model.layers`` has a wrapper to be taken off, also from a head inside of it;
    ``backbone.layers`` has another name for the body. Where there are several bodies, as beside a
    vision tower, the names are left alone.
    """
    found = {match[1] for match in map(LAYER.match, names) if match}
    if len(found) != 1:
        return "", ""
    (before,) = found
    if wrapped := re.match(rf"(.+\.){re.escape(own)}", before):
        return wrapped[1], ""
    top = f"{_top(before)}."
    return ("", "") if top == own else (top, own)


def prefix(source: Source) -> str:
    """The body's name inside transformers' classes for its kind, such as ``model``."""
    import transformers

    return str(getattr(getattr(transformers, causal(source), None), "base_model_prefix", "model"))


def causal(source: Source) -> str:
    """The name of transformers' class for language models of this kind; else a like name."""
    kind = str(source.config.get("model_type", ""))
    return _causal_names().get(kind) or re.sub(r"For\w+$|Model$", "", source.architecture) + (
        "ForCausalLM"
    )


@cache
def _causal_names() -> Mapping[str, str]:
    from transformers.models.auto import modeling_auto

    return dict(modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)


def classifier(source: Source) -> str:
    """The name of the class with one linear layer on this body."""
    stem = re.sub(r"(ForCausalLM|LMHeadModel|ForConditionalGeneration)$", "", causal(source))
    return f"{stem}ForSequenceClassification"


def parts(source: Source) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
    """The tensors of the body, of the language model's head, and all others."""
    tops = {_top(match[1]) for match in map(LAYER.match, source.tensors) if match}
    language: dict[str, Tensor] = {}
    inner: dict[str, Tensor] = {}
    others: dict[str, Tensor] = {}
    for name, tensor in source.tensors.items():
        if is_language_head(source, name, tensor):
            language[name] = tensor
        elif _top(name) in tops or LAYER.match(name):
            inner[name] = tensor
        else:
            others[name] = tensor
    return inner, language, others


def is_language_head(source: Source, name: str, tensor: Tensor) -> bool:
    """Whether a tensor is of the layer to the vocabulary; a head may have that layer's name."""
    vocabulary = source.value("vocab_size")
    rows = tensor.shape[0] if tensor.shape else 0
    if _module(name) in LANGUAGE_HEADS:
        return vocabulary is None or rows * 2 > vocabulary
    return rows == vocabulary and len(tensor.shape) == 2 and "." not in _module(name)


def _top(name: str) -> str:
    return name.partition(".")[0]


def _module(name: str) -> str:
    return name.rpartition(".")[0]


def hidden(source: Source) -> int:
    """The width of the body's hidden states.

    Raises:
        ConfigurationError: config.json does not say.
    """
    for name in ("hidden_size", "n_embd", "d_model"):
        if isinstance(width := source.value(name), int):
            return width
    raise source.refuse("config.json has no hidden_size: give the whole config.json of the model")


def planned(tensors: Mapping[str, Tensor]) -> Iterator[PlannedTensor]:
    """The tensors under their own names."""
    return (tensor.planned(name) for name, tensor in tensors.items())


def config(source: Source, outputs: int) -> dict[str, Any]:
    """config.json of the new checkpoint: the source's, for a class with ``outputs`` labels."""
    dropped = {"auto_map", "id2label", "label2id", "value_head_prefix", "num_labels"}
    kept = {name: value for name, value in source.config.items() if name not in dropped}
    return {**kept, "architectures": [classifier(source)], "num_labels": outputs}


def language_config(source: Source) -> dict[str, Any]:
    """config.json of a language model, for transformers' own class."""
    kept = {name: value for name, value in source.config.items() if name != "auto_map"}
    return {**kept, "architectures": [causal(source)]}
