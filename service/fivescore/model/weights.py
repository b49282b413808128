"""Checks before the weights load that a checkpoint has every parameter of what is served.

vLLM leaves a linear layer that the checkpoint lacks as the memory was, and serves what comes out.
"""

from __future__ import annotations

import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fivescore.model import architecture as architectures
from fivescore.model import disagreement, language_head, layers, tensors
from fivescore.model.architecture import Architecture, own_head, refusal
from fivescore.model.head import OwnHead, TokenHead
from fivescore.model.tensors import Shape, Tensors
from fivescore.settings import Settings

log = logging.getLogger(__name__)

HEAD, BIAS = "score.weight", "score.bias"
ADAPTED = "base_model."
"""What PEFT puts before the names of a model that it wraps."""
LANGUAGE_HEAD = re.compile(r"(^|\.)(lm_head|embed_out|output_layer|output)\.")
NO_HEAD = re.compile(
    r"(^|\.)(lm_head|embed_out|output|embed|tok_embed|wte|wpe|word_embed|norm|ln_f|rotary|mtp)|vision"
    r"|visual|audio|image|video|multi_modal|mm_projector|language_model",
    re.IGNORECASE,
)
"""Tensors beside a body's layers that are no part of a reward head."""
OTHER_SENSES = re.compile(r"vision|visual|audio|image|video|multi_modal|projector", re.IGNORECASE)
"""Parameters that texts do not need."""
QUANTISED = re.compile(
    r"\.(qweight|qzeros|scales|weight_packed|weight_scale\w*|input_scale|absmax|codes|SCB|W_q"
    r"|\w*_qdata)$|_(blocks|scales)$|:qdata$"
)
"""Tensors that only the checkpoint of a quantised model has."""
FUSED = {
    "q_proj": "qkv_proj", "k_proj": "qkv_proj", "v_proj": "qkv_proj",
    "gate_proj": "gate_up_proj", "up_proj": "gate_up_proj",
}  # fmt: skip
"""Layers that vLLM joins, and the layer that some checkpoints have instead."""
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts")
"""Entries of config.json for the number of experts, by family."""
LAYER = re.compile(r"(?<=\.)\d+(?=\.)")
"""The first number of a parameter's name, which is its layer's."""
NAMED = 2
"""Tensors that an error names; the others are counted."""
UNDERSTOOD = 0.5
"""The share of the body's parameters that must be found by name before one is called missing."""


def check(
    settings: Settings, architecture: Architecture | None, own: OwnHead | None = None
) -> bool:
    """Check the kind of model, its head and its body; reads no weights.

    Returns whether the checkpoint's tensors were looked at. False: they are not there yet, or only
    vLLM can read them.

    Raises:
        ConfigurationError: fivescore cannot serve this kind of model; its files are damaged; or a
            parameter is missing or has another shape than config.json says.
    """
    if architecture is None:
        return False
    architectures.check(architecture)
    if own is not None and isinstance(own.head, TokenHead):
        _check_tokens(own.head, architecture)
    disagreement.check(architecture)
    found = tensors.read(settings)
    if found is None or not found.shapes:
        return False
    if any(name.startswith(ADAPTED) for name in found.shapes):
        raise architectures.adapter(architecture.model)
    checkpoint = _Checkpoint(architecture, found)
    checkpoint.check_head(own)
    checkpoint.check_body()
    return True


def check_body(architecture: Architecture, found: Tensors) -> None:
    """Check that tensors that are yet to be written are those of the architecture's body.

    Raises:
        ConfigurationError: one is missing, has another shape than config.json says, or most have
            other names than transformers' class reads.
    """
    checkpoint = _Checkpoint(architecture, found)
    checkpoint.check_names()
    checkpoint.check_body()


def single_origins(body: Any, found: Mapping[str, Shape]) -> dict[str, str] | None:
    """The tensor of each of the body's parameters and saved buffers, by the parameter's name.

    None where one of them is not a tensor of the same shape, as the merged experts of a mixture.
    """
    origins = _origins(body, found)
    single = {}
    for name, wanted in body.state_dict().items():
        origin = origins.get(name, _Origin())
        if len(origin.names) != 1 or origin.parts != 1 or origin.stacked:
            return None
        if found[origin.names[0]] != tuple(wanted.shape):
            return None
        single[name] = origin.names[0]
    return single


