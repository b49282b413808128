"""A layer that lacks what all others have is found, and a layer of another kind is not one."""

from __future__ import annotations

import pytest

from fivescore.model.layers import lacking

ATTENTION = ("attention.wq.weight", "attention.wo.weight", "attention_norm.weight")
DENSE = ("ffn.w1.weight", "ffn.w2.weight")
EXPERTS = tuple(f"ffn.experts.{n}.w{k}.weight" for n in range(3) for k in (1, 2))
MAMBA = ("mixer.in_proj.weight", "mixer.out_proj.weight", "mixer_norm.weight")
SHARING = ("attention.wq.weight", "attention.wo.weight")
OWN_CACHE = (*SHARING, "attention.wk.weight", "attention.wv.weight")


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
