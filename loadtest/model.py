"""The measured checkpoint: the inputs of each side for a pair, and the outputs in its answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer

from fivescore.model.checkpoint import Checkpoint
from fivescore.model.manifest import Manifest
from fivescore.settings import Settings
from fivescore.types import ModelInfo, Pair

UNKNOWN = ModelInfo("", 5, 2**20, 2**20, "", "", "")
"""Stands for an engine's description, because only the manifest is needed."""


class Measured:
    """A checkpoint with a chat template and a manifest.

    Args:
        folder: the checkpoint's folder.
    """

    def __init__(self, folder: str) -> None:
        model = Checkpoint(Settings(model=folder)).fit(UNKNOWN)
        self.folder = folder
        self._conversation = model.conversation
        self._manifest: Manifest = model.manifest
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def ids(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """The token ids of pairs, as the service makes them."""
        return [ids for ids in self._conversation.encode(pairs) if isinstance(ids, list)]

    def texts(self, pairs: Sequence[Pair]) -> list[str]:
        """The rendered conversations, for peers that do not render a prompt format."""
        return [
            self._tokenizer.apply_chat_template(
                [
                    {"role": "user", "content": pair.prompt},
                    {"role": "assistant", "content": pair.response},
                ],
                tokenize=False,
            )
            for pair in pairs
        ]

    def words(self) -> list[str]:
        """The words of the vocabulary, for generated text."""
        tokens = sorted(self._tokenizer.get_vocab())
        return [token[1:] for token in tokens if token[0] == "\u0120" and token[1:].isalpha()]

    def raw(self, score: Mapping[str, float]) -> list[float]:
        """The head's raw outputs, computed back from an answer's attributes."""
        return [
            (score[name] - affine.offset) / affine.scale
            for name, affine in self._manifest.attributes.items()
        ]
