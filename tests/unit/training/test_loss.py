"""The losses, checked by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch

from fivescore.model.manifest import Affine
from fivescore.training.loss import MaskedSquaredError, ScaledBradleyTerry
from fivescore.training.rows import MASKED

TWO = [Affine(output=0), Affine(output=1)]


def outputs(logits: list[list[list[float]]]) -> SimpleNamespace:
    return SimpleNamespace(logits=torch.tensor(logits))


THREE_ROWS = outputs([[[1.0, 2.0]], [[3.0, 0.0]], [[0.5, 4.0]]])
LABELS = torch.tensor([[0.0, 4.0], [3.0, MASKED], [MASKED, 1.0]])
SQUARES = (1.0 - 0.0) ** 2 + (2.0 - 4.0) ** 2 + (3.0 - 3.0) ** 2 + (4.0 - 1.0) ** 2


def test_the_loss_is_the_mean_of_the_squares_that_have_a_label() -> None:
    loss = MaskedSquaredError(TWO)(THREE_ROWS, LABELS, None)
    assert loss.item() == pytest.approx(SQUARES / 4)


def test_the_number_of_labels_is_the_whole_steps() -> None:
    """What the Trainer counts over all devices and micro-batches."""
    loss = MaskedSquaredError(TWO)(THREE_ROWS, LABELS, torch.tensor(8))
    assert loss.item() == pytest.approx(SQUARES / 8)


def test_a_masked_label_has_no_gradient() -> None:
    logits = torch.tensor([[[1.0, 2.0]]], requires_grad=True)
    labels = torch.tensor([[0.0, MASKED]])
    MaskedSquaredError(TWO)(SimpleNamespace(logits=logits), labels, None).backward()
    assert logits.grad is not None
    assert logits.grad.tolist() == [[[2.0, 0.0]]]


def test_attributes_are_read_as_the_manifest_says() -> None:
    affines = [Affine(output=1, scale=2.0, offset=-1.0)]
    loss = MaskedSquaredError(affines)(outputs([[[9.0, 1.5]]]), torch.tensor([[0.0]]), None)
    assert loss.item() == pytest.approx((1.5 * 2.0 - 1.0) ** 2)


def test_scaled_bradley_terry() -> None:
    pairs = outputs([[[1.0], [2.0]], [[0.5], [0.0]], [[1.0], [0.0]]])
    strengths = torch.tensor([[3.0], [-1.0], [2.0]])
    by_hand = (
        3 * math.log1p(math.exp(-1.0))  # the second is better by 1, and preferred
        + 1 * math.log1p(math.exp(-0.5))  # the first is better by a half, and preferred
        + 2 * math.log1p(math.exp(1.0))  # the first is better by 1, the second preferred
    ) / 3
    loss = ScaledBradleyTerry(Affine(output=0, offset=7.0))(pairs, strengths, None)
    assert loss.item() == pytest.approx(by_hand)
