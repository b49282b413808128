"""Writes the trained checkpoint, a folder that ``fivescore serve --model`` can serve."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import manifest as manifests
from fivescore.model.manifest import Manifest
from fivescore.model.reference import prove
from fivescore.training.model import HEAD
from fivescore.training.progress import print_line

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


def write_proof(folder: Path) -> None:
    """Add the proof to an exported manifest; the checkpoint stays as it is where that fails."""
    try:
        file = folder / manifests.FILE_NAME
        manifests.write(file, prove(folder, manifests.read(str(file))))
    except (ConfigurationError, RuntimeError) as error:  # such as too little memory
        print_line(f"no proof is written: {first_line(error)}")


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
    # Defaults are written too, since they decide a score; a proof was of the model before.
    whole = manifest.model_dump(exclude={"source", "proof"})
    manifests.write(folder / manifests.FILE_NAME, Manifest.model_validate(whole))
    for file in folder.glob("*.safetensors"):
        file.chmod(0o644)  # safetensors makes files that only their owner can read
