"""What the layers of a body that transformers does not know lack, by comparing them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Set

LEAST_LAYERS = 3
"""Layers that a comparison takes: of two that differ, either may be the odd one."""
MOST_HOLES = 0.25
"""Holes in a stack's numbers, per layer, up to which a layer is called missing: a stack that
numbers activations too has more."""
NAME = re.compile(r"((?:[^.\d]\w*\.)*)(\d+)\.(\w+\..+)")
"""The stack that a tensor is in, the number of its layer, and its name there."""

JOINED = ({"q_proj", "k_proj", "v_proj"}, {"gate_proj", "up_proj"}, {"w1", "w3"})
"""Layers that vLLM joins: of a joined layer it notices only that all of its parts are missing."""
EXPERT = re.compile(r"(.*\.experts\.)(\d+)(\..+)")
NUMBER = re.compile(r"(?<=\.)\d+(?=\.|$)")
OF_ONE = re.compile(r"[qkv]_scale|output_scale|bias")
"""Tensors that one of the joined layers may have alone."""

Modules = Mapping[str, set[str]]


def lacking(names: Iterable[str]) -> list[str]:
    """Names of weights, or of whole layers, that one layer lacks and all others have.

    A layer of another kind is none: it has weights of its own in place of the others'. Norms may
    differ, and so may what stands in the layer by itself.
    """
    stacks: defaultdict[str, defaultdict[int, list[str]]] = defaultdict(lambda: defaultdict(list))
    for name in names:
        if found := NAME.fullmatch(name):
            stacks[found[1]][int(found[2])].append(found[3])
    return [
        f"{stack}{name}"
        for stack, layers in stacks.items()
        if len(layers) >= LEAST_LAYERS
        for name in (*_holes(layers), *_odd_ones({n: _modules(t) for n, t in layers.items()}))
    ]


def lacking_parts(names: Iterable[str], experts: int = 0) -> list[str]:
    """Names that one of several layers lacks which vLLM makes one parameter of.

    These are an expert among its layer's experts, a layer among those that are joined, and a tensor
    among those that a quantised weight is stored as.

    Args:
        experts: the experts of a layer, where config.json says.
    """
    there = set(names)
    modules = {name.rpartition(".")[0] for name in there}
    needed: set[str] = set()
    numbers: defaultdict[str, set[int]] = defaultdict(set)
    tails: defaultdict[str, set[str]] = defaultdict(set)
    for name in there:
        needed |= _beside(name, modules)
        if found := EXPERT.fullmatch(name):
            numbers[found[1]].add(int(found[2]))
            tails[found[1]].add(found[3])
    for prefix, given in numbers.items():
        last = max(*given, experts - 1)
        needed |= {f"{prefix}{n}{tail}" for n in range(last + 1) for tail in tails[prefix]}
    return sorted((needed | _odd_tensors(there)) - there)


def _odd_tensors(names: Iterable[str]) -> set[str]:
    """The names of what one quantised weight lacks and those of its kind in other layers have."""
    kinds: defaultdict[str, defaultdict[str, set[str]]] = defaultdict(lambda: defaultdict(set))
    for name in names:
        module, _, kind = name.rpartition(".")
        if OF_ONE.fullmatch(kind):
            continue
        kinds[NUMBER.sub("*", module)][module].add(kind)
    found: set[str] = set()
    for modules in kinds.values():
        whole = max(modules.values(), key=len)
        odd = [module for module, given in modules.items() if given != whole]
        # A layer that is left unquantised has its weight alone.
        if len(odd) == 1 and len(modules) >= LEAST_LAYERS and modules[odd[0]] != {"weight"}:
            found |= {f"{odd[0]}.{kind}" for kind in whole}
    return found


def _beside(name: str, modules: Set[str]) -> set[str]:
    """The names that a tensor has in the layers that its layer is joined with."""
    module, _, kind = name.rpartition(".")
    if OF_ONE.fullmatch(kind):
        return set()
    parts = module.split(".")
    found = set()
    for group in JOINED:
        for place in (place for place, part in enumerate(parts) if part in group):
            others = (".".join((*parts[:place], one, *parts[place + 1 :])) for one in group)
            found |= {f"{other}.{kind}" for other in others if other in modules}
    return found


def _holes(numbers: Iterable[int]) -> list[str]:
    there = set(numbers)
    holes = [str(number) for number in range(min(there), max(there)) if number not in there]
    return holes if len(holes) <= MOST_HOLES * len(there) else []


def _modules(names: Iterable[str]) -> Modules:
    """The weights in each module of a layer."""
    modules: defaultdict[str, set[str]] = defaultdict(set)
    for name in names:
        module, _, child = name.removesuffix(".weight").rpartition(".")
        if module and name.endswith(".weight") and "norm" not in child:
            modules[module].add(child)
    return modules


def _odd_ones(layers: Mapping[int, Modules]) -> list[str]:
    found = []
    for number, modules in layers.items():
        for module, children in modules.items():
            others = [
                other[module] for n, other in layers.items() if n != number and module in other
            ]
            if len(others) < LEAST_LAYERS - 1 or any(other != others[0] for other in others):
                continue
            if children < others[0]:
                missing = sorted(others[0] - children)
                found += [f"{number}.{module}.{child}.weight" for child in missing]
    return found
