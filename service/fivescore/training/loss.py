"""The losses: masked squared error of attributes, scaled Bradley-Terry of comparisons.

Both are summed over all devices and micro-batches of a step and divided by ``num_items_in_batch``,
the number of labels in the whole step, so the loss does not depend on how a batch is divided.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from fivescore.model.manifest import Affine
from fivescore.training.rows import MASKED


def read_attributes(raw: torch.Tensor, affines: Sequence[Affine]) -> torch.Tensor:
    """Attributes ``[..., attributes]`` of raw outputs ``[..., outputs]``, read as in the server."""
    chosen = raw[..., [affine.output for affine in affines]]
    scale = chosen.new_tensor([affine.scale for affine in affines])
    return chosen * scale + chosen.new_tensor([affine.offset for affine in affines])


class MaskedSquaredError:
    """Mean squared error over the labels that are not masked (arXiv 2406.08673).

    Args:
        affines: how each attribute is read from the head's outputs.
    """

    def __init__(self, affines: Sequence[Affine]) -> None:
        self._affines = affines

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The loss; ``outputs.logits`` is ``[rows, 1, outputs]``, labels ``[rows, attributes]``."""
        values = read_attributes(outputs.logits[:, 0], self._affines)
        present = labels != MASKED
        total = ((values - labels) ** 2).masked_fill(~present, 0.0).sum()
        count = present.sum() if num_items_in_batch is None else num_items_in_batch
        return total / count


class ScaledBradleyTerry:
    """``-|strength| * log sigmoid(preferred - other)``, mean over comparisons (arXiv 2410.01257).

    Args:
        affine: how the attribute that is trained is read from the head's outputs.
    """

    def __init__(self, affine: Affine) -> None:
        self._affine = affine

    def __call__(
        self, outputs: Any, labels: torch.Tensor, num_items_in_batch: torch.Tensor | int | None
    ) -> torch.Tensor:
        """The loss; ``outputs.logits`` is ``[rows, 2, outputs]``, strengths ``[rows, 1]``."""
        values = read_attributes(outputs.logits, [self._affine])[..., 0]
        strength = labels[:, 0]
        margin = (values[:, 1] - values[:, 0]) * strength.sign()
        total = -(strength.abs() * torch.nn.functional.logsigmoid(margin)).sum()
        count = len(labels) if num_items_in_batch is None else num_items_in_batch
        return total / count
