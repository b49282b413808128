"""A layer that lacks what all others have is found, and a layer of another kind is not one."""

from __future__ import annotations

import pytest

from fivescore.model.layers import lacking, lacking_parts

ATTENTION = ("attention.wq.weight", "attention.wo.weight", "attention_norm.weight")
DENSE = ("ffn.w1.weight", "ffn.w2.weight")
EXPERTS = tuple(f"ffn.experts.{n}.w{k}.weight" for n in range(3) for k in (1, 2))
MAMBA = ("mixer.in_proj.weight", "mixer.out_proj.weight", "mixer_norm.weight")
SHARING = ("attention.wq.weight", "attention.wo.weight")
OWN_CACHE = (*SHARING, "attention.wk.weight", "attention.wv.weight")
JOINED = ("attn.q_proj", "attn.k_proj", "attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
WHOLE = (*JOINED, "attn.o_proj", *(f"mlp.experts.{n}.{w}" for n in range(4) for w in ("w1", "w2")))


def body(*layers: tuple[str, ...]) -> list[str]:
    return [f"model.layers.{n}.{name}" for n, layer in enumerate(layers) for name in layer]


@pytest.mark.parametrize(
    "names",
    [
        body(*[ATTENTION + DENSE] * 4),
        body(ATTENTION + DENSE, *[ATTENTION + EXPERTS] * 3),
        body(MAMBA, MAMBA, ATTENTION, MAMBA, ATTENTION),
        body(ATTENTION[:2] + DENSE, *[ATTENTION + DENSE] * 3),
        body(OWN_CACHE, OWN_CACHE, SHARING, SHARING),
        body(ATTENTION + DENSE, ATTENTION[:1] + DENSE),
        ["score.weight", "model.norm.weight"],
        [f"head.{n}.{name}" for n in (0, 2, 4) for name in ("weight", "linear.weight")],
    ],
)
def test_layers_may_be_of_several_kinds(names: list[str]) -> None:
    assert lacking(names) == []


@pytest.mark.parametrize(
    ("names", "missing"),
    [
        (body(*[ATTENTION + DENSE] * 3), "model.layers.1.attention.wo.weight"),
        (body(*[ATTENTION + DENSE] * 3), "model.layers.2.ffn.w1.weight"),
        (body(ATTENTION + DENSE, *[ATTENTION + EXPERTS] * 3),
         "model.layers.2.ffn.experts.1.w2.weight"),
    ],
)  # fmt: skip
def test_a_weight_that_all_others_have_is_named(names: list[str], missing: str) -> None:
    assert missing in names
    assert lacking(name for name in names if name != missing) == [missing]


def test_a_layer_that_is_not_there_is_named() -> None:
    names = body(*[ATTENTION] * 5)
    assert lacking(name for name in names if ".2." not in name) == ["model.layers.2"]


def packed(*kinds: str) -> tuple[str, ...]:
    return tuple(f"{layer}.{kind}" for layer in WHOLE for kind in kinds)


def test_quantised_layers_may_differ_in_what_each_has_alone() -> None:
    gptq, plain = packed("qweight", "scales"), packed("weight")
    kept = [f"model.layers.0.attn.{name}" for name in ("k_proj.k_scale", "q_proj.bias")]
    assert lacking_parts([*body(plain, gptq, gptq, gptq), *kept], experts=4) == []


@pytest.mark.parametrize("kinds", [("qweight", "qzeros"), ("weight", "weight_scale")])
@pytest.mark.parametrize("layer", WHOLE)
def test_a_part_of_what_vllm_makes_one_parameter_of_is_named(
    kinds: tuple[str, ...], layer: str
) -> None:
    names = body(*[packed(*kinds)] * 3)
    missing = f"model.layers.1.{layer}.{kinds[0]}"
    assert missing in names
    assert lacking_parts(name for name in names if name != missing) == [missing]


def test_an_expert_that_quantised_layers_lack_is_named() -> None:
    names = body(*[packed("weight", "weight_scale")] * 3)
    for expert in range(4):
        left = [name for name in names if f"layers.2.mlp.experts.{expert}." not in name]
        assert set(lacking_parts(left, experts=4)) == set(names) - set(left)
