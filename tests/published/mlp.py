"""Published reward models whose head is two linear layers with a ReLU between them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch

from tests.published import templates
from tests.published.bodies import HIDDEN, Body, Tensors, body, labels, weight, write
from tests.published.published import Published, Values
from tests.published.rendering import Rendering
from tests.published.vocabularies import llama3, qwen


def inf_orm(folder: Path) -> Published:
    """INF-ORM-Llama3.1-70B: ``score.0`` [H, H], ``score.2`` [1, H], with biases.

    W2 relu(W1 h + b1) + b2 at the last token. From ``modeling.py`` of the model, as
    ``rewardbench/models/inform.py`` has it.
    """
    vocabulary = llama3(templates.LLAMA31, pad="<|eot_id|>")
    made = body("llama3.1", 128256, seed=31)
    head = _layers("score", (HIDDEN, HIDDEN, 1), seed=31)
    config = {"architectures": ["INFORMForSequenceClassification"], **made.config, **labels(1)}
    write(folder, config, {**made.tensors, **head}, form="sharded")
    vocabulary.write(folder)
    return Published(folder, Rendering(vocabulary), _reward(made, head, "score"))


def qwen25_math_rm(folder: Path) -> Published:
    """Qwen2.5-Math-RM-72B: ``Qwen2ForRewardModel``, the same head on Qwen 2.

    Read at the newline after the turn; a system turn is always there. From
    ``modeling_qwen2_rm.py`` of the model, as vLLM's ``qwen2_rm.py`` has it, and its card.
    """
    vocabulary = qwen(templates.QWEN25_MATH)
    rows = -(-vocabulary.tokenizer.get_vocab_size() // 64) * 64
    made = body("qwen2", rows, seed=32)
    head = _layers("score", (HIDDEN, HIDDEN, 1), seed=32)
    config = {
        "architectures": ["Qwen2ForRewardModel"],
        "auto_map": {"AutoConfig": "configuration_qwen2_rm.Qwen2RMConfig",
                     "AutoModel": "modeling_qwen2_rm.Qwen2ForRewardModel"},
        **made.config,
    }  # fmt: skip
    write(folder, config, {**made.tensors, **head})
    vocabulary.write(folder)
    return Published(folder, Rendering(vocabulary), _reward(made, head, "score"))


def grm_sftreg(folder: Path) -> Published:
    """GRM-llama3-8B-sftreg: a language model with ``v_head.summary.0`` and ``.2`` in its files.

    Read at the last token by the attention mask, though that is the pad token. From the model's
    ``ValueHead``, as ``rewardbench/models/grm.py`` has it.
    """
    vocabulary = llama3(templates.LLAMA3, release="3", pad="<|eot_id|>")
    made = body("llama3", 128256, seed=33, pad_token_id=128009)
    head = _layers("v_head.summary", (HIDDEN, 48, 1), seed=33)
    config = {
        "architectures": ["LlamaForCausalLM"],
        **made.config,
        "vhead_layer_type": "mlp",
        "vhead_num_layers": 1,
        "vhead_num_neurons": 48,
    }
    lm_head = {"lm_head.weight": weight(128256, HIDDEN, seed=34)}
    write(folder, config, {**made.tensors, **lm_head, **head})
    vocabulary.write(folder)
    return Published(folder, Rendering(vocabulary), _reward(made, head, "v_head.summary"))


def _layers(name: str, widths: Sequence[int], seed: int) -> Tensors:
    tensors = {}
    for layer, (into, out) in enumerate(pairwise(widths)):
        at = f"{name}.{2 * layer}"
        tensors[f"{at}.weight"] = weight(out, into, seed=seed + layer)
        tensors[f"{at}.bias"] = weight(out, seed=seed + layer + 10)
    return tensors


def _reward(made: Body, head: Tensors, name: str) -> Any:
    one, two = (
        (head[f"{name}.{place}.weight"].float(), head[f"{name}.{place}.bias"].float())
        for place in (0, 2)
    )

    def values(ids: Sequence[int]) -> Values:
        inner = torch.relu(one[0] @ made.hidden(ids)[-1] + one[1])
        return {"reward": float(two[0][0] @ inner + two[1][0])}

    return values
