"""Makes the nano checkpoint: so small that the front end is the limit, as with a small reward model
on a fast GPU. It has the demo's tokenizer, manifest and template, and random weights.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from fivescore.settings import DEMO

HIDDEN, HEADS, VOCABULARY, OUTPUTS = 64, 2, 8192, 5
SEED = 7


def make(folder: Path) -> Path:
    """Write the checkpoint: Llama, one layer, hidden size 64, five outputs, float32."""
    import torch
    from transformers import LlamaConfig, LlamaForSequenceClassification

    shutil.copytree(DEMO, folder, ignore=shutil.ignore_patterns("model.safetensors", "config.json"))
    torch.manual_seed(SEED)
    config = LlamaConfig(
        architectures=["LlamaForSequenceClassification"],
        vocab_size=VOCABULARY,
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=1,
        num_attention_heads=HEADS,
        num_key_value_heads=HEADS,
        max_position_embeddings=4096,
        num_labels=OUTPUTS,
        problem_type="regression",
        bos_token_id=0,
        eos_token_id=4,
        pad_token_id=5,
    )
    LlamaForSequenceClassification(config).save_pretrained(folder)
    return folder
