"""Hidden states of a model that need not fit into memory: each weight is read when it is used.

The body is transformers' own, in float32. A module's weights are read from the checkpoint's files
before it computes and dropped after it, so that memory holds the largest module, whatever the
model's size. Each pass reads all weights once, and computes as many sequences as fit into it.
"""

from __future__ import annotations

import importlib
import logging
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import context, tensors, weights
from fivescore.model.tensors import Stored

if TYPE_CHECKING:
    import torch

log = logging.getLogger(__name__)

MOST_TOKENS = 4096
"""Tokens of a pass, with the padding of shorter sequences."""
BY_LENGTH = frozenset({"longrope", "su", "dynamic"})
"""Kinds of rotary embeddings whose frequencies depend on the longest sequence of a pass."""
SHARE = 1 / 3
"""The share of the free memory that a body may take in float32 before it is streamed."""
FLOAT32_BYTES = 4


def for_large(model: str, revision: str | None) -> StreamedBody | None:
    """The body of a checkpoint that is too large for this machine's memory; None for others.

    None too where a GPU is, among which transformers places the body; and where the checkpoint's
    files are still to be fetched.

    Raises:
        ConfigurationError: transformers has no such body.
    """
    import torch

    folder = tensors.folder(model, revision)
    if torch.cuda.is_available() or folder is None:
        return None
    try:
        import psutil

        importlib.import_module("accelerate")
    except ModuleNotFoundError as error:
        log.info("a large reference would need %s, which is not installed", error.name)
        return None
    try:
        found = tensors.stored(folder, model)
    except ConfigurationError as error:  # such as two files with a tensor each; loading decides
        log.info("%s", error)
        return None
    elements = sum(math.prod(one.shape) for one in found.values())
    if elements * FLOAT32_BYTES <= SHARE * psutil.virtual_memory().available:
        return None
    return StreamedBody(folder, found, model)


class StreamedBody:
    """transformers' body of a checkpoint.

    Args:
        folder: where config.json and, for bodies that cannot be streamed, the weights lie.
        stored: the checkpoint's tensors by name.

    Raises:
        ConfigurationError: transformers has no such body, or cannot load it.
    """

    def __init__(self, folder: Path, stored: Mapping[str, Stored], shown: str) -> None:
        import torch
        from transformers import AutoConfig

        self._shown = shown
        self._device = "cuda" if torch.cuda.is_available() else "cpu"
        try:
            self.config: Any = AutoConfig.from_pretrained(folder)
            self._body, self._weights = _streamed(self.config, stored, self._device)
            if self._body is None:
                self._body = _whole(folder, self._device)
        except Exception as error:  # the library raises many types for an invalid checkpoint
            raise ConfigurationError(
                f"model {shown}: transformers cannot load it as the reference: {first_line(error)}"
            ) from error

    @property
    def max_tokens(self) -> int:
        """The model's context in tokens."""
        return context.declared(self.config)

    def hidden_states(
        self, sequences: Sequence[Sequence[int]], done: Callable[[float], Any] = lambda count: None
    ) -> list[torch.Tensor]:
        """The states after the final norm, ``[tokens, H]`` in float32, per sequence in order.

        Args:
            done: called as a pass goes on with the number of sequences that this adds; a part of
                the weights that was read is that part of the pass's sequences.
        """
        states: dict[int, torch.Tensor] = {}
        for places in self._passes(sequences):
            chosen = [sequences[place] for place in places]
            if self._weights is None:
                states.update(zip(places, self._states(chosen), strict=True))
                done(len(chosen))
            else:
                self._weights.read = partial(_tell, done, len(chosen))
                states.update(zip(places, self._states(chosen), strict=True))
        return [states[place] for place in range(len(sequences))]

    def _passes(self, sequences: Sequence[Sequence[int]]) -> Iterator[list[int]]:
        """Places of sequences that are computed together, those of like lengths."""
        alone = not BY_LENGTH.isdisjoint(_rope_kinds(self.config)) or self._weights is None
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


def _tell(done: Callable[[float], Any], sequences: int, part: float) -> None:
    done(part * sequences)


def _streamed(config: Any, found: Mapping[str, Stored], device: str) -> tuple[Any, _Weights | None]:
    """The body and its weights, read as they are used; None where each is not one tensor."""
    import torch
    from accelerate import cpu_offload, init_empty_weights
    from transformers import AutoModel

    with init_empty_weights(include_buffers=False):
        body = AutoModel.from_config(config, dtype=torch.float32, attn_implementation="eager")
    names = weights.single_origins(body, {name: one.shape for name, one in found.items()})
    if names is None:
        log.info("%s is loaded whole: its tensors are not its parameters", type(body).__name__)
        return None, None
    stored = {name: found[origin] for name, origin in names.items()}
    _look_up_in_place(body, stored)
    dtypes = {name: parameter.dtype for name, parameter in body.named_parameters()}
    read = _Weights(stored, dtypes)
    return cpu_offload(body.eval(), torch.device(device), state_dict=read), read


def _look_up_in_place(body: Any, stored: Mapping[str, Stored]) -> None:
    """Look embeddings up in their own dtype and cast the rows: in float32 a table is the largest
    tensor of most models."""
    import torch

    for name, module in body.named_modules():
        if type(module) is torch.nn.Embedding and stored[f"{name}.weight"].dtype == "BF16":
            module.to(torch.bfloat16)
            module.register_forward_hook(lambda module, inputs, rows: rows.float())


def _whole(folder: Path, device: str) -> Any:
    import torch
    from transformers import AutoModel

    body, told = AutoModel.from_pretrained(
        folder, dtype=torch.float32, attn_implementation="eager", output_loading_info=True
    )
    if missing := sorted(told["missing_keys"]):  # transformers draws them at random
        raise ValueError(f"the checkpoint lacks {missing[0]}")
    return body.eval().to(device)


class _Weights(Mapping[str, Any]):
    """A module's parameters and buffers by name, each read when it is asked for.

    Args:
        dtypes: in which a parameter is wanted; a buffer is wanted in float32.

    ``read`` is called with the share of all elements that was read.
    """

    def __init__(self, stored: Mapping[str, Stored], dtypes: Mapping[str, torch.dtype]) -> None:
        self._stored, self._dtypes = stored, dtypes
        self._elements = sum(math.prod(one.shape) for one in stored.values())
        self.read: Callable[[float], Any] = lambda part: None

    def __getitem__(self, name: str) -> Any:
        import torch

        self.read(math.prod(self._stored[name].shape) / self._elements)
        return self._stored[name].read().to(self._dtypes.get(name, torch.float32))

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
