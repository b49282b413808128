"""Megatron's names of a GPT model's tensors, and the tensors of transformers that they make.

Read from megatron-core (``transformer/attention.py``, ``transformer/mlp.py``,
``models/gpt/gpt_model.py``): query, key and value of each group stand together in one layer, gate
and up of SwiGLU one after the other in another; a norm belongs to the linear layer behind it.
Layers are stacked along a first axis, or numbered in the names (``non_homogeneous_layers``).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from fivescore.model.architecture import refusal
from fivescore.model.importers.nemo_config import NemoConfig
from fivescore.model.importers.plan import PlannedTensor
from fivescore.model.importers.sharded import Region, Store, Stored

if TYPE_CHECKING:
    import torch

EMBEDDING, HEAD = "embedding.word_embeddings.weight", "rm_head."
NOT_READ = re.compile(r"(^|\.)_extra_state(\.|/|$)|^output_layer\.|rotary_pos_emb")
"""Tensors beside the model's: TransformerEngine's state, the language model's head, and buffers."""
TRAINING = re.compile(r"^(optimizer|rng_state|rerun_state|opt_param|chained_)")
NUMBERED = re.compile(r"^decoder\.layers\.(\d+)\.(.+)$")
OTHER_NAMES = {
    "input_layernorm.": "self_attention.linear_qkv.layer_norm_",
    "pre_mlp_layernorm.": "mlp.linear_fc1.layer_norm_",
}
"""Norms that stand by themselves, as Megatron's layers without TransformerEngine have them."""
DTYPES = {"float32": "F32", "float16": "F16", "bfloat16": "BF16"}
NAMED = 2


@dataclass(frozen=True, slots=True)
class _Source:
    """Where a layer's tensor is: in ``name`` at the leading indices ``at``."""

    name: str
    at: tuple[int, ...]


