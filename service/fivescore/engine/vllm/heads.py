"""The head of a reward model in vLLM: which token is read, with what activation and precision.

One linear layer is vLLM's own. For the other kinds of ``model/head.py`` there is a class
``Headed<Architecture>`` for each architecture that generates: vLLM's body, with a head that is
built by the manifest's description and replicated on each rank of tensor parallelism. ``register``
makes them known in each of vLLM's processes: it is an entry point of ``vllm.general_plugins``.
"""

from __future__ import annotations

import dataclasses
import importlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import pairwise
from typing import Any

import torch
from pydantic import TypeAdapter
from torch import nn
from vllm import ModelRegistry, PoolingParams, __version__
from vllm.config import PoolerConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.model_executor.layers.quantization.base_config import QuantizationConfig

from fivescore.engine.vllm import internals
from fivescore.errors import ConfigurationError, first_line
from fivescore.model import language_head
from fivescore.model.architecture import runs_in_vllm
from fivescore.model.head import GatedHead, Head, OwnHead, TokenHead

RAW_SCORES = PoolingParams(task="classify", use_activation=False)
"""Asks for the head's outputs as they are, without softmax or sigmoid."""
POOLING = PoolerConfig(pooling_type="LAST", use_activation=False)
HEAD = "score"
"""The name that vLLM's adapter gives to the layer of the outputs."""
OWN_HEAD = "fivescore_head"
"""The entry of the model's configuration that describes a head of ours, and the module's name."""
PREFIX = "Headed"
GENERATE = ("ForCausalLM", "ForConditionalGeneration", "ChatModel", "LMHeadModel")
"""Ends of the names of vLLM's classes that a head can be put on."""
CLASSIFIES = ("ForSequenceClassification", "Model")
"""Ends of the names that checkpoints of the same bodies have."""
ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU, "silu": nn.SiLU, "gelu": nn.GELU, "selu": nn.SELU, "tanh": nn.Tanh,
}  # fmt: skip

Weights = Iterable[tuple[str, torch.Tensor]]


def with_float32_head(overrides: Any) -> Any:
    """``hf_overrides`` that also keep the head in float32, unless they say otherwise.

    vLLM also takes a function here; that is left as it is.
    """
    if isinstance(overrides, dict):
        return {"head_dtype": "float32", **overrides}
    return overrides


def spare_the_head(found: QuantizationConfig | None) -> QuantizationConfig | None:
    """The same quantisation, except for the head.

    vLLM quantises the head too where it quantises a checkpoint's weights while loading them. It
    leaves out the layers of heads of ours, which are torch's own.
    """
    if found is None or found.get_name() != "online" or not internals.usable(internals.HEAD):
        return found
    if HEAD in found.args.ignore:
        return found
    return type(found)(dataclasses.replace(found.args, ignore=[*found.args.ignore, HEAD]))


def register() -> None:
    """vLLM's plugin: make a ``Headed`` class known for each architecture that generates.

    Each class is made when it is asked for. Its name has vLLM's version, since vLLM keeps what it
    found out about a class for as long as the file with this name stays the same.
    """
    config = importlib.import_module("vllm.model_executor.models.config")
    adjustments = getattr(config, "MODELS_CONFIG_MAP", {})
    for name in list(ModelRegistry.get_supported_archs()):
        if name.endswith(GENERATE) and not name.startswith(PREFIX):
            ModelRegistry.register_model(PREFIX + name, f"{__name__}:{PREFIX}{name}@{__version__}")
            if name in adjustments:
                adjustments[PREFIX + name] = adjustments[name]


def with_own_head(arguments: AsyncEngineArgs, own: OwnHead) -> dict[str, Any]:
    """``hf_overrides`` with which vLLM builds a head by the manifest's description.

    Raises:
        ConfigurationError: vLLM or its plugins cannot be used so, it cannot read the model's
            configuration, or it has no such body.
    """
    kind = f"head.kind {own.head.kind} of the manifest"
    if absent := internals.missing(internals.HEADED):
        raise ConfigurationError(
            f"{kind} cannot be served: vLLM {__version__} has no {', '.join(absent)}; install the"
            " version that fivescore names"
        )
    if not any(name.startswith(PREFIX) for name in ModelRegistry.get_supported_archs()):
        raise ConfigurationError(
            f"{kind} needs fivescore's plugin in vLLM, which is not loaded: add fivescore to"
            " VLLM_PLUGINS where that is set, else install fivescore with pip again"
        )
    overrides = arguments.hf_overrides
    config = _config(arguments)
    names = overrides.get("architectures") or config.architectures or [""]
    headed = _headed_name(str(names[0]), composite=config is not config.get_text_config())
    if headed is None:
        raise ConfigurationError(
            f"vLLM {__version__} has no body for {names[0]} that {kind} can be put on"
        )
    described = {"head": own.head.model_dump(mode="json"), "outputs": own.raw_outputs}
    return {
        **overrides,
        "architectures": [headed],
        "num_labels": own.raw_outputs,
        OWN_HEAD: json.dumps(described),  # vLLM would merge an object into the configuration
    }


