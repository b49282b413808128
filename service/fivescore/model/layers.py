"""What the layers of a body that transformers does not know lack, by comparing them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping

LEAST_LAYERS = 3
"""Layers that a comparison takes: of two that differ, either may be the odd one."""
MOST_HOLES = 0.25
"""Holes in a stack's numbers, per layer, up to which a layer is called missing: a stack that
numbers activations too has more."""
NAME = re.compile(r"((?:[^.\d]\w*\.)*)(\d+)\.(\w+\..+)")
"""The stack that a tensor is in, the number of its layer, and its name there."""

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
