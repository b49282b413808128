"""What an import will do: decided from configurations and headers, before a weight is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.model.manifest import Manifest

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """One tensor of the new checkpoint.

    Args:
        name: its name there.
        shape, dtype: what ``read`` returns; the dtype by its name in safetensors, such as ``BF16``.
        read: reads or computes it, and keeps nothing.
        files: the source's files whose bytes it is, unchanged and under the same name; empty where
            it is renamed or computed.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    read: Callable[[], torch.Tensor]
    files: tuple[Path, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """A source that was recognised, and the folder that is made of it.

    Args:
        kind: the name of ``--kind``, such as ``armorm``.
        sentence: what the source is, such as ``a causal language model whose reward is the logit of
            token 0 ("!")``.
        config: the new config.json.
        manifest: the new reward.json, without a proof.
        tensors: the new weights, in the order in which they are written.
        files: other files by their names there: the tokenizer's and the template.
        head: the reference of the head, written from its published formula and the source's own
            tensors: hidden states of all tokens after the final norm, float32 ``[tokens, H]``, and
            the token ids, to the outputs ``[manifest.outputs]``. None: the plain formula of the
            manifest's head over the new tensors.
    """

    kind: str
    sentence: str
    config: Mapping[str, Any]
    manifest: Manifest
    tensors: Sequence[PlannedTensor]
    files: Mapping[str, Path]
    head: Callable[[torch.Tensor, Sequence[int]], Sequence[float]] | None = None
