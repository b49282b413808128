"""Megatron's tensors become transformers', a layer's at a time, and none is left over."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import pytest
import torch

from fivescore.errors import ConfigurationError
from fivescore.model.importers.megatron import EMBEDDING, MegatronModel
from fivescore.model.importers.nemo_config import NemoConfig
from fivescore.model.importers.sharded import Region, Stored

LAYERS, HIDDEN, FFN, HEADS, GROUPS, SIZE, ROWS = 3, 8, 6, 4, 2, 5, 11
LLAMA = NemoConfig(
    family="llama", layers=LAYERS, hidden=HIDDEN, ffn=FFN, heads=HEADS, groups=GROUPS,
    head_size=SIZE, epsilon=1e-5, zero_centred=False, rotary_share=1.0, rotary_base=10000.0,
    rope_scaling={}, linear_bias=False, qkv_bias=False, length=64, outputs=9, mean=0.0, std=1.0,
    tokenizer={},
)  # fmt: skip
NEMOTRON = replace(LLAMA, family="nemotron", zero_centred=True)
Tensors = dict[str, torch.Tensor]


class Memory:
    """A store of whole tensors that notes what is read of them."""

    def __init__(self, tensors: Tensors) -> None:
        self.values = tensors
        self.regions: list[Region] = []

    @property
    def tensors(self) -> Mapping[str, Stored]:
        return {name: Stored(tuple(t.shape), t.dtype) for name, t in self.values.items()}

    def check(self, names: Sequence[str]) -> None:
        pass

    def read(self, name: str, region: Region) -> torch.Tensor:
        self.regions.append(region)
        return self.values[name][region.within((0,) * len(region.start))]


def stacked(config: NemoConfig, bias: bool = False) -> Tensors:
    """A checkpoint with the names and shapes of Megatron's own."""
    rows = (HEADS + 2 * GROUPS) * SIZE
    first = FFN * (2 if config.family == "llama" else 1)
    shapes = {
        "self_attention.linear_qkv.weight": (rows, HIDDEN),
        "self_attention.linear_qkv.layer_norm_weight": (HIDDEN,),
        "self_attention.linear_proj.weight": (HIDDEN, HEADS * SIZE),
        "mlp.linear_fc1.weight": (first, HIDDEN),
        "mlp.linear_fc1.layer_norm_weight": (HIDDEN,),
        "mlp.linear_fc2.weight": (HIDDEN, FFN),
    }
    if config.family == "nemotron":
        shapes |= {n.replace("norm_weight", "norm_bias"): s
                   for n, s in shapes.items() if "norm" in n}  # fmt: skip
    if bias or config.qkv_bias:
        shapes["self_attention.linear_qkv.bias"] = (rows,)
    tensors = {f"model.decoder.layers.{n}": torch.randn(LAYERS, *s) for n, s in shapes.items()}
    kinds = ("weight", "bias") if config.family == "nemotron" else ("weight",)
    tensors |= {f"model.decoder.final_layernorm.{kind}": torch.randn(HIDDEN) for kind in kinds}
    tensors[f"model.{EMBEDDING}"] = torch.randn(ROWS, HIDDEN)
    tensors["model.output_layer.weight"] = torch.randn(ROWS, HIDDEN)
    tensors["model.rm_head.weight"] = torch.randn(9, HIDDEN)
    tensors["model.rm_head.bias"] = torch.randn(9)
    return tensors


def numbered(tensors: Tensors) -> Tensors:
    """The same with a tensor for each layer."""
    found = {}
    for name, values in tensors.items():
        start, place, rest = name.partition("decoder.layers.")
        for layer in range(LAYERS) if place else ():
            found[f"{start}{place}{layer}.{rest}"] = values[layer]
        if not place:
            found[name] = values
    return found


def read(tensors: Tensors, config: NemoConfig = LLAMA) -> Tensors:
    model = MegatronModel("a.nemo", Memory(tensors), config)
    found = {tensor.name: tensor.read() for tensor in model.tensors}
    assert all(tuple(found[each.name].shape) == each.shape for each in model.tensors)
    return found


def refusal(tensors: Tensors, config: NemoConfig = LLAMA) -> str:
    with pytest.raises(ConfigurationError) as raised:
        MegatronModel("a.nemo", Memory(tensors), config)
    return raised.value.detail


