"""PEFT adapters (LoRA and DoRA): the base model's tensors with the adapter merged into each.

Names and formulas are those of PEFT: ``peft/tuners/lora/layer.py`` (``get_delta_weight``),
``peft/tuners/lora/variants.py`` (DoRA) and ``peft/utils/save_and_load.py``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fivescore.model import language_head, tensors
from fivescore.model.architecture import ADAPTER, refusal
from fivescore.model.importers import body, sources
from fivescore.model.importers.sources import FLOATS, Source, Tensor

if TYPE_CHECKING:
    import torch

WRAPPER = "base_model.model."
"""What PEFT puts before the base model's names."""
LORA = re.compile(
    r"(?P<module>.+)\.(?P<part>lora_embedding_A|lora_embedding_B|lora_A|lora_B"
    r"|lora_magnitude_vector)(\.default)?(\.(?P<kind>weight|bias))?"
)
OTHER_METHODS = (
    "use_qalora", "layer_replication", "target_parameters", "trainable_token_indices",
    "alora_invocation_tokens", "arrow_config", "kasa_config", "use_bdlora", "velora_config",
    "monteclora_config", "megatron_config",
)  # fmt: skip
"""Entries of adapter_config.json under which A and B are not all that changes a weight."""
CHANGES_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
"""Values of ``init_lora_weights`` under which the base model's weights were changed too."""

SAVED = re.compile(r"\.modules_to_save(\.default)?(?=\.)|\.base_layer(?=\.)")
"""What PEFT puts into the names of modules that are trained as a whole, and of those it adapts;
the module's old weights, which some trainers keep, are named ``ORIGINAL``."""
ORIGINAL = ".original_module."


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model, beside which a trainer may have left one."""
    models = [*folder.glob("model*.safetensors"), *folder.glob("pytorch_model*.bin")]
    return (folder / ADAPTER).is_file() and not ((folder / "config.json").is_file() and models)


def read(name: str, folder: Path, base: str | None, revision: str | None) -> Source:
    """The adapter's base model, with the adapter merged into the tensors that it changes.

    Args:
        base: the base model's folder or hub id; None takes that of adapter_config.json.

    Raises:
        ConfigurationError: the base is not found, the adapter is of another method, or a tensor
            of it fits none of the base's.
    """
    config = sources.read_json(folder / ADAPTER, name)
    _check(name, config)
    given = base or config.get("base_model_name_or_path")
    if not given:
        raise refusal(name, "adapter_config.json names no base model: give --base FOLDER")
    place = sources.resolve(str(given), None if base else config.get("revision"))
    if is_adapter(place):
        raise refusal(
            name, "its base model is a PEFT adapter too: import that one, and give it with --base"
        )
    model = body.named(sources.read(str(given), place))
    stored = {
        SAVED.sub("", key.removeprefix(WRAPPER)): one
        for key, one in tensors.stored(folder, name).items()
        if ORIGINAL not in key
    }
    if not stored:
        raise refusal(name, "the folder has no weights: fetch adapter_model.safetensors too")
    merged = _merged(name, config, model, stored)
    files = sources.files(folder)
    return model.with_(
        name=name,
        config=_with_rows(model, merged),
        folder=folder,
        tensors=merged,
        files=files if "tokenizer.json" in files else {**model.files, **files},
    )


def _check(name: str, config: Mapping[str, Any]) -> None:
    method = config.get("peft_type", "LORA")
    if method != "LORA":
        raise refusal(name, f"an adapter of {method}: only LoRA and DoRA are imported; merge it")
    if other := [each for each in OTHER_METHODS if config.get(each)]:
        raise refusal(name, f"adapter_config.json has {other[0]}, which is not imported: merge it")
    alphas = [config.get("lora_alpha", 8), *_patterns(config).values()]
    if not all(isinstance(alpha, int | float) for alpha in alphas):
        raise refusal(name, f"adapter_config.json has the lora_alpha {alphas}: it is a number")
    start = str(config.get("init_lora_weights")).lower()
    if start.startswith(CHANGES_BASE):
        raise refusal(
            name,
            f"adapter_config.json has init_lora_weights {start}, which changed the base model's"
            " weights: save the adapter as plain LoRA",
        )


def _merged(
    name: str, config: Mapping[str, Any], model: Source, stored: Mapping[str, tensors.Stored]
) -> dict[str, Tensor]:
    """The base model's tensors; those that the adapter changes are computed when read."""
    parts: dict[str, dict[str, tensors.Stored]] = {}
    found = dict(model.tensors)
    for key, one in stored.items():
        match = LORA.fullmatch(key)
        if match is None:  # a module or bias that was trained as a whole
            found[_in_base(key, model)] = Tensor(one.shape, one.dtype, one.read)
            continue
        part = match["part"] + (".bias" if match["kind"] == "bias" else "")
        parts.setdefault(match["module"], {})[part] = one
    for module, changes in parts.items():
        alpha = _alpha(name, config, module)
        _apply(name, config, found, (_in_base(module, model), alpha), changes)
    return found