@dataclass(slots=True)
class _Origin:
    """Where a parameter comes from.

    Args:
        names: the checkpoint's tensors that make it.
        parts: how many tensors make it, for each expert if ``stacked``.
    """

    names: list[str] = field(default_factory=list)
    parts: int = 1
    stacked: bool = False

    def is_whole(self, shape: Shape) -> bool:
        return len(self.names) >= self.parts * (shape[0] if self.stacked else 1)


class _Checkpoint:
    """A checkpoint's tensors beside the parameters that its architecture needs."""

    def __init__(self, architecture: Architecture, found: Tensors) -> None:
        self._architecture = architecture
        self._found = found
        self._model = architecture.model
        self._quantised = any(
            architecture.value(name) for name in ("quantization_config", "compression_config")
        ) or any(map(QUANTISED.search, found.shapes))
        body = None if found.consolidated else _empty_body(architecture)
        if body is not None:
            disagreement.check_rotation(architecture, body)
        self._needed = {} if body is None else _parameters(body)
        self._origins = {} if body is None else _origins(body, found.shapes)
        self._modules = {name.rpartition(".")[0] for name in self._origins}
        self._missing = [name for name in self._needed if not self._has(name)]
        self._unread = ""
        if len(self._missing) > UNDERSTOOD * len(self._needed):
            log.debug("model %s: transformers does not read its tensors' names", self._model)
            self._unread = self._missing[0]
            self._needed, self._origins, self._missing = {}, {}, []

    def check_head(self, own: OwnHead | None = None) -> None:
        """Check that the head is there and is the manifest's, or one linear layer of config.json's
        shape without one."""
        if own is not None:
            self._check_own_head(own)
            return
        if self._architecture.head_of_language_model:
            self._check_language_head()
            return
        others = self._other_heads(self._found.shapes)
        if not any(self._is_head(name) and name != BIAS for name in self._found.shapes):
            self._refuse_missing_head([*others, *self._other_heads(self._found.beside)])
        if others:
            raise own_head(self._model, self._architecture.name, _listed(others))
        shape, bias = self._found.shapes.get(HEAD), self._found.shapes.get(BIAS)
        if shape is None or self._quantised:
            return
        self._check_head_shape(shape)
        if bias is not None and bias != shape[:1]:
            raise refusal(
                self._model,
                f"its head has {HEAD} {_shown(shape)} and {BIAS} {_shown(bias)}, which are not of"
                " one layer",
            )

    def _check_own_head(self, own: OwnHead) -> None:
        kind, hidden, shapes = own.head.kind, self._architecture.hidden, self._found.shapes
        needed = own.tensors(hidden or 0)
        others = [name for name in shapes if _top(name) in ("score", "gate") and name not in needed]
        others += [name for name in self._other_heads(shapes) if name not in {*needed, *others}]
        for name, shape in needed.items():
            if name not in shapes:
                there = f"; it has {_listed(others)} instead" if others else ""
                raise refusal(
                    self._model,
                    f"the checkpoint lacks {name}, which head.kind {kind} of the manifest needs"
                    f"{there}",
                )
            if shapes[name] != shape and hidden is not None:
                raise refusal(
                    self._model,
                    f"{name} has the shape {_shown(shapes[name])}, and the head of the manifest"
                    f" needs {_shown(shape)}",
                )
        if others:
            raise refusal(
                self._model,
                f"its head has {_listed(others)}, and head.kind {kind} of the manifest has none:"
                " correct head in reward.json",
            )
        if isinstance(own.head, TokenHead):
            self._check_rows()

    def _check_rows(self) -> None:
        """Check that there is what a token's logit is made of."""
        vocabulary, hidden = self._architecture.value("vocab_size"), self._architecture.hidden
        if not isinstance(vocabulary, int) or hidden is None:
            return
        found = {
            language_head.kind(name, shape, vocabulary, hidden)
            for name, shape in self._found.shapes.items()
        }
        tied = self._architecture.value("tie_word_embeddings")
        if "weight" not in found and not (tied and "embedding" in found):
            raise refusal(
                self._model,
                f"the checkpoint lacks lm_head.weight [{vocabulary}, {hidden}], of which head.kind"
                " token of the manifest is made",
            )

    def check_names(self) -> None:
        """Check that transformers' class, where there is one, reads these tensors' names."""
        if self._unread:
            raise refusal(
                self._model,
                f"its tensors have other names than those of {self._architecture.name}: it has no"
                f" {self._unread}, but {next(iter(self._found.shapes))}",
            )

    def check_body(self) -> None:
        """Check that each parameter of transformers' class is there, in its shape.

        Where transformers does not know the body, or would not read these names, checks that no
        layer lacks what the others have.
        """
        if not self._needed:
            self._refuse_lacking(layers.lacking(self._found.shapes))
        self._refuse_lacking([self._called(name) for name in self._missing])
        if self._quantised:
            self._refuse_lacking(layers.lacking_parts(self._found.shapes, self._experts()))
        for name, shape in self._needed.items():
            given = self._named(name)
            if self._quantised or len(given) != 1 or not given[0].endswith(name):
                continue
            if (found := self._found.shapes[given[0]]) != shape:
                raise refusal(
                    self._model,
                    f"{given[0]} has the shape {_shown(found)}, and config.json needs"
                    f" {_shown(shape)}: they are of two models",
                )

    def _experts(self) -> int:
        """The experts of a layer; 0 where config.json names none."""
        values = map(self._architecture.value, EXPERTS)
        return next((value for value in values if isinstance(value, int)), 0)

    def _refuse_lacking(self, names: Sequence[str]) -> None:
        if names:
            more = f" and {len(names) - 1} more" if names[1:] else ""
            raise refusal(
                self._model,
                f"the checkpoint lacks {names[0]}{more} of its parameters: fetch or export it"
                " again",
            )

    def _is_head(self, name: str) -> bool:
        if name.startswith("score.") and self._quantised:
            return not re.search(r"\.\d+\.", name)
        return name in (HEAD, BIAS)

    def _check_head_shape(self, shape: Shape) -> None:
        outputs, hidden = self._architecture.outputs, self._architecture.hidden
        if shape == (outputs, hidden) or (hidden is None and shape[:1] == (outputs,)):
            return
        advice = ""
        if shape[1:] == (hidden,):
            advice = f": set --engine.hf-overrides.num_labels {shape[0]} if that is its head"
        raise refusal(
            self._model,
            f"its head {HEAD} has the shape {_shown(shape)}, and config.json needs"
            f" {_shown((outputs, hidden))}{advice}",
        )

    def _check_language_head(self) -> None:
        tied = self._architecture.value("tie_word_embeddings")
        if not tied and not any(map(LANGUAGE_HEAD.search, self._found.shapes)):
            raise refusal(
                self._model,
                "classifier_from_token makes the head of lm_head.weight, which the checkpoint"
                " lacks",
            )

    def _refuse_missing_head(self, others: Sequence[str]) -> None:
        name = self._architecture.name
        if others and not architectures.is_standard(name):
            raise own_head(self._model, name, _listed(others))
        instead = [*others, *filter(LANGUAGE_HEAD.search, self._found.shapes)]
        there = f"it has {_listed(instead)} instead" if instead else "it has no other head either"
        if instead and not others:
            there += "; fivescore inspect says how it can be served"
        raise refusal(
            self._model, f"the checkpoint lacks {HEAD}, the head of a reward model; {there}"
        )

    def _other_heads(self, names: Iterable[str]) -> list[str]:
        """Head-like tensors among the names that are not the one linear layer."""
        bodies = self._body_names()
        rows = (self._architecture.value("vocab_size"), self._architecture.hidden)
        return [
            name
            for name in names
            if _top(name) not in bodies
            and not self._is_head(name)
            and not NO_HEAD.search(name)
            and self._found.shapes.get(name) != rows
        ]

    def _body_names(self) -> set[str]:
        """The first parts of the names of the body's tensors."""
        known = {_top(name) for name in self._needed for name in self._named(name)}
        sizes: Counter[str] = Counter()
        for name, shape in self._found.shapes.items():
            if not NO_HEAD.search(name):
                sizes[_top(name)] += math.prod(shape)
        return known or {name for name, _ in sizes.most_common(1)}

    def _named(self, parameter: str) -> list[str]:
        """The checkpoint's tensors that make a parameter of the body."""
        return self._origins[parameter].names if parameter in self._origins else []

    def _has(self, name: str) -> bool:
        """Whether the body's parameter ``name`` is in the checkpoint, or vLLM can make it."""
        if name in self._origins:
            return self._quantised or self._origins[name].is_whole(self._needed[name])
        module, _, kind = name.rpartition(".")
        parent, _, layer = module.rpartition(".")
        joined = f"{parent}.{FUSED.get(layer, layer)}"
        if self._quantised:
            if kind == "bias":
                return f"{joined}.{kind}" in self._origins
            return not self._modules.isdisjoint((module, joined)) or self._has_within(module)
        return f"{joined}.{kind}" in self._origins

    def _has_within(self, module: str) -> bool:
        """Whether there is a module inside this one, as each expert is inside the experts."""
        return any(other.startswith(f"{module}.") for other in self._modules)

    def _called(self, name: str) -> str:
        """What the checkpoint would call what it lacks of a parameter, by its other layers."""
        layer = LAYER.search(name)
        for other, origin in self._origins.items():
            like = LAYER.search(other)
            if layer is None or like is None or other == name:
                continue
            if LAYER.sub(layer[0], other, count=1) == name:
                for source in origin.names:
                    expected = LAYER.sub(layer[0], source, count=1)
                    if expected not in self._found.shapes:
                        return expected
        return self._prefix() + name

    def _prefix(self) -> str:
        """What the checkpoint's names have before transformers' names of the body."""
        prefixes = Counter(
            origin.names[0].removesuffix(name)
            for name, origin in self._origins.items()
            if origin.names[0].endswith(name)
        )
        return prefixes.most_common(1)[0][0] if prefixes else ""


