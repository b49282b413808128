"""Scores pairs with transformers in this process: float32, on the CPU, read as by the server."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from transformers import AutoTokenizer, LlamaForSequenceClassification

from fivescore.errors import InvalidPair
from fivescore.model import manifest, reward
from fivescore.model.conversation import Conversation
from fivescore.types import Pair, Score

BATCH = 32
"""Sequences per forward pass."""


class Scorer:
    """Scores with the checkpoint in a folder."""

    def __init__(self, folder: Path) -> None:
        self._manifest = manifest.read(str(folder / manifest.FILE_NAME))
        self._conversation = Conversation(
            self._manifest.prompt, AutoTokenizer.from_pretrained(folder)
        )
        model = LlamaForSequenceClassification.from_pretrained(folder, dtype=torch.float32)
        self._model = model.eval()

    def score(self, pairs: Sequence[tuple[str, str]]) -> list[Score]:
        """The scores of (prompt, response) pairs, in order."""
        encoded = self._conversation.encode([Pair(prompt=p, response=r) for p, r in pairs])
        ids = [one for one in encoded if not isinstance(one, InvalidPair)]
        assert len(ids) == len(pairs)
        scores: list[Score | None] = [None] * len(ids)
        order = sorted(range(len(ids)), key=lambda index: len(ids[index]))
        for start in range(0, len(order), BATCH):
            some = order[start : start + BATCH]
            for index, raw in zip(some, self._outputs([ids[i] for i in some]), strict=True):
                scores[index] = reward.score(raw, self._manifest, tokens=len(ids[index]))
        return [score for score in scores if score is not None]

    def _outputs(self, batch: list[list[int]]) -> list[list[float]]:
        # Padding is right of the last token, which a causal model does not attend to.
        tensors = [torch.tensor(ids) for ids in batch]
        padded = torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True)
        last = torch.tensor([len(ids) - 1 for ids in batch])
        with torch.inference_mode():
            hidden = self._model.model(input_ids=padded, use_cache=False).last_hidden_state
            outputs: list[list[float]] = self._model.score(
                hidden[torch.arange(len(batch)), last]
            ).tolist()
        return outputs
