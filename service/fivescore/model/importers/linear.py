"""Heads of linear layers: one under any name in any file, or several with ReLU between them."""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeGuard

from fivescore.model.head import LinearHead, MlpHead
from fivescore.model.importers import body, meaning
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan, PlannedTensor
from fivescore.model.importers.sources import FLOATS, Source, Tensor, computed
from fivescore.model.manifest import Manifest

if TYPE_CHECKING:
    import torch

PART = re.compile(r"(?P<module>.+)\.(?P<kind>weight|bias)")
NUMBERED = re.compile(r"(?P<module>.+)\.(?P<number>\d+)")
RELU_HEADS = ("score", "v_head.summary")
"""Names of heads of several layers that are known to have ReLU between them: INF-ORM's and
Qwen2.5-Math-RM's (``nn.Sequential(Linear, ReLU, Linear)`` as ``score``), and GRM's
(``ValueHead`` of reward-bench's ``grm.py``)."""
OPENRLHF = "RewardModel"
"""The class that OpenRLHF saves (``get_llm_for_sequence_regression`` of its ``model.py``)."""
NORMALISES = ("normalize_reward", "normalize_enable")
"""Entries of config.json by which OpenRLHF's model applies its mean and standard deviation."""


@dataclass(frozen=True, slots=True)
class Layer:
    """A linear layer: weight ``[out, in]``, and bias ``[out]`` where it has one."""

    weight: Tensor
    bias: Tensor | None

    def apply(self, states: torch.Tensor) -> torch.Tensor:
        """``[..., in]`` in float32 to ``[..., out]``."""
        import torch

        bias = None if self.bias is None else self.bias.float()
        return torch.nn.functional.linear(states, self.weight.float(), bias)


def plan(source: Source, options: Options) -> Plan | None:
    """The plan of a head of one linear layer; None where there is none."""
    inner, _, others = body.parts(source)
    layers = _layers(others, source)
    name = _chosen(layers, source)
    if name is None or _unknown(others, [name]):
        return None
    layer = layers[name]
    outputs = layer.weight.shape[0]
    if layer.weight.shape != (outputs, body.hidden(source)):
        return None
    manifest = meaning.for_outputs(source, outputs, LinearHead(), options.manifest)
    manifest, told = _of_openrlhf(source, options, manifest)
    manifest = _read_at(name, manifest)
    described = "" if name == "score" else f", {name}"
    return Plan(
        kind="linear",
        sentence=f"a {source.config.get('model_type')} reward model whose head is one linear"
        f" layer{described} ({_counted(outputs)}){told}",
        config=body.config(source, outputs),
        manifest=manifest,
        tensors=(*body.planned(inner), *_planned("score", layer)),
        files=source.files,
        head=lambda states, ids: layer.apply(states[-1]).tolist(),
    )


def plan_mlp(source: Source, options: Options) -> Plan | None:
    """The plan of a head of several linear layers with ReLU between them; None without one."""
    inner, _, others = body.parts(source)
    layers = _layers(others, source)
    names, module = _chain(layers)
    if not names or _unknown(others, names):
        return None
    if module not in RELU_HEADS and options.kind != "mlp":
        raise source.refuse(
            f"its head {module} has {len(names)} layers, and what is between them is unknown:"
            " --kind mlp takes ReLU"
        )
    chain = [layers[name] for name in names]
    widths = [body.hidden(source), *(layer.weight.shape[0] for layer in chain)]
    if any(one.weight.shape != shape for one, shape in zip(chain, _pairs(widths), strict=True)):
        return None
    head = MlpHead(kind="mlp", hidden=tuple(widths[1:-1]))
    return Plan(
        kind="mlp",
        sentence=f"a {source.config.get('model_type')} reward model whose head is"
        f" {len(chain)} linear layers with ReLU between them, {module} ({_counted(widths[-1])})",
        config=body.config(source, widths[-1]),
        manifest=_read_at(module, meaning.for_outputs(source, widths[-1], head, options.manifest)),
        tensors=(*body.planned(inner), *planned_chain("score", chain)),
        files=source.files,
        head=lambda states, ids: relu_chain(chain, states[-1]).tolist(),
    )


def _read_at(name: str, manifest: Manifest) -> Manifest:
    """Value heads are read at the last token by the attention mask, whatever the pad token is.

    So do TRL's ``ValueHead``, LLaMA-Factory and reward-bench's ``grm.py``; transformers' classes,
    whose head is ``score``, skip the pad tokens at the end.
    """
    return manifest if name == "score" else meaning.with_prompt(manifest, end="rendered")