def _config(arguments: AsyncEngineArgs) -> Any:
    """transformers' configuration, as vLLM reads it."""
    from vllm.transformers_utils.config import get_config

    try:
        return get_config(
            arguments.hf_config_path or arguments.model,
            arguments.trust_remote_code,
            arguments.revision,
            arguments.code_revision,
            arguments.config_format,
        )
    except Exception as error:  # the libraries beneath raise many kinds
        raise ConfigurationError(f"{arguments.model}: {first_line(error)}") from error


def _headed_name(architecture: str, composite: bool) -> str | None:
    """The ``Headed`` class for a checkpoint's architecture; None where vLLM has no such body."""
    known = ModelRegistry.get_supported_archs()
    if PREFIX + architecture in known:
        return PREFIX + architecture
    suffix = next((end for end in (*GENERATE, *CLASSIFIES) if architecture.endswith(end)), "")
    stem = architecture.removesuffix(suffix)
    ends = (GENERATE[1], GENERATE[0], *GENERATE[2:]) if composite else GENERATE
    stems = (stem, stem.removesuffix("Text"))  # Gemma3TextForSequenceClassification
    names = [PREFIX + one + end for one in stems for end in ends]
    # vLLM takes transformers' own code for a body that it has none for.
    if not composite and runs_in_vllm(f"{stem}ForCausalLM"):
        names.append(f"{PREFIX}TransformersForCausalLM")
    return next((name for name in names if name in known), None)


def __getattr__(name: str) -> type[nn.Module]:
    """The class ``Headed<Architecture>@<version of vLLM>``, made of vLLM's own class."""
    if not name.startswith(PREFIX):
        raise AttributeError(name)
    return _headed(name.partition("@")[0].removeprefix(PREFIX))


@cache
def _headed(architecture: str) -> type[nn.Module]:
    from vllm.model_executor.layers.pooler import DispatchPooler
    from vllm.model_executor.models.adapters import as_seq_cls_model

    base = as_seq_cls_model(ModelRegistry.models[architecture].load_model_cls())

    class Headed(base):  # type: ignore[misc, valid-type]  # vLLM is Any to mypy
        def _init_pooler(self, vllm_config: Any, prefix: str = "") -> nn.Module:
            module = _build(self, vllm_config.model_config)
            setattr(self, OWN_HEAD, module)
            return DispatchPooler.for_seq_cls(
                vllm_config.model_config.pooler_config, classifier=module
            )

        def load_weights(self, weights: Weights) -> set[str]:
            head = getattr(self, OWN_HEAD, None)
            if head is None:
                raise ValueError(f"{architecture} makes a head of its own in vLLM {__version__}")
            loaded = set(super().load_weights(head.taken_from(weights)))
            head.check_loaded()
            return loaded | {f"{OWN_HEAD}.{name}" for name, _ in head.named_parameters()}

    Headed.__name__ = Headed.__qualname__ = PREFIX + architecture
    return Headed


def _build(model: nn.Module, config: Any) -> _OwnHead:
    """The head that the configuration describes, without its weights."""
    described = json.loads(getattr(config.hf_config, OWN_HEAD))
    head = TypeAdapter(Head).validate_python(described["head"])
    if isinstance(head, TokenHead):
        found = (getattr(part, "logits_processor", None) for part in model.modules())
        return _TokenHead(head, config, next(filter(None, found), None))
    return _Layers(head, config.get_hidden_size(), described["outputs"], config.head_dtype)


