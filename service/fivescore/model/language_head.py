"""The tensor that holds a language model's head, whose rows are the logits of tokens.

Where config.json ties the two, it is the embedding's.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

NAME = re.compile(r"(^|\.)(lm_head|embed_out|output_layer|output|head)\.(?P<kind>weight|bias)$")
"""``lm_head`` of most, ``embed_out`` of GPT-NeoX, ``output_layer`` of ChatGLM, ``output`` of
InternLM2 and of Mistral's own files."""
EMBEDDING = re.compile(
    r"(^|\.)(embed_tokens|wte|embed_in|word_embeddings|tok_embeddings|embeddings?)\.weight$"
)
"""Llama and most, GPT-2, GPT-NeoX, BLOOM and Falcon, InternLM2, Mamba."""


def kind(name: str, shape: Sequence[int], vocabulary: int, hidden: int) -> str | None:
    """What a checkpoint's tensor is: ``weight`` or ``bias`` of the language model's head,
    ``embedding``, or None for all others.

    Args:
        vocabulary, hidden: the sizes that config.json says; tables may have rows beyond the
            vocabulary.
    """
    rows, width = shape[0] if shape else 0, tuple(shape[1:])
    if rows < vocabulary or width not in ((hidden,), ()):
        return None
    if (found := NAME.search(name)) is not None:
        return found["kind"] if (found["kind"] == "weight") == bool(width) else None
    return "embedding" if width and EMBEDDING.search(name) else None
