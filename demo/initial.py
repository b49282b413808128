"""Makes the initial weights: random, with three hints for so small a run.

* A token's embedding is made from its characters, so that words with one stem are similar; some
  dimensions (``FEATURES``) hold properties such as its length and whether it begins a word.
* One head of the first layer looks for the end of the user's turn: its output marks the tokens of
  the response.
* The second layer's heads look for earlier occurrences of a token at any distance, and report
  whether they are unmarked, and so in the prompt.

All weights are trained after that; none is frozen.
"""

from __future__ import annotations

import math
import zlib
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig, LlamaModel

FEATURES = (
    CONSTANT,
    TURN_END,
    LENGTH,
    BEGINS,
    LETTERS,
    ENDS,
    LONG,
    RARITY,
    IN_RESPONSE,
    IN_PROMPT,
    *SHARED,
) = range(17)
"""Dimensions of the residual stream that hold a feature at the start."""
SCALE = 1.0
"""Standard deviation of the embeddings."""
STRONG = 3.0
"""Size of the features that attention looks for, relative to ``SCALE``."""
SLOW = 0.005
"""Radians per token: rotary frequencies below it hardly depend on position, so they can match."""
MATCHING, MATCH = 2, 4.0
"""Heads that match tokens, and the strength of a match in the attention's logits."""
FAST, BACK = 0.3, 3.0
"""Radians per token from which frequencies locate a position, and the strength of that."""
_LOOKS = ((1.0, 0.0), (1.0, 1.0))
"""Per head, the weights of a word's rarity and of its presence in the prompt in attention."""
_GRAMS = 4096
"""Vectors for three-character pieces, which are hashed to them."""


def write(folder: Path, config: LlamaConfig, tokenizer: Any, seed: int) -> None:
    """Write a backbone without a head."""
    torch.manual_seed(seed)
    model = LlamaModel(config)
    with torch.no_grad():
        for layer in model.layers:
            _spread(layer, config)
        model.embed_tokens.weight.copy_(_embeddings(config, tokenizer))
        _mark_response(model.layers[0].self_attn, config)
        _look_back(model.layers[0].self_attn, config)
        _find_in_prompt(model.layers[1].self_attn, config)
        _share(model.layers[-1].self_attn, config)
    model.save_pretrained(folder)


def _spread(layer: Any, config: LlamaConfig) -> None:
    for name, weight in layer.named_parameters():
        if weight.ndim == 2:
            into_residual = name.endswith(("o_proj.weight", "down_proj.weight"))
            depth = SCALE if into_residual else 1.0
            weight.normal_(0.0, 0.7 * depth * weight.shape[1] ** -0.5)
            if into_residual:
                weight[[*FEATURES]] = 0.0


def _mark_response(attention: Any, config: LlamaConfig) -> None:
    """First head: every token attends to the end of the turn, whose value becomes IN_RESPONSE."""
    slowest = config.head_dim // 2 - 1  # it hardly depends on position in the whole context
    q, k, v = attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
    for weight in (q, k, v):
        weight[: config.head_dim] = 0.0
    q[slowest, CONSTANT] = 2.5
    k[slowest, TURN_END] = 2.5
    v[0, TURN_END] = 1.0
    attention.o_proj.weight[:, : config.head_dim] = 0.0
    attention.o_proj.weight[IN_RESPONSE, 0] = SCALE


def _look_back(attention: Any, config: LlamaConfig) -> None:
    """Second and third head: attend to the previous token and to the one before it."""
    half = config.head_dim // 2
    turns = torch.tensor([config.rope_parameters["rope_theta"] ** (-i / half) for i in range(half)])
    for head in (1, 2):
        rows = slice(head * config.head_dim, (head + 1) * config.head_dim)
        attention.q_proj.weight[rows] = 0.0
        attention.k_proj.weight[rows] = 0.0
        fast = torch.where(turns > FAST, BACK, 0.0)
        angles = -turns * head
        query = torch.cat([fast * angles.cos(), fast * angles.sin()])
        attention.q_proj.weight[rows, CONSTANT] = query
        attention.k_proj.weight[rows, CONSTANT] = torch.cat([fast, torch.zeros(half)])


