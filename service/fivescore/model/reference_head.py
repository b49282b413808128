"""The head of the reference: the plain formula of each kind, over a checkpoint's own tensors.

It shares nothing with what the engine computes a head with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch

from fivescore.errors import ConfigurationError
from fivescore.model import language_head, tensors
from fivescore.model.head import Gate, Head, LinearHead, MlpHead, OwnHead, TokenHead

Compute = Callable[[torch.Tensor, Sequence[int]], Sequence[float]]
"""Hidden states of all tokens after the final norm, float32 ``[tokens, H]``, and the token ids, to
the outputs ``[outputs]``."""
Named = dict[str, torch.Tensor]


def read(model: str, revision: str | None, head: Head, outputs: int, config: Any) -> Compute:
    """What computes the head of a checkpoint.

    Args:
        outputs: the manifest's number of outputs.
        config: transformers' configuration of the model.

    Raises:
        ConfigurationError: the checkpoint lacks one of the head's tensors.
    """
    text = config.get_text_config()
    if isinstance(head, TokenHead):
        return _token(model, revision, head, text, config)
    if isinstance(head, LinearHead):
        found = tensors.load(model, revision, {"score.weight", "score.bias"})
        needed = {"score.weight"}
    else:
        needed = set(OwnHead(head, outputs).tensors(text.hidden_size))
        found = tensors.load(model, revision, needed)
    if lacking := sorted(needed - found.keys()):
        raise ConfigurationError(
            f"model {model}: the checkpoint lacks {', '.join(lacking)} of its head"
        )
    if isinstance(head, LinearHead):
        return lambda states, ids: _linear(found, "score", states[-1]).tolist()
    if isinstance(head, MlpHead):
        return lambda states, ids: _mlp(found, "score", states[-1], head.activation).tolist()
    return lambda states, ids: _gated(found, head.gate, states, ids).tolist()


def _linear(found: Named, name: str, state: torch.Tensor) -> torch.Tensor:
    output = found[f"{name}.weight"] @ state
    return output + found[f"{name}.bias"] if f"{name}.bias" in found else output


def _mlp(found: Named, name: str, state: torch.Tensor, activation: str) -> torch.Tensor:
    """``name.0``, the activation, ``name.2`` and so on, to the last layer that there is."""
    state, place = _linear(found, f"{name}.0", state), 2
    while f"{name}.{place}.weight" in found:
        state = getattr(torch.nn.functional, activation)(state)
        state, place = _linear(found, f"{name}.{place}", state), place + 2
    return state


def _gated(found: Named, gate: Gate, states: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    outputs = _linear(found, "score", states[-1])
    weights = _mlp(found, "gate", states[_gate_token(gate.at, list(ids))], gate.activation)
    if gate.softmax:
        weights = torch.softmax(weights, dim=0)
    return torch.cat([outputs, (gate.scale * weights * outputs).sum().reshape(1)])


def _gate_token(at: Sequence[int], ids: list[int]) -> int:
    if not at:
        return len(ids) - 1
    starts = [i for i in range(len(ids)) if ids[i : i + len(at)] == list(at)]
    if not starts:
        raise ConfigurationError(
            f"head.gate.at of the manifest, {list(at)}, does not occur in a pair's token ids"
        )
    return starts[-1]


def _token(model: str, revision: str | None, head: TokenHead, text: Any, config: Any) -> Compute:
    rows, bias = _rows(model, revision, head, text, config)

    def compute(states: torch.Tensor, ids: Sequence[int]) -> Sequence[float]:
        logits = _as_generated(rows @ states[-1] + bias, text)
        return [float(logits[0] if head.minus is None else logits[0] - logits[1])]

    return compute


def _rows(
    model: str, revision: str | None, head: TokenHead, text: Any, config: Any
) -> tuple[torch.Tensor, torch.Tensor]:
    """The rows ``[1 or 2, H]`` of the language model's head, and their biases."""
    ids = [head.token] if head.minus is None else [head.token, head.minus]
    shapes = tensors.shapes(model, revision)
    kinds = {
        language_head.kind(name, shape, text.vocab_size, text.hidden_size): name
        for name, shape in shapes.items()
    }
    tied = any(getattr(one, "tie_word_embeddings", False) for one in (text, config))
    name = kinds.get("weight") or (kinds.get("embedding") if tied else None)
    if name is None:
        raise ConfigurationError(f"model {model}: the checkpoint lacks lm_head.weight")
    rows = tensors.load(model, revision, {name}, ids)[name]
    if "bias" not in kinds:
        return rows, torch.zeros(len(ids))
    return rows, tensors.load(model, revision, {kinds["bias"]}, ids)[kinds["bias"]]


def _as_generated(logits: torch.Tensor, text: Any) -> torch.Tensor:
    """Logits as the family's language model returns them: scaled (Cohere, Granite, Falcon H1) or
    with a soft cap (Gemma 2)."""
    logits = logits * (getattr(text, "logit_scale", None) or 1.0)
    logits = logits / (getattr(text, "logits_scaling", None) or 1.0)
    logits = logits * (getattr(text, "lm_head_multiplier", None) or 1.0)
    if cap := getattr(text, "final_logit_softcapping", None):
        logits = torch.tanh(logits / cap) * cap
    return logits