@pytest.mark.parametrize("config", [LLAMA, NEMOTRON], ids=["llama", "nemotron"])
def test_stacked_and_numbered_layers_are_the_same(config: NemoConfig) -> None:
    tensors = stacked(config)
    one, other = read(tensors, config), read(numbered(tensors), config)
    assert list(one) == list(other)
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_heads_and_gates_are_taken_apart() -> None:
    tensors = stacked(LLAMA)
    found = read(tensors)
    qkv = tensors["model.decoder.layers.self_attention.linear_qkv.weight"][1].split(SIZE)
    place = "model.layers.1.self_attn"  # the first group is q q k v, then the second
    assert torch.equal(found[f"{place}.q_proj.weight"], torch.cat([*qkv[0:2], *qkv[4:6]]))
    assert torch.equal(found[f"{place}.k_proj.weight"], torch.cat([qkv[2], qkv[6]]))
    assert torch.equal(found[f"{place}.v_proj.weight"], torch.cat([qkv[3], qkv[7]]))
    gate, up = tensors["model.decoder.layers.mlp.linear_fc1.weight"][2].split(FFN)
    assert torch.equal(found["model.layers.2.mlp.gate_proj.weight"], gate)
    assert torch.equal(found["model.layers.2.mlp.up_proj.weight"], up)


def test_a_stack_is_read_layer_by_layer() -> None:
    store = Memory(stacked(LLAMA))
    for tensor in MegatronModel("a.nemo", store, LLAMA).tensors:
        store.regions.clear()
        tensor.read()
        (region,) = store.regions
        assert len(region.shape) < 3 or region.shape[0] == 1


def test_a_norm_without_its_1_gets_it_in_llama_alone() -> None:
    tensors = stacked(LLAMA)
    weight = tensors["model.decoder.final_layernorm.weight"]
    found = read(tensors, replace(LLAMA, zero_centred=True))
    assert torch.equal(found["model.norm.weight"], weight + 1)
    tensors = stacked(NEMOTRON)
    weight = tensors["model.decoder.final_layernorm.weight"]
    assert torch.equal(read(tensors, NEMOTRON)["model.norm.weight"], weight)


def test_the_1_is_added_without_rounding() -> None:
    tensors = {name: values.bfloat16() for name, values in stacked(LLAMA).items()}
    config = replace(LLAMA, zero_centred=True)
    norm = read(tensors, config)["model.norm.weight"]
    assert torch.equal(norm - 1, (tensors["model.decoder.final_layernorm.weight"].float() + 1) - 1)
    for planned in MegatronModel("a.nemo", Memory(tensors), config).tensors:
        assert planned.dtype == ("F32" if "norm" in planned.name else "BF16")


def test_a_bias_of_query_key_and_value_alone_leaves_the_output_s_at_0() -> None:
    config = replace(LLAMA, qkv_bias=True)
    found = read(stacked(config), config)
    assert found["model.layers.0.self_attn.q_proj.bias"].shape == (HEADS * SIZE,)
    assert not found["model.layers.0.self_attn.o_proj.bias"].any()


def test_what_training_keeps_is_left_out() -> None:
    tensors = stacked(LLAMA)
    tensors["optimizer.state.exp_avg.model.embedding.word_embeddings.weight"] = torch.zeros(3)
    tensors["model.decoder.layers.mlp.linear_fc1._extra_state"] = torch.zeros(3)
    assert read(tensors).keys() == read(stacked(LLAMA)).keys()


LAYER = "model.decoder.layers."


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop("model.rm_head.weight"), "without rm_head: a language model"),
        (lambda t: t.pop(f"model.{EMBEDDING}"), "no GPT model of Megatron"),
        (lambda t: t.pop(f"{LAYER}mlp.linear_fc2.weight"), "layer 0 lacks mlp.linear_fc2.weight"),
        (lambda t: t.pop("model.decoder.final_layernorm.weight"), "lacks decoder.final_layernorm"),
        (
            lambda t: t.update({f"{LAYER}self_attention.q_layernorm.weight": torch.ones(3, 5)}),
            "tensors that no Llama or Nemotron has: decoder.layers.self_attention.q_layernorm",
        ),
        (
            lambda t: t.update({"model.rm_head.weight": torch.ones(5, HIDDEN)}),
            "rm_head.weight has the shape [5, 8], and the configuration says [9, 8]",
        ),
        (
            lambda t: t.update({"model.rm_head.bias": torch.ones(9).long()}),
            "rm_head.bias has the type int64",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_named(change: Callable[[Tensors], object], words: str) -> None:
    tensors = stacked(LLAMA)
    change(tensors)
    assert words in refusal(tensors)


def test_another_number_of_layers_is_refused() -> None:
    tensors = stacked(LLAMA)
    assert "3 layers, and num_layers says 4" in refusal(numbered(tensors), replace(LLAMA, layers=4))
    many = replace(LLAMA, layers=10**12)
    assert "and num_layers says 1000000000000" in refusal(tensors, many)
    assert "3 layers, and num_layers says 1000000000000" in refusal(numbered(tensors), many)
