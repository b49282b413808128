"""Published reward models that weigh several outputs by a gate."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import selu, softmax

from tests.published import templates
from tests.published.bodies import HIDDEN, Tensors, body, labels, weight, write
from tests.published.published import Published, Values
from tests.published.rendering import Rendering
from tests.published.vocabularies import gemma, llama3

FIVE = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""The first objectives of ArmoRM and QRM, in their order (cards)."""
OBJECTIVES = 19
PATTERN = [128009, 128006, 78191, 128007, 271]
"""What stands between the prompt and the response (``modeling_custom.py`` of ArmoRM)."""
GEMMA2_PATTERN = [107, 108, 106, 2516, 108]
"""The same for Gemma 2 (``armo-rm/stage-2_prepare.py`` of RLHFlow/RLHF-Reward-Modeling)."""
TEMPERATURE = 10.0
WIDTH = 32
"""Of the gate's inner layers."""
QUANTILES = 5


def armorm(folder: Path) -> Published:
    """ArmoRM-Llama3-8B-v0.1: ``LlamaForRewardModelWithGating``.

    r = W h at the last token; g = softmax(MLP(h_j) / 10) * logit_scale, with ReLU between the
    layers, where j is the first token of the last ``PATTERN``; the reward is sum(g * (r T)). An
    objective of HelpSteer is 5 r - 0.5. From ``modeling_custom.py`` and the card.
    """
    vocabulary = llama3(templates.LLAMA3, release="3", added=("[PAD]",), pad="[PAD]")
    made = body("llama3", 128257, seed=41, pad_token_id=128256)
    regression = weight(OBJECTIVES, HIDDEN, seed=41)
    transform = _transform(seed=42)
    gate, scale = _gate(seed=43), torch.tensor([1.31], dtype=torch.bfloat16)
    config = {
        "architectures": ["LlamaForRewardModelWithGating"],
        "auto_map": {"AutoModelForSequenceClassification":
                     "modeling_custom.LlamaForRewardModelWithGating"},
        **made.config,
        "gating_hidden_dim": WIDTH,
        "gating_n_hidden": 3,
        "gating_temperature": TEMPERATURE,
        "num_objectives": OBJECTIVES,
        **labels(1),
    }  # fmt: skip
    head = {"regression_layer.weight": regression, "reward_transform_matrix": transform,
            "gating.logit_scale": scale, **gate}  # fmt: skip
    write(folder, config, {**made.tensors, **head}, form="sharded")
    vocabulary.write(folder)

    def values(ids: Sequence[int]) -> Values:
        hidden = made.hidden(ids)
        state = hidden[_gated_at(ids)]
        for layer in range(3):
            state = torch.relu(_linear(gate, layer, state))
        weights = softmax(_linear(gate, 3, state) / TEMPERATURE, dim=0) * scale.float()
        rewards = regression.float() @ hidden[-1]
        return {
            **_named(rewards * 5 - 0.5),
            "reward": float(weights @ (rewards @ transform.float())),
        }

    return Published(folder, Rendering(vocabulary), values)