class MegatronModel:
    """A checkpoint's tensors, and how transformers' tensors are read from them.

    Raises:
        ConfigurationError: it has no reward head; a tensor is missing, unknown, or of another shape
            than the configuration says; or a part of one is not there.
    """

    def __init__(self, shown: str, store: Store, config: NemoConfig) -> None:
        self._shown, self._store, self._config = shown, store, config
        self._prefix = self._find_prefix()
        inside = [name for name in store.tensors if name.startswith(self._prefix)]
        self._names = {
            name.removeprefix(self._prefix): name
            for name in inside
            if not (TRAINING.search(name) or NOT_READ.search(name.removeprefix(self._prefix)))
        }
        self._layers = self._find_layers()
        self._used: set[str] = set()
        self.tensors = [*self._planned()]
        self._check_all_used()
        store.check(sorted(self._used))

    @property
    def rows(self) -> int:
        """The rows of the embedding: the vocabulary as it was padded."""
        return self._stored(EMBEDDING).shape[0]

    @property
    def outputs(self) -> int:
        """The number of the head's outputs."""
        return self._stored(f"{HEAD}weight").shape[0]

    @property
    def dtype(self) -> str:
        """torch's name of the body's type."""
        return str(self._stored(EMBEDDING).dtype).removeprefix("torch.")

    def _find_prefix(self) -> str:
        ends = [
            name.removesuffix(EMBEDDING)
            for name in self._store.tensors
            if name.endswith(EMBEDDING) and not TRAINING.search(name)
        ]
        if len(ends) != 1:
            some = ", ".join(sorted(self._store.tensors)[:NAMED]) or "no tensors"
            raise refusal(self._shown, f"no GPT model of Megatron: {EMBEDDING} is missing ({some})")
        if f"{ends[0]}{HEAD}weight" not in self._store.tensors:
            raise refusal(
                self._shown,
                "a GPT model of Megatron without rm_head: a language model, not a reward model",
            )
        return ends[0]

    def _find_layers(self) -> dict[str, list[_Source]]:
        """The places of each tensor of a layer, by its name in the layer, for all layers."""
        found: dict[str, list[_Source]] = {}
        count = self._config.layers
        numbered = {int(m[1]) for name in self._names if (m := NUMBERED.match(name))}
        if numbered and (len(numbered) != count or max(numbered) != count - 1):
            raise refusal(
                self._shown, f"it has {len(numbered)} layers, and num_layers says {count}"
            )
        for name in self._names:
            if match := NUMBERED.match(name):
                inner = _known_name(match[2])
                sources = found.setdefault(inner, [_Source("", ())] * count)
                sources[int(match[1])] = _Source(name, ())
            elif name.startswith("decoder.layers."):
                inner = _known_name(name.removeprefix("decoder.layers."))
                if self._stored(name).shape[:1] != (count,):
                    raise refusal(
                        self._shown,
                        f"{name} has the shape {list(self._stored(name).shape)}, and num_layers"
                        f" says {count}",
                    )
                found[inner] = [_Source(name, (layer,)) for layer in range(count)]
        return found

    def _planned(self) -> Iterator[PlannedTensor]:
        config = self._config
        yield self._whole("model.embed_tokens.weight", EMBEDDING, (None, config.hidden))
        for layer in range(config.layers):
            place = f"model.layers.{layer}"
            yield from self._attention(layer, f"{place}.self_attn")
            yield from self._mlp(layer, f"{place}.mlp")
            yield from self._norm(layer, f"{place}.input_layernorm", "self_attention.linear_qkv")
            yield from self._norm(layer, f"{place}.post_attention_layernorm", "mlp.linear_fc1")
        for kind in self._norm_kinds():
            name = f"decoder.final_layernorm.{kind}"
            norm = self._whole(f"model.norm.{kind}", name, (config.hidden,))
            yield self._with_its_1(norm, kind)
        yield self._whole("score.weight", f"{HEAD}weight", (config.outputs, config.hidden))
        if f"{HEAD}bias" in self._names:
            yield self._whole("score.bias", f"{HEAD}bias", (self.outputs,))

    def _attention(self, layer: int, place: str) -> Iterator[PlannedTensor]:
        config, attention = self._config, "self_attention"
        widths = {"q": config.heads // config.groups, "k": 1, "v": 1}
        rows = (sum(widths.values()) * config.groups * config.head_size,)
        first = 0
        for letter, width in widths.items():
            pick = _rows_of_groups(config, first, width)
            shape = (config.groups * width * config.head_size,)
            for kind in self._kinds(config.linear_bias or config.qkv_bias):
                name = f"{attention}.linear_qkv.{kind}"
                inner = (config.hidden,) if kind == "weight" else ()
                planned = f"{place}.{letter}_proj.{kind}"
                yield self._inner(planned, layer, name, rows + inner, pick, shape + inner)
            first += width
        width = config.heads * config.head_size
        yield self._inner(
            f"{place}.o_proj.weight", layer, f"{attention}.linear_proj.weight",
            (config.hidden, width),
        )  # fmt: skip
        if config.linear_bias:
            name = f"{attention}.linear_proj.bias"
            yield self._inner(f"{place}.o_proj.bias", layer, name, (config.hidden,))
        elif config.qkv_bias:  # transformers' Llama has a bias in all four or in none
            yield self._zeros(f"{place}.o_proj.bias", config.hidden)

    def _mlp(self, layer: int, place: str) -> Iterator[PlannedTensor]:
        config = self._config
        parts = ("gate_proj", "up_proj") if config.family == "llama" else ("up_proj",)
        for kind in self._kinds(config.linear_bias):
            inner = (config.hidden,) if kind == "weight" else ()
            name = f"mlp.linear_fc1.{kind}"
            for number, part in enumerate(parts):
                planned = f"{place}.{part}.{kind}"
                own = f"{name}_{'wv'[number]}"  # singleton_local_shards
                if own in self._layers:
                    yield self._inner(planned, layer, own, (config.ffn, *inner))
                    continue
                rows = (number * config.ffn, (number + 1) * config.ffn)
                whole = (len(parts) * config.ffn, *inner)
                yield self._inner(planned, layer, name, whole, None, (config.ffn, *inner), rows)
        for kind in self._kinds(config.linear_bias):
            shape = (config.hidden, config.ffn) if kind == "weight" else (config.hidden,)
            yield self._inner(f"{place}.down_proj.{kind}", layer, f"mlp.linear_fc2.{kind}", shape)

    def _norm(self, layer: int, planned: str, before: str) -> Iterator[PlannedTensor]:
        for kind in self._norm_kinds():
            name, shape = f"{before}.layer_norm_{kind}", (self._config.hidden,)
            yield self._with_its_1(self._inner(f"{planned}.{kind}", layer, name, shape), kind)

    def _norm_kinds(self) -> tuple[str, ...]:
        return self._kinds(self._config.family == "nemotron")

    @staticmethod
    def _kinds(bias: bool) -> tuple[str, ...]:
        return ("weight", "bias") if bias else ("weight",)

    def _with_its_1(self, norm: PlannedTensor, kind: str) -> PlannedTensor:
        """A norm's weight with the 1 that transformers' Llama wants in it, and its Nemotron adds.

        In float32, which loses nothing of a small weight.
        """
        if self._config.family == "llama" and self._config.zero_centred and kind == "weight":
            return replace(norm, dtype="F32", read=lambda: norm.read().float() + 1)
        return norm

    def _inner(
        self,
        planned: str,
        layer: int,
        name: str,
        whole: tuple[int, ...],
        change: Callable[[torch.Tensor], torch.Tensor] | None = None,
        shape: tuple[int, ...] | None = None,
        rows: tuple[int, int] | None = None,
    ) -> PlannedTensor:
        """A tensor of a layer.

        Args:
            whole: the shape of Megatron's tensor ``name`` of one layer.
            change: makes transformers' tensor of it.
            shape: what comes out, if not ``whole``.
            rows: the rows that are read, if not all.
        """
        source = self._layers.get(name, [_Source("", ())] * (layer + 1))[layer]
        if source.name not in self._names:
            raise refusal(self._shown, f"layer {layer} lacks {name}, which the configuration needs")
        stacked = (self._config.layers, *whole) if source.at else whole
        stored = self._check_shape(source.name, stacked)
        region = stored.part(*source.at, rows=rows)
        return self._tensor(planned, source.name, region, shape or whole, change)

    def _whole(
        self,
        planned: str,
        name: str,
        shape: Sequence[int | None],
    ) -> PlannedTensor:
        stored = self._check_shape(name, shape)
        return self._tensor(planned, name, stored.part(), stored.shape, None)

    def _tensor(
        self,
        planned: str,
        name: str,
        region: Region,
        shape: tuple[int, ...],
        change: Callable[[torch.Tensor], torch.Tensor] | None,
    ) -> PlannedTensor:
        full, inner = self._names[name], region.shape[len(region.shape) - len(shape) :]
        self._used.add(full)

        def read() -> torch.Tensor:
            values = self._store.read(full, region).reshape(inner)
            return values if change is None else change(values).contiguous()

        return PlannedTensor(planned, shape, self._dtype(name), read)

    def _zeros(self, planned: str, length: int) -> PlannedTensor:
        def read() -> torch.Tensor:
            import torch

            return torch.zeros(length, dtype=self._stored(EMBEDDING).dtype)

        return PlannedTensor(planned, (length,), self._dtype(EMBEDDING), read)

    def _stored(self, name: str) -> Stored:
        if name not in self._names:
            raise refusal(self._shown, f"it lacks {name}, which a GPT model of Megatron has")
        return self._store.tensors[self._names[name]]

    def _check_shape(self, name: str, shape: Sequence[int | None]) -> Stored:
        stored = self._stored(name)
        fits = len(stored.shape) == len(shape) and all(
            wanted in (None, found) for found, wanted in zip(stored.shape, shape, strict=True)
        )
        if not fits:
            wanted = [size or "any" for size in shape]
            raise refusal(
                self._shown,
                f"{name} has the shape {list(stored.shape)}, and the configuration says {wanted}",
            )
        return stored

    def _dtype(self, name: str) -> str:
        dtype = str(self._stored(name).dtype).removeprefix("torch.")
        if dtype not in DTYPES:
            raise refusal(self._shown, f"{name} has the type {dtype}; {', '.join(DTYPES)} are read")
        return DTYPES[dtype]

    def _check_all_used(self) -> None:
        others = sorted(name for name, full in self._names.items() if full not in self._used)
        if others:
            more = f" and {len(others) - NAMED} more" if others[NAMED:] else ""
            raise refusal(
                self._shown,
                f"it has tensors that no Llama or Nemotron has: {', '.join(others[:NAMED])}{more}",
            )


def _known_name(name: str) -> str:
    for start, other in OTHER_NAMES.items():
        if name.startswith(start):
            return other + name.removeprefix(start)
    return name


def _rows_of_groups(
    config: NemoConfig, first: int, width: int
) -> Callable[[torch.Tensor], torch.Tensor]:
    """Picks ``width`` heads, from the ``first`` on, out of each group's query, key and value."""
    each = config.heads // config.groups + 2

    def pick(values: torch.Tensor) -> torch.Tensor:
        grouped = values.view(config.groups, each, config.head_size, *values.shape[1:])
        return grouped[:, first : first + width].reshape(-1, *values.shape[1:])

    return pick
