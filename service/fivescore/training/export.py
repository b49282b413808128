"""Writes the trained checkpoint, a folder that ``fivescore serve --model`` can serve."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType

from fivescore.model.manifest import FILE_NAME, Manifest
from fivescore.training.model import HEAD

SHARDED = (DistributedType.FSDP, DistributedType.DEEPSPEED)


def export(
    trainer: Any, fresh: Any, tokenizer: Any, manifest: Manifest, dtype: str, folder: Path
) -> None:
    """Write weights, tokenizer, chat template and manifest; every process must call this.

    Args:
        trainer: after training, with the best weights loaded.
        fresh: returns the model as it was before training; called only if the model is sharded.
        dtype: precision of the stored body; the head stays float32.
    """
    accelerator = trainer.accelerator
    model = accelerator.unwrap_model(trainer.model)
    if accelerator.distributed_type in SHARDED:
        state = accelerator.get_state_dict(trainer.model_wrapped)
        if accelerator.is_main_process:
            model = fresh()
            model.load_state_dict(state)
    if not accelerator.is_main_process:
        return
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    save(model, tokenizer, manifest, dtype, folder)


def save(model: Any, tokenizer: Any, manifest: Manifest, dtype: str, folder: Path) -> None:
    """Write an unsharded model with its tokenizer and manifest."""
    model.to(getattr(torch, dtype))
    getattr(model, HEAD).to(torch.float32)
    text = model.config.get_text_config()
    if text.pad_token_id is None:  # other libraries find the last token by it
        text.pad_token_id = tokenizer.pad_token_id
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    written = manifest.model_dump(mode="json")
    (folder / FILE_NAME).write_text(json.dumps(written, indent=1) + "\n")
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes files that only their owner can read