def qrm(folder: Path) -> Published:
    """QRM-Llama3.1-8B: quantiles of each objective, and a gate with BatchNorm after each ReLU.

    r is the mean over the quantiles of ``regression_layer``, whose rows are the quantiles of the
    first objective, then those of the second. The inner layers of the gate have no bias; BatchNorm
    stands as in evaluation, with torch's eps of 1e-5. Otherwise as ArmoRM. From
    ``rewardbench/models/qrm.py`` (``LlamaForRewardModelWithGating31``).
    """
    vocabulary = llama3(templates.LLAMA31, pad="<|finetune_right_pad_id|>")
    made = body("llama3.1", 128256, seed=44)
    regression = weight(OBJECTIVES * QUANTILES, HIDDEN, seed=44)
    transform = _transform(seed=45)
    gate, scale = _normed_gate(seed=46), torch.tensor([0.87], dtype=torch.bfloat16)
    config = {
        "architectures": ["LlamaForRewardModelWithGating31"],
        "auto_map": {"AutoModelForSequenceClassification":
                     "modeling_custom.LlamaForRewardModelWithGating31"},
        **made.config,
        "gating_hidden_dim": WIDTH,
        "gating_n_hidden": 3,
        "gating_temperature": TEMPERATURE,
        "num_objectives": OBJECTIVES,
        "num_quantiles": QUANTILES,
        **labels(1),
    }  # fmt: skip
    head = {"regression_layer.weight": regression, "reward_transform_matrix": transform,
            "gating.logit_scale": scale, **gate}  # fmt: skip
    write(folder, config, {**made.tensors, **head})
    vocabulary.write(folder)

    def values(ids: Sequence[int]) -> Values:
        hidden = made.hidden(ids)
        state = hidden[_gated_at(ids)]
        for layer in (0, 3, 6):
            state = torch.relu(gate[f"gating.layers.{layer}.weight"].float() @ state)
            state = _normed(gate, layer + 2, state)
        weights = softmax(_linear(gate, 9, state) / TEMPERATURE, dim=0) * scale.float()
        quantiles = (regression.float() @ hidden[-1]).view(OBJECTIVES, QUANTILES)
        rewards = quantiles.mean(1) @ transform.float()
        return {**_named(rewards), "reward": float(weights @ rewards)}

    return Published(folder, Rendering(vocabulary), values)


