"""The order of training examples, and their batches."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import Dataset

from fivescore.training.rows import Example


class Ordered(Dataset[Example]):  # type: ignore[misc]  # torch is Any to mypy
    """Examples in ``order``, which may repeat them; None keeps their own order."""

    def __init__(
        self, examples: Sequence[Example], order: Sequence[int] | NDArray[np.int64] | None = None
    ) -> None:
        self._examples = examples
        self._order = range(len(examples)) if order is None else order

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Example:
        return self._examples[self._order[index]]


def training_order(
    lengths: Sequence[int], batch_size: int, steps: int, seed: int
) -> NDArray[np.int64]:
    """Row indices of a whole run, ``[steps * batch_size]``, batch after batch.

    Every row is used once before any is used again. The order is fixed for the whole run, so that
    any number of devices sees the same batches and a resumed run sees the remaining ones. Within a
    batch, rows are sorted by length, which saves padding.
    """
    random = np.random.default_rng(seed)
    visits = steps * batch_size
    shuffles = [random.permutation(len(lengths)) for _ in range(-(-visits // len(lengths)))]
    batches = np.concatenate(shuffles)[:visits].reshape(steps, batch_size)
    by_length = np.argsort(np.asarray(lengths)[batches], axis=1, kind="stable")
    return np.take_along_axis(batches, by_length, axis=1).reshape(-1)


class Collator:
    """Makes right-padded batches.

    Args:
        pad_id: any id of the vocabulary, because the attention mask marks the padding.
    """

    def __init__(self, pad_id: int) -> None:
        self._pad_id = pad_id

    def __call__(self, examples: Sequence[Example]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` ``[rows, sequences, tokens]``, and ``labels``."""
        shape = (len(examples), len(examples[0].sequences), max(e.length for e in examples))
        ids = torch.full(shape, self._pad_id)
        mask = torch.zeros(shape, dtype=torch.long)
        for row, example in enumerate(examples):
            for column, sequence in enumerate(example.sequences):
                ids[row, column, : len(sequence)] = torch.tensor(sequence)
                mask[row, column, : len(sequence)] = 1
        labels = torch.tensor([example.labels for example in examples], dtype=torch.float32)
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}
