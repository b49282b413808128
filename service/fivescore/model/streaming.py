"""Hidden states of a model that need not fit into memory: each weight is read when it is used.

The body is transformers' own, in float32. A module's weights are read from the checkpoint's files
before it computes and dropped after it, so that memory holds the largest module, whatever the
model's size. Each pass reads all weights once, and computes as many sequences as fit into it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import weights
from fivescore.model.tensors import Stored

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MOST_TOKENS = 4096
"""Tokens of a pass, with the padding of shorter sequences."""
BY_LENGTH = frozenset({"longrope", "su", "dynamic"})
"""Kinds of rotary embeddings whose frequencies depend on the longest sequence of a pass."""
DEFAULT_CONTEXT = 2048
"""The context in tokens of a model whose config names none."""


class StreamedBody:
    """transformers' body of a checkpoint.

    Args:
        folder: where config.json and, for bodies that cannot be streamed, the weights lie.
        tensors: the checkpoint's tensors by name.

    Raises:
        ConfigurationError: transformers has no such body, or cannot load it.
    """

    def __init__(self, folder: Path, tensors: Mapping[str, Stored], shown: str) -> None:
        import torch
        from transformers import AutoConfig

        self._shown = shown
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self._config = AutoConfig.from_pretrained(folder)
            found = _streamed(self._config, tensors, self._device)
            self._is_streamed = found is not None
            self._body = found if found is not None else _whole(folder, self._device)
        except Exception as error:  # the library raises many types for an invalid checkpoint
            raise ConfigurationError(
                f"model {shown}: transformers cannot load it as the reference: {first_line(error)}"
            ) from error

    @property
    def max_tokens(self) -> int:
        """The model's context in tokens."""
        config = self._config.get_text_config()
        return int(getattr(config, "max_position_embeddings", None) or DEFAULT_CONTEXT)

    def hidden_states(
        self, sequences: Sequence[Sequence[int]], done: Callable[[int], Any] = lambda tokens: None
    ) -> list[torch.Tensor]:
        """The states after the final norm, ``[tokens, H]`` in float32, per sequence in order.

        Args:
            done: called after each pass with the number of tokens in it.
        """
        states: dict[int, torch.Tensor] = {}
        for places in self._passes(sequences):
            chosen = [sequences[place] for place in places]
            states.update(zip(places, self._states(chosen), strict=True))
            done(sum(map(len, chosen)))
        return [states[place] for place in range(len(sequences))]

    def _passes(self, sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Places of sequences that are computed together, those of like lengths."""
        alone = not BY_LENGTH.isdisjoint(_rope_kinds(self._config)) or not self._is_streamed
        chosen: list[int] = []
        for place in sorted(range(len(sequences)), key=lambda place: len(sequences[place])):
            longest = len(sequences[place])
            if chosen and (alone or (len(chosen) + 1) * longest > MOST_TOKENS):
                yield chosen
                chosen = []
            chosen.append(place)
        if chosen:
            yield chosen

    def _states(self, sequences: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Padded on the right, where a causal body does not see it."""
        import torch

        longest = max(map(len, sequences))
        ids = torch.zeros(len(sequences), longest, dtype=torch.long, device=self._device)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(list(sequence))
            mask[row, : len(sequence)] = 1
        with torch.inference_mode():
            found = self._body(input_ids=ids, attention_mask=mask, use_cache=False)
        states = found.last_hidden_state.float().cpu()
        return [states[row, : len(sequence)].clone() for row, sequence in enumerate(sequences)]


def _streamed(config: Any, tensors: Mapping[str, Stored], device: str) -> Any:
    """The body whose weights are read as they are used; None where each is not one tensor."""
    import torch
    from accelerate import cpu_offload, init_empty_weights
    from transformers import AutoModel

    with init_empty_weights(include_buffers=False):
        body = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="eager")
    names = weights.single_origins(body, {name: one.shape for name, one in tensors.items()})
    if names is None:
        log.info("%s is loaded whole: its tensors are not its parameters", type(body).__name__)
        return None
    stored = {name: tensors[origin] for name, origin in names.items()}
    return cpu_offload(body.eval(), torch.device(device), state_dict=_Weights(stored))


def _whole(folder: Path, device: str) -> Any:
    import torch
    from transformers import AutoModel

    body = AutoModel.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    return body.eval().to(device)


class _Weights(Mapping[str, Any]):
    """A module's parameters by name, in float32, each read when it is asked for."""

    def __init__(self, stored: Mapping[str, Stored]) -> None:
        self._stored = stored

    def __getitem__(self, name: str) -> Any:
        return self._stored[name].read().float()

    def __iter__(self) -> Iterator[str]:
        return iter(self._stored)

    def __len__(self) -> int:
        return len(self._stored)


def _rope_kinds(config: Any) -> set[str]:
    """The kinds of scaling of the rotary embeddings; some models have one per kind of layer."""
    found: set[str] = set()
    text = config.get_text_config()
    for name in ("rope_parameters", "rope_scaling"):
        given = getattr(text, name, None)
        if isinstance(given, Mapping):
            nested = [each for each in given.values() if isinstance(each, Mapping)]
            found |= {str(each.get("rope_type", each.get("type"))) for each in nested or [given]}
    return found