def relu_chain(layers: Sequence[Layer], states: torch.Tensor) -> torch.Tensor:
    """The layers applied in turn with ReLU between them: ``[..., in]`` to ``[..., out]``."""
    for layer in layers[:-1]:
        states = layer.apply(states).relu()
    return layers[-1].apply(states)


def _pairs(widths: Sequence[int]) -> list[tuple[int, int]]:
    return [(out, into) for into, out in itertools.pairwise(widths)]


def _counted(outputs: int) -> str:
    return "1 output" if outputs == 1 else f"{outputs} outputs"


def _layers(others: Mapping[str, Tensor], source: Source) -> dict[str, Layer]:
    """The linear layers among the tensors, by their names."""
    found = {}
    for name, tensor in others.items():
        match = PART.fullmatch(name)
        if match is None or match["kind"] != "weight" or len(tensor.shape) != 2:
            continue
        if tensor.dtype not in FLOATS:
            raise source.refuse(f"its head {name} is in {tensor.dtype}: give an unquantised head")
        found[match["module"]] = Layer(tensor, others.get(f"{match['module']}.bias"))
    return found


def _chosen(layers: Mapping[str, Layer], source: Source) -> str | None:
    """The name of the head: the only layer, or the one that OpenRLHF's config.json names."""
    named = source.config.get("value_head_prefix")
    if named in layers:
        return str(named)
    return next(iter(layers)) if len(layers) == 1 else None


def _chain(layers: Mapping[str, Layer]) -> tuple[list[str], str]:
    """The names of layers 0, 2, 4, ... of one module, in order, and the module's name."""
    matches = [match for match in map(NUMBERED.fullmatch, layers) if match]
    modules = {match["module"] for match in matches}
    numbers = sorted(int(match["number"]) for match in matches)
    is_chain = len(modules) == 1 and len(numbers) == len(layers) > 1
    if not is_chain or numbers != list(range(0, 2 * len(numbers), 2)):
        return [], ""
    (module,) = modules
    return [f"{module}.{number}" for number in numbers], module


def _unknown(others: Mapping[str, Tensor], names: Sequence[str]) -> list[str]:
    """The tensors that are of none of the layers."""
    known = {f"{name}.{kind}" for name in names for kind in ("weight", "bias")}
    return [name for name in others if name not in known]


def _planned(name: str, layer: Layer) -> list[PlannedTensor]:
    found = [layer.weight.planned(f"{name}.weight")]
    return found if layer.bias is None else [*found, layer.bias.planned(f"{name}.bias")]


def planned_chain(name: str, layers: Sequence[Layer]) -> list[PlannedTensor]:
    """The layers as ``name.0``, ``name.2``, ..., each with a bias."""
    return [
        one
        for number, layer in enumerate(layers)
        for one in _planned(f"{name}.{2 * number}", with_bias(layer))
    ]


def with_bias(layer: Layer) -> Layer:
    """The layer with a bias of zeros where it has none."""
    import torch

    outputs = layer.weight.shape[:1]
    bias = layer.bias or computed(outputs, lambda: torch.zeros(outputs))
    return Layer(layer.weight, bias)


def _of_openrlhf(source: Source, options: Options, manifest: Manifest) -> tuple[Manifest, str]:
    """An OpenRLHF model is read at EOS, and has a mean and a standard deviation."""
    config = source.config
    if source.architecture != OPENRLHF and "value_head_prefix" not in config:
        if options.normalize:
            raise source.refuse("--normalize is for OpenRLHF's models, and this is none")
        return manifest, ""
    manifest = meaning.with_prompt(manifest, end="eos")
    told = ", trained by OpenRLHF"
    mean, std = config.get("mean"), config.get("std")
    asked = any(config.get(name) for name in NORMALISES)
    if mean is None and std is None and not options.normalize:
        return manifest, told
    if not (asked or options.normalize):
        return manifest, f"{told}; --normalize applies its mean and std"
    if not (is_finite(mean) and is_finite(std) and std > 0):
        raise source.refuse(
            f"config.json has mean {mean} and std {std}, by which the reward is normalised: they"
            " must be numbers, and std above 0"
        )
    return meaning.scaled(manifest, float(mean), float(std)), f"{told}, normalised"


def is_finite(value: object) -> TypeGuard[float]:
    """Whether an entry of a config.json is a number."""
    return isinstance(value, int | float) and math.isfinite(value)