def _check_tokens(head: TokenHead, architecture: Architecture) -> None:
    vocabulary = architecture.value("vocab_size")
    for name, token in (("token", head.token), ("minus", head.minus)):
        if token is not None and isinstance(vocabulary, int) and token >= vocabulary:
            raise refusal(
                architecture.model,
                f"head.{name} of the manifest is {token}, and the vocabulary has {vocabulary} ids"
                f" (0 to {vocabulary - 1})",
            )


def _empty_body(architecture: Architecture) -> Any:
    """transformers' model without its head and without weights; None where it has none."""
    import torch
    from transformers import AutoModel

    if not architecture.known:
        return None
    try:
        with torch.device("meta"):
            return AutoModel.from_config(
                architecture.config,
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=False,
            )
    except Exception as error:  # a configuration that transformers' class does not take
        log.debug("model %s: transformers cannot build it: %s", architecture.model, error)
        return None


def _parameters(body: Any) -> dict[str, Shape]:
    return {
        name: tuple(parameter.shape)
        for name, parameter in body.named_parameters()
        if not OTHER_SENSES.search(name)
    }


def _origins(body: Any, names: Iterable[str]) -> dict[str, _Origin]:
    """The tensors that transformers would load each parameter from, by the parameter's name.

    Tensors that it would not load are here too, by the name that it would look for. None at all
    where this version of transformers has no such rules.
    """
    try:
        from transformers.conversion_mapping import get_model_conversion_mapping
        from transformers.core_model_loading import (
            MergeModulelist,
            WeightConverter,
            WeightRenaming,
            dot_natural_key,
            rename_source_key,
        )
    except ImportError as error:
        log.info("the body's tensors are compared with each other: %s", error)
        return {}

    conversions = get_model_conversion_mapping(body)
    renamings = [each for each in conversions if isinstance(each, WeightRenaming)]
    converters = [each for each in conversions if isinstance(each, WeightConverter)]
    by_pattern = {pattern: each for each in converters for pattern in each.source_patterns}
    wanted, prefix = body.state_dict(), body.base_model_prefix
    origins: defaultdict[str, _Origin] = defaultdict(_Origin)
    for name in sorted(names, key=dot_natural_key):
        target, pattern = rename_source_key(name, renamings, converters, prefix, wanted)
        if target not in wanted:
            plain, _ = rename_source_key(name, [], [], prefix, wanted)
            pattern = None if plain in wanted else pattern
            target = plain if plain in wanted else _without(prefix, target)
        if pattern is None:
            origins[target].names.append(name)
            continue
        found = by_pattern[pattern]
        for other in found.target_patterns:
            origin = origins[target.replace(found.target_patterns[0], other)]
            origin.names.append(name)
            origin.parts = len(found.source_patterns)
            origin.stacked = any(isinstance(each, MergeModulelist) for each in found.operations)
    return dict(origins)


def _without(prefix: str, name: str) -> str:
    return name.removeprefix(f"{prefix}.") if prefix else name


def _top(name: str) -> str:
    return name.partition(".")[0]


def _listed(names: Iterable[str]) -> str:
    """Some of the names, and how many there are besides."""
    names = sorted(names)
    more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
    return ", ".join(names[:NAMED]) + more


def _shown(shape: Iterable[object]) -> str:
    return f"[{', '.join(map(str, shape))}]"