class _OwnHead(nn.Module, ABC):  # type: ignore[misc]  # torch is Any to mypy
    """Takes its weights from a checkpoint's as these stream by."""

    @abstractmethod
    def taken_from(self, weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        """The weights that are the body's."""

    @abstractmethod
    def check_loaded(self) -> None:
        """Check that all weights of the head were there.

        Raises:
            ValueError: one was not.
        """


class _Layers(_OwnHead):
    """``mlp`` and ``gated``: chains of linear layers, named as in the checkpoint; their outputs are
    one after the other."""

    def __init__(self, head: Any, hidden: int, outputs: int, dtype: torch.dtype) -> None:
        super().__init__()
        if isinstance(head, GatedHead):
            gate = head.gate
            self.score: nn.Module = nn.Linear(hidden, outputs // 2, dtype=dtype)
            self.gate = _chain((hidden, *gate.hidden, outputs // 2), gate.activation, dtype)
        else:
            self.score = _chain((hidden, *head.hidden, outputs), head.activation, dtype)
        self._loaded: set[str] = set()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        return torch.cat([chain(states) for chain in self.children()], dim=-1)

    def taken_from(self, weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        parameters = dict(self.named_parameters())
        self._loaded.clear()
        for name, tensor in weights:
            parameter = parameters.get(name)
            if parameter is None:
                yield name, tensor
                continue
            if tensor.shape != parameter.shape:
                raise ValueError(
                    f"the head's {name} has the shape {list(tensor.shape)}, and the manifest needs"
                    f" {list(parameter.shape)}"
                )
            parameter.data.copy_(tensor)
            self._loaded.add(name)

    def check_loaded(self) -> None:
        if lacking := sorted({name for name, _ in self.named_parameters()} - self._loaded):
            raise ValueError(f"the checkpoint lacks the head's {', '.join(lacking)}")


def _chain(widths: tuple[int, ...], activation: str, dtype: torch.dtype) -> nn.Sequential:
    """Linear layers from each width to the next, with the activation between them."""
    layers: list[nn.Module] = []
    for into, out in pairwise(widths):
        layers += [ACTIVATIONS[activation](), nn.Linear(into, out, dtype=dtype)]
    return nn.Sequential(*layers[1:])


class _TokenHead(_OwnHead):
    """``token``: rows of the language model's head, of which each rank of tensor parallelism has
    another part; so they are taken from the checkpoint's tensors, which have all.

    Args:
        processor: vLLM's own, which knows how this model scales and caps its logits.
    """

    def __init__(self, head: TokenHead, config: Any, processor: Any) -> None:
        super().__init__()
        text = config.hf_text_config
        self._ids = [head.token] if head.minus is None else [head.token, head.minus]
        self._sizes = text.vocab_size, config.get_hidden_size()
        self._tied = any(
            getattr(one, "tie_word_embeddings", False) for one in (text, config.hf_config)
        )
        self._scale = float(getattr(processor, "scale", None) or 1.0)
        self._cap = getattr(processor, "soft_cap", None)
        shape = len(self._ids), self._sizes[1]
        self.weight = nn.Parameter(torch.empty(shape, dtype=config.head_dtype), False)
        self.bias = nn.Parameter(torch.zeros(shape[0], dtype=config.head_dtype), False)
        self._found: set[str] = set()

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        logits = nn.functional.linear(states, self.weight, self.bias) * self._scale
        if self._cap:
            logits = torch.tanh(logits / self._cap) * self._cap
        return logits[:, :1] - logits[:, 1:] if logits.shape[1] > 1 else logits

    def taken_from(self, weights: Weights) -> Iterator[tuple[str, torch.Tensor]]:
        self._found.clear()
        self.bias.data.zero_()
        for name, tensor in weights:
            kind = language_head.kind(name, tensor.shape, *self._sizes)
            if kind is not None:
                self._take(kind, name, tensor)
            yield name, tensor

    def _take(self, kind: str, name: str, tensor: torch.Tensor) -> None:
        self._found.add(kind)
        if kind == "bias":
            self.bias.data.copy_(tensor[self._ids])
            return
        # A head of its own counts, even where config.json says that the two are tied.
        if kind == "embedding" and (not self._tied or "weight" in self._found):
            return
        if tensor.dtype not in (torch.float32, torch.bfloat16, torch.float16):
            raise ValueError(f"{name} is quantised ({tensor.dtype}): a token head needs its rows")
        self.weight.data.copy_(tensor[self._ids])

    def check_loaded(self) -> None:
        if "weight" in self._found or (self._tied and "embedding" in self._found):
            return
        raise ValueError(
            "the checkpoint lacks lm_head.weight, of whose rows the manifest's token head is made"
        )
