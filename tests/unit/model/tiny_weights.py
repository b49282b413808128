"""Tiny checkpoints without tokenizers, sound or with one thing wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForSequenceClassification

from fivescore.model import architecture, weights
from fivescore.model.head import OwnHead
from fivescore.settings import Settings

Tensors = dict[str, torch.Tensor]
HIDDEN = 32
FILE = "model.safetensors"
SHAPES: dict[str, dict[str, Any]] = {
    "llama": {
        "hidden_size": HIDDEN, "intermediate_size": 48, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 64,
    },
    "gpt2": {"n_embd": HIDDEN, "n_layer": 2, "n_head": 2, "vocab_size": 64, "n_positions": 32},
}  # fmt: skip
SHAPES["qwen2"] = SHAPES["llama"]
SHAPES["mixtral"] = {**SHAPES["llama"], "num_local_experts": 4}


def make(folder: Path, family: str = "llama", outputs: int = 5, **config: Any) -> Path:
    """A checkpoint for sequence classification, as transformers saves one."""
    settings = {**SHAPES[family], "num_labels": outputs, "pad_token_id": 0, **config}
    model = AutoModelForSequenceClassification.from_config(AutoConfig.for_model(family, **settings))
    model.save_pretrained(folder)
    return folder


def change(
    folder: Path,
    remove: Iterable[str] = (),
    add: Mapping[str, tuple[int, ...]] | None = None,
    rename: Callable[[str], str] = str,
    **config: Any,
) -> Path:
    """The same folder with some tensors and entries of config.json changed."""
    removed = set(remove)
    found = {
        rename(name): tensor
        for name, tensor in load_file(folder / FILE).items()
        if name not in removed
    }
    found |= {name: torch.zeros(shape) for name, shape in (add or {}).items()}
    save_file(found, folder / FILE, metadata={"format": "pt"})
    return configure(folder, **config)


def configure(folder: Path, **entries: Any) -> Path:
    """The same folder with some entries of config.json changed."""
    folder.mkdir(exist_ok=True)
    file = folder / "config.json"
    content = json.loads(file.read_text()) if file.exists() else {}
    file.write_text(json.dumps(content | entries))
    return folder


def check(folder: Path | str, **engine: Any) -> bool:
    """``weights.check`` as a checkpoint calls it; ``engine`` are options."""
    return check_own(folder, None, **engine)


def check_own(folder: Path | str, own: OwnHead | None, **engine: Any) -> bool:
    """The same where the manifest has a head of another kind than ``linear``."""
    settings = Settings(model=str(folder), engine=engine)
    return weights.check(settings, architecture.read(settings), own)