def qrm_gemma(folder: Path) -> Published:
    """QRM-Gemma-2-27B: five objectives of 19 quantiles, dropout in the gate, no transform.

    The gate's layers are numbered with the dropout after all but its last norm, and its temperature
    is 1 where config.json does not say. From an implementation that names the checkpoint's tensors
    (``scoring/qrm.py``, after ``modeling_custom.py`` of nicolinho/QRM-Gemma-2-27B).
    """
    vocabulary = gemma(templates.GEMMA2)
    rows = -(-vocabulary.tokenizer.get_vocab_size() // 64) * 64
    made = body("gemma2", rows, seed=71)
    objectives, quantiles = len(FIVE), OBJECTIVES
    regression = weight(objectives * quantiles, HIDDEN, seed=71)
    inner = (0, 4, 8)
    gate = _normed_gate(seed=72, inner=inner, last=11, out=objectives, width=0.2)
    scale = torch.tensor([1.12], dtype=torch.bfloat16)
    config = {
        "architectures": ["Gemma2ForRewardModelWithGating"],
        **made.config,
        "gating_hidden_dim": WIDTH,
        "gating_n_hidden": 3,
        "num_objectives": objectives,
        "num_quantiles": quantiles,
        **labels(1),
    }
    head = {"regression_layer.weight": regression, "gating.logit_scale": scale, **gate}
    write(folder, config, {**made.tensors, **head})
    vocabulary.write(folder)

    def values(ids: Sequence[int]) -> Values:
        hidden = made.hidden(ids)
        state = hidden[_gated_at(ids, GEMMA2_PATTERN)]
        for layer in inner:
            state = torch.relu(gate[f"gating.layers.{layer}.weight"].float() @ state)
            state = _normed(gate, layer + 2, state)
        weights = softmax(_linear(gate, 11, state), dim=0) * scale.float()
        rewards = (regression.float() @ hidden[-1]).view(objectives, quantiles).mean(1)
        return {**_named(rewards), "reward": float(weights @ rewards)}

    return Published(folder, Rendering(vocabulary), values)


def urm(folder: Path) -> Published:
    """URM-LLaMa-3.1-8B: means of five attributes, weighed by a SELU network at the last token.

    ``score`` [10, H] has each attribute's mean, then its log-variance; the reward is
    sum(mean_i * fc(h)_i), without a softmax. From SGLang's ``llama_reward.py``
    (``LlamaForSequenceClassificationWithNormal_Weights``).
    """
    vocabulary = llama3(templates.LLAMA31, pad="<|eot_id|>")
    made = body("llama3.1", 128256, seed=47)
    score = weight(10, HIDDEN, seed=47)
    layers: Tensors = {}
    for place, out in ((0, HIDDEN), (2, HIDDEN), (4, 5)):
        layers[f"weights.fc.{place}.weight"] = weight(out, HIDDEN, seed=48 + place, width=0.15)
        layers[f"weights.fc.{place}.bias"] = weight(out, seed=58 + place)
    config = {
        "architectures": ["LlamaForSequenceClassificationWithNormal_Weights"],
        "auto_map": {"AutoModelForSequenceClassification":
                     "modeling_custom.LlamaForSequenceClassificationWithNormal_Weights"},
        **made.config,
        **labels(10),
    }  # fmt: skip
    write(folder, config, {**made.tensors, "score.weight": score, **layers})
    vocabulary.write(folder)

    def values(ids: Sequence[int]) -> Values:
        last = made.hidden(ids)[-1]
        state = last
        for place in (0, 2, 4):
            state = layers[f"weights.fc.{place}.weight"].float() @ state
            state = state + layers[f"weights.fc.{place}.bias"].float()
            state = selu(state) if place < 4 else state
        means = (score.float() @ last).view(5, 2)[:, 0]
        return {**_named(means), "reward": float(means @ state)}

    return Published(folder, Rendering(vocabulary), values)


def _named(rewards: Any) -> Values:
    """HelpSteer's five attributes, the first objectives."""
    return {name: float(rewards[place]) for place, name in enumerate(FIVE)}


def _gated_at(ids: Sequence[int], pattern: Sequence[int] = PATTERN) -> int:
    """Where the last ``pattern`` begins."""
    starts = range(len(ids) - len(pattern), -1, -1)
    return next(at for at in starts if list(ids[at : at + len(pattern)]) == pattern)


def _transform(seed: int) -> Any:
    """The identity, less what the objectives have in common with verbosity."""
    made = torch.eye(OBJECTIVES)
    made[4] = -weight(OBJECTIVES, seed=seed, dtype=torch.float32).abs()
    made[4, 4] = 1.0
    return made.to(torch.bfloat16)


def _gate(seed: int) -> Tensors:
    widths = (HIDDEN, WIDTH, WIDTH, WIDTH, OBJECTIVES)
    tensors: Tensors = {}
    for layer, (into, out) in enumerate(pairwise(widths)):
        # Wide, as the temperature makes the weights nearly equal otherwise.
        tensors[f"gating.layers.{layer}.weight"] = weight(out, into, seed=seed + layer, width=0.7)
        tensors[f"gating.layers.{layer}.bias"] = weight(out, seed=seed + layer + 10)
    return tensors


def _normed_gate(
    seed: int,
    *,
    inner: Sequence[int] = (0, 3, 6),
    last: int = 9,
    out: int = OBJECTIVES,
    width: float = 2.0,
) -> Tensors:
    """A gate with a norm two places after each inner layer.

    Args:
        last: the place of the last layer.
        width: of its weights; the temperature makes the weights nearly equal if it is small.
    """
    tensors: Tensors = {}
    into = HIDDEN
    for layer in inner:
        norm = f"gating.layers.{layer + 2}"
        tensors |= {
            f"gating.layers.{layer}.weight": weight(WIDTH, into, seed=seed + layer),
            f"{norm}.weight": 1 + weight(WIDTH, seed=seed + layer + 10),
            f"{norm}.bias": weight(WIDTH, seed=seed + layer + 20),
            f"{norm}.running_mean": weight(WIDTH, seed=seed + layer + 30).abs(),
            f"{norm}.running_var": 0.5 + weight(WIDTH, seed=seed + layer + 40).abs(),
            f"{norm}.num_batches_tracked": torch.tensor(1000),
        }
        into = WIDTH
    tensors[f"gating.layers.{last}.weight"] = weight(out, WIDTH, seed=seed + 50, width=width)
    tensors[f"gating.layers.{last}.bias"] = weight(out, seed=seed + 51)
    return tensors


def _linear(tensors: Tensors, layer: int, state: Any) -> Any:
    at = f"gating.layers.{layer}"
    return tensors[f"{at}.weight"].float() @ state + tensors[f"{at}.bias"].float()


def _normed(tensors: Tensors, layer: int, state: Any) -> Any:
    mean, var, scale, shift = (
        tensors[f"gating.layers.{layer}.{name}"].float()
        for name in ("running_mean", "running_var", "weight", "bias")
    )
    return (state - mean) / torch.sqrt(var + 1e-5) * scale + shift
