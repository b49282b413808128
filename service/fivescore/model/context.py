"""The context within which an engine gives a reference's numbers, where not all lengths do."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from fivescore.model import disagreement
from fivescore.model.architecture import Architecture

log = logging.getLogger(__name__)

DEFAULT = 2048
"""The context in tokens of a model whose config names none."""
LONGROPE = ("longrope", "su")
DYNAMIC = "dynamic"


def declared(config: Any) -> int:
    """The context in tokens that transformers' configuration of a model names."""
    longest = getattr(config.get_text_config(), "max_position_embeddings", None)
    return int(longest or DEFAULT)


def exact(architecture: Architecture | None) -> int | None:
    """Tokens up to which vLLM's numbers are transformers'; None where that is not in question.

    vLLM chooses longrope's factors once, by its context, where transformers does so by the length
    of each sequence; its dynamic scaling ends where transformers' begins; and some of its sliding
    windows are longer.
    """
    if architecture is None:
        return None
    lengths = [_length(architecture, each) for each in _scalings(architecture)]
    lengths.append(disagreement.window(architecture))
    return min((length for length in lengths if length is not None), default=None)


def warn(architecture: Architecture | None, tokens: int) -> None:
    """Warn if ``tokens``, the engine's context, changes scores."""
    limit = exact(architecture)
    if architecture is None or limit is None or tokens <= limit:
        return
    kinds = {_kind(each) for each in _scalings(architecture)}
    if not kinds.isdisjoint(LONGROPE):
        log.warning(
            "model %s: scores are not the reference's for pairs of up to %d tokens: above that"
            " context vLLM uses longrope's long factors for every pair, and it is %d;"
            " --max-tokens %d gives the reference's", architecture.model, limit, tokens, limit,
        )  # fmt: skip
    else:
        where = "dynamic scaling begins" if DYNAMIC in kinds else "vLLM's sliding windows differ"
        log.warning(
            "model %s: scores are not the reference's for pairs of more than %d tokens, where"
            " %s, and the context is %d: --max-tokens %d refuses such pairs",
            architecture.model, limit, where, tokens, limit,
        )  # fmt: skip


def _scalings(architecture: Architecture) -> Iterator[Mapping[str, Any]]:
    """Each scaling of rotary embeddings; some models have one for each kind of layer."""
    for name in ("rope_parameters", "rope_scaling"):
        found = architecture.value(name)
        if isinstance(found, Mapping):
            nested = [each for each in found.values() if isinstance(each, Mapping)]
            yield from nested or [found]


def _kind(scaling: Mapping[str, Any]) -> Any:
    return scaling.get("rope_type", scaling.get("type"))


def _length(architecture: Architecture, scaling: Mapping[str, Any]) -> int | None:
    longest = architecture.value("max_position_embeddings")
    if _kind(scaling) in LONGROPE:
        original = architecture.value("original_max_position_embeddings")
        length = original or scaling.get("original_max_position_embeddings") or longest
    elif _kind(scaling) == DYNAMIC:
        length = longest
    else:
        return None
    return int(length) if length else None
