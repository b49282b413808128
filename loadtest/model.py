"""The checkpoint that is measured: what each side gets of a pair, and what it answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from transformers import AutoTokenizer

from fivescore.model.checkpoint import Checkpoint
from fivescore.model.manifest import Manifest
from fivescore.settings import Settings
from fivescore.types import ModelInfo, Pair

UNKNOWN = ModelInfo("", 5, 2**20, 2**20, "", "", "")
"""No engine was asked: only the manifest is wanted."""


class Measured:
    """A checkpoint with a chat template and a manifest.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: str) -> None:
        found = Checkpoint(Settings(model=folder)).fit(UNKNOWN)
        self.folder = folder
        self._conversation = found.conversation
        self._manifest: Manifest = found.manifest
        self._tokenizer: Any = AutoTokenizer.from_pretrained(folder)

    def ids(self, pairs: Sequence[Pair]) -> list[list[int]]:
        """Token ids, as the service makes them."""
        return [ids for ids in self._conversation.encode(pairs) if isinstance(ids, list)]

    def texts(self, pairs: Sequence[Pair]) -> list[str]:
        """The whole conversations, for peers that cannot render a prompt format."""
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
        """Of its vocabulary, for made text."""
        found = sorted(self._tokenizer.get_vocab())
        return [token[1:] for token in found if token[0] == "\u0120" and token[1:].isalpha()]

    def raw(self, score: Mapping[str, float]) -> list[float]:
        """The head's outputs, from an answer's attributes."""
        return [
            (score[name] - affine.offset) / affine.scale
            for name, affine in self._manifest.attributes.items()
        ]