def _find_in_prompt(attention: Any, config: LlamaConfig) -> None:
    """Heads with equal queries and keys at slow frequencies; the value is high in the prompt."""
    half = config.head_dim // 2
    base = config.rope_parameters["rope_theta"]
    slow = torch.tensor([base ** (-i / half) < SLOW for i in range(half)]).repeat(2)
    size = MATCHING * config.head_dim
    shared = torch.empty(size, config.hidden_size)
    torch.nn.init.orthogonal_(shared)
    shared *= slow.repeat(MATCHING).unsqueeze(1) * MATCH**0.5
    shared[:, [*FEATURES]] = 0.0
    attention.q_proj.weight[:size] = shared
    attention.k_proj.weight[:size] = shared
    first = torch.arange(MATCHING) * config.head_dim
    attention.v_proj.weight[first] = 0.0
    attention.v_proj.weight[first, CONSTANT] = 1.0
    attention.v_proj.weight[first, IN_RESPONSE] = -1.0
    attention.o_proj.weight[IN_PROMPT, first] = SCALE


def _share(attention: Any, config: LlamaConfig) -> None:
    """Heads that attend to the response's rare words, and to those that the prompt has too."""
    slowest = config.head_dim // 2 - 1
    q, k, v = attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight
    for head, (rarity, in_prompt) in enumerate(_LOOKS):
        start = head * config.head_dim
        for weight in (q, k, v):
            weight[start : start + config.head_dim] = 0.0
        q[start + slowest, CONSTANT] = 1.5
        k[start + slowest, IN_RESPONSE] = 2.0
        k[start + slowest, RARITY] = rarity
        k[start + slowest, IN_PROMPT] = in_prompt
        v[start, IN_PROMPT] = 1.0
        attention.o_proj.weight[:, start : start + config.head_dim] = 0.0
        attention.o_proj.weight[SHARED[head], start] = SCALE
    _average(attention, config, len(_LOOKS))


def _average(attention: Any, config: LlamaConfig, head: int) -> None:
    """A head that attends evenly to the response, and so returns the mean of some features."""
    rows = slice(head * config.head_dim, (head + 1) * config.head_dim)
    slowest = head * config.head_dim + config.head_dim // 2 - 1
    for weight in (attention.q_proj.weight, attention.k_proj.weight, attention.v_proj.weight):
        weight[rows] = 0.0
    attention.o_proj.weight[:, rows] = 0.0
    attention.q_proj.weight[slowest, CONSTANT] = 1.5
    attention.k_proj.weight[slowest, IN_RESPONSE] = 2.0
    for place, feature in enumerate((LENGTH, BEGINS, LETTERS, ENDS, LONG)):
        attention.v_proj.weight[rows.start + place, feature] = 1.0
        attention.o_proj.weight[SHARED[len(_LOOKS) + place], rows.start + place] = SCALE


def _embeddings(config: LlamaConfig, tokenizer: Any) -> torch.Tensor:
    """Random vectors of the tokens and of their three-character pieces, summed, with features."""
    size = config.hidden_size
    pieces = torch.randn(_GRAMS, size)
    rows = torch.randn(config.vocab_size, size)
    for index in range(config.vocab_size):
        text = tokenizer.decode([index])
        word = text.strip().lower()
        if len(word) > 1 and word.isalpha():
            marked = f"^{word}$"
            grams = [marked[i : i + 3] for i in range(len(marked) - 2)]
            hashes = [zlib.crc32(gram.encode()) % _GRAMS for gram in grams]
            rows[index] = 0.6 * rows[index] + 0.8 * pieces[hashes].sum(0) * len(hashes) ** -0.5
        rows[index, [*FEATURES]] = 0.0
        rows[index, CONSTANT] = STRONG
        rows[index, LENGTH] = (len(word) - 4) / 2
        rows[index, LONG] = float(len(word) > 6)
        rows[index, ENDS] = STRONG * float(any(mark in text for mark in ".!?:\n"))
        rows[index, BEGINS] = float(text[:1].isspace())
        rows[index, RARITY] = math.log2(index + 1) - 9.5  # merges are learned by frequency
        rows[index, LETTERS] = float(word.isalpha())
    rows[config.eos_token_id, TURN_END] = STRONG
    return SCALE * rows