def _with_rows(model: Source, merged: Mapping[str, Tensor]) -> Mapping[str, Any]:
    """config.json for an embedding that the adapter brings with rows for tokens of its own."""
    vocabulary, width = model.value("vocab_size"), body.hidden(model)
    for name, tensor in merged.items():
        old = model.tensors.get(name)
        is_embedding = language_head.EMBEDDING.search(name) and tensor.shape[1:] == (width,)
        if is_embedding and old is not None and old.shape[0] == vocabulary != tensor.shape[0]:
            return {**model.config, "vocab_size": tensor.shape[0]}
    return model.config


def _in_base(name: str, model: Source) -> str:
    """A name of the adapter as the base has it, which may have a prefix before it."""
    prefix = f"{body.prefix(model)}."
    known = any(key.startswith(f"{prefix}{name}") for key in model.tensors)
    return f"{prefix}{name}" if known else name


def _apply(
    name: str,
    config: Mapping[str, Any],
    found: dict[str, Tensor],
    changed: tuple[str, float],
    changes: Mapping[str, tensors.Stored],
) -> None:
    """Put the merged weight of a module, which is adapted with an alpha, into the tensors."""
    module, alpha = changed
    weight = found.get(f"{module}.weight")
    a = changes.get("lora_A") or changes.get("lora_embedding_A")
    b = changes.get("lora_B") or changes.get("lora_embedding_B")
    if weight is None:
        raise refusal(name, f"the adapter changes {module}, which its base model lacks")
    if a is None or b is None:
        raise refusal(name, f"the adapter of {module} lacks lora_A or lora_B: save it again")
    if weight.dtype not in FLOATS:
        raise refusal(
            name, f"its base has {module}.weight in {weight.dtype}: give an unquantised one"
        )
    if "lora_B.bias" in changes:
        raise refusal(name, f"the adapter of {module} has a bias (lora_bias): merge it")
    rank = a.shape[0] or 1  # no rank adds nothing
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    delta = _Delta(a, b, changes.get("lora_magnitude_vector"), scaling)
    delta.check(name, module, weight, bool(config.get("fan_in_fan_out")))
    found[f"{module}.weight"] = Tensor(weight.shape, weight.dtype, lambda: delta.added(weight))


def _alpha(name: str, config: Mapping[str, Any], module: str) -> float:
    """The alpha of a module, by its name in the model that was adapted."""
    for pattern, alpha in _patterns(config).items():
        try:
            if re.match(rf"(.*\.)?({pattern})$", module):
                return float(alpha)
        except re.error as error:
            raise refusal(name, f"alpha_pattern {pattern!r} is no pattern: {error.msg}") from error
    return float(config.get("lora_alpha", 8))


def _patterns(config: Mapping[str, Any]) -> Mapping[str, Any]:
    return config.get("alpha_pattern") or {}


class _Delta:
    """What an adapter adds to one weight: ``scaling * B A``, and DoRA's magnitudes after it.

    Args:
        magnitude: DoRA's ``[out]``; None for plain LoRA.
    """

    def __init__(
        self, a: tensors.Stored, b: tensors.Stored, magnitude: tensors.Stored | None, scaling: float
    ) -> None:
        self._a, self._b, self._magnitude, self._scaling = a, b, magnitude, scaling
        self._embedding = "lora_embedding" in a.name
        self._transposed = self._embedding

    def check(self, name: str, module: str, weight: Tensor, fan_in_fan_out: bool) -> None:
        """Check that it has the weight's shape, as it is or transposed (Conv1D, embeddings)."""
        a, b = self._a.shape, self._b.shape
        shape = (*b[:1], *a[1:])
        fits = len(a) == len(b) == 2 and a[0] == b[1] and weight.shape in (shape, shape[::-1])
        if not fits or (self._embedding and self._magnitude is not None):
            raise refusal(
                name,
                f"the adapter of {module} has A {list(a)} and B {list(b)}, which is not imported"
                f" for a weight of {list(weight.shape)}",
            )
        if not self._embedding:
            is_square = shape == shape[::-1]
            self._transposed = fan_in_fan_out if is_square else weight.shape != shape

    def added(self, weight: Tensor) -> torch.Tensor:
        """The merged weight in its own dtype, computed in float32."""
        base = weight.read()
        delta = self._b.read().float() @ self._a.read().float() * self._scaling
        merged = base.float() + (delta.T if self._transposed else delta)
        if self._magnitude is not None:
            rows = merged.T if self._transposed else merged
            magnitude = self._magnitude.read().float().reshape(-1, 1)
            rows = rows * (magnitude / rows.norm(dim=1, keepdim=True))
            merged = rows.T if self._transposed else rows
        return merged.to(base.dtype).contiguous()
