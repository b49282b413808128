"""Tiny checkpoints of published shapes, each made of the parity tests' Llama."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from tests.checkpoints import llama

HIDDEN = 64
Tensors = dict[str, Tensor]


def base(folder: Path) -> Tensors:
    """A Llama with its tokenizer in ``folder``, and its tensors without the head."""
    llama(folder)
    tensors = load_file(folder / "model.safetensors")
    tensors.pop("score.weight")
    return tensors


def save(folder: Path, tensors: Mapping[str, Tensor], **config: Any) -> Path:
    """The folder with these tensors, and these entries of config.json changed."""
    kept = {name: tensor.contiguous() for name, tensor in tensors.items()}
    save_file(kept, folder / "model.safetensors", metadata={"format": "pt"})
    return configure(folder, **config)


def configure(folder: Path, **entries: Any) -> Path:
    """The folder with these entries of config.json; None removes one."""
    file = folder / "config.json"
    content = {**json.loads(file.read_text()), **entries}
    file.write_text(json.dumps({k: v for k, v in content.items() if v is not None}))
    return folder


def drawn(*shape: int, scale: float = 0.3) -> Tensor:
    """A random tensor; the generator is seeded by ``base``."""
    return torch.randn(*shape) * scale


def linear(folder: Path, name: str = "v_head.summary", outputs: int = 1, **config: Any) -> Path:
    """A language model's body with one linear layer, and its own head beside it."""
    tensors = base(folder)
    tensors |= {f"{name}.weight": drawn(outputs, HIDDEN), f"{name}.bias": drawn(outputs)}
    tensors["lm_head.weight"] = drawn(*tensors["model.embed_tokens.weight"].shape)
    return save(folder, tensors, architectures=["LlamaForCausalLM"], id2label=None, **config)


def mlp(folder: Path, name: str = "score", **config: Any) -> Path:
    """INF-ORM's shape."""
    tensors = base(folder)
    tensors |= {f"{name}.0.weight": drawn(HIDDEN, HIDDEN), f"{name}.0.bias": drawn(HIDDEN)}
    tensors |= {f"{name}.2.weight": drawn(1, HIDDEN), f"{name}.2.bias": drawn(1)}
    return save(folder, tensors, architectures=["INFORMForSequenceClassification"], **config)


def armorm(folder: Path) -> Path:
    """ArmoRM's shape: 19 objectives and a gate of four layers."""
    tensors = base(folder)
    widths = [HIDDEN, 32, 32, 32, 19]
    for number in range(4):
        tensors[f"gating.layers.{number}.weight"] = drawn(widths[number + 1], widths[number])
        tensors[f"gating.layers.{number}.bias"] = drawn(widths[number + 1])
    tensors["gating.logit_scale"] = torch.tensor([1.7])
    tensors["regression_layer.weight"] = drawn(19, HIDDEN)
    tensors["reward_transform_matrix"] = torch.eye(19) + drawn(19, 19, scale=0.1)
    return save(folder, tensors, architectures=["LlamaForRewardModelWithGating"], num_objectives=19)


def qrm(folder: Path) -> Path:
    """QRM's shape: quantiles of objectives, and a gate with batch norm after each ReLU."""
    tensors = base(folder)
    width = HIDDEN
    for number in (0, 3, 6):
        norm = f"gating.layers.{number + 2}"
        tensors[f"gating.layers.{number}.weight"] = drawn(32, width)
        tensors |= {f"{norm}.weight": drawn(32) + 1, f"{norm}.bias": drawn(32)}
        tensors |= {f"{norm}.running_mean": drawn(32), f"{norm}.running_var": drawn(32) ** 2 + 0.1}
        tensors[f"{norm}.num_batches_tracked"] = torch.tensor(3)
        width = 32
    tensors |= {"gating.layers.9.weight": drawn(19, 32), "gating.layers.9.bias": drawn(19)}
    tensors["gating.logit_scale"] = torch.tensor([0.6])
    tensors["regression_layer.weight"] = drawn(19 * 5, HIDDEN)
    tensors["reward_transform_matrix"] = torch.eye(19) + drawn(19, 19, scale=0.1)
    return save(folder, tensors, architectures=["LlamaForRewardModelWithGating"], num_quantiles=5)


def urm(folder: Path) -> Path:
    """URM's shape: means and log-variances in turn, and a network of weights."""
    tensors = base(folder)
    tensors["score.weight"] = drawn(10, HIDDEN)
    for number, shape in ((0, (32, HIDDEN)), (2, (32, 32)), (4, (5, 32))):
        tensors[f"weights.fc.{number}.weight"] = drawn(*shape)
        tensors[f"weights.fc.{number}.bias"] = drawn(shape[0])
    return save(folder, tensors, architectures=["LlamaForSequenceClassification"], num_labels=10)


def language_model(folder: Path, vocabulary: int = 9700) -> Path:
    """A language model without any other head, and more ids than its tokenizer has."""
    tensors = base(folder)
    tensors["model.embed_tokens.weight"] = drawn(vocabulary, HIDDEN)
    tensors["lm_head.weight"] = drawn(vocabulary, HIDDEN)
    return save(
        folder, tensors, architectures=["LlamaForCausalLM"], tie_word_embeddings=False,
        vocab_size=vocabulary,
    )  # fmt: skip


INTERNLM2 = {
    "embed_tokens": "tok_embeddings", "self_attn.o_proj": "attention.wo",
    "mlp.gate_proj": "feed_forward.w1", "mlp.up_proj": "feed_forward.w3",
    "mlp.down_proj": "feed_forward.w2", "input_layernorm": "attention_norm",
    "post_attention_layernorm": "ffn_norm",
}  # fmt: skip


def internlm2(folder: Path) -> Path:
    """InternLM2's shape; SHAPE has two heads and one group."""
    tensors = base(folder)
    found: Tensors = {}
    for name, tensor in tensors.items():
        if "q_proj" in name:
            parts = [tensors[name.replace("q_proj", f"{letter}_proj")] for letter in "qkv"]
            found[name.replace("self_attn.q_proj", "attention.wqkv")] = torch.cat(parts)
        elif "k_proj" not in name and "v_proj" not in name:
            for llamas, theirs in INTERNLM2.items():
                name = name.replace(llamas, theirs)
            found[name] = tensor
    found["v_head.weight"] = drawn(1, HIDDEN)
    token = json.loads((folder / "config.json").read_text())["pad_token_id"]
    return save(
        folder, found, architectures=["InternLM2ForRewardModel"], model_type="internlm2",
        reward_token_id=token, bias=False, attention_bias=None, rope_parameters=None,
        rope_theta=10000.0,
    )  # fmt: skip


MAKERS: dict[str, Callable[[Path], Path]] = {
    "linear": linear,
    "mlp": mlp,
    "armorm": armorm,
    "qrm": qrm,
    "urm": urm,
    "internlm2": internlm2,
}
