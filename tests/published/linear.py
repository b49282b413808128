"""Published reward models whose head is one linear layer, under all the names it has."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from tests.published import templates
from tests.published.bodies import HIDDEN, Body, Tensors, body, labels, weight, write
from tests.published.published import Published, Values
from tests.published.rendering import Rendering
from tests.published.vocabularies import Vocabulary, gemma, internlm2, llama3, qwen


def skywork_llama(folder: Path) -> Published:
    """Skywork-Reward-Llama-3.1-8B, V1, V2 and ``-v0.2``: ``LlamaForSequenceClassification``.

    Read at the last token. From the models' cards (``AutoModelForSequenceClassification``,
    ``num_labels=1``) and transformers' class.
    """
    vocabulary = llama3(templates.LLAMA31, added=("[PAD]",), pad="[PAD]")
    made = body("llama3.1", 128257, seed=1, pad_token_id=128256)
    return _classifier(folder, made, vocabulary, "LlamaForSequenceClassification")


def skywork_qwen3(folder: Path) -> Published:
    """Skywork-Reward-V2-Qwen3: ``Qwen3ForSequenceClassification``, embeddings tied.

    The template looks for ``</think>`` and writes an empty block of thoughts. From the card.
    """
    vocabulary = qwen(templates.QWEN3)
    rows, pad = _rows(vocabulary, "<|endoftext|>")
    made = body("qwen3", rows, seed=2, pad_token_id=pad)
    return _classifier(folder, made, vocabulary, "Qwen3ForSequenceClassification")


def skywork_gemma2(folder: Path) -> Published:
    """Skywork-Reward-Gemma-2-27B and GRM-gemma2-2B-rewardmodel-ft, in two shards.

    ``Gemma2ForSequenceClassification``, read at the newline after the turn. From the cards.
    """
    vocabulary = gemma(templates.GEMMA2)
    made = body("gemma2", _rows(vocabulary)[0], seed=3)
    return _classifier(folder, made, vocabulary, "Gemma2ForSequenceClassification", form="sharded")


def tulu(folder: Path) -> Published:
    """allenai's Llama-3.1-Tulu-3-8B-RM and the RewardBench 2 models: a pad token of their own.

    Read at the last token that is not pad. From open-instruct's ``reward_modeling.py``.
    """
    vocabulary = llama3(templates.TULU3, added=("<pad>",), eos="<|end_of_text|>", pad="<pad>")
    made = body("llama3.1", 128264, seed=4, pad_token_id=128256, eos_token_id=128001)
    return _classifier(folder, made, vocabulary, "LlamaForSequenceClassification")


def fsfairx(folder: Path) -> Published:
    """FsfairX-LLaMA3-RM-v0.1: Llama 3, ``[PAD]`` added, weights in ``.bin`` as older models have.

    From the card.
    """
    vocabulary = llama3(templates.LLAMA3, release="3", added=("[PAD]",), pad="[PAD]")
    made = body("llama3", 128257, seed=5, pad_token_id=128256)
    return _classifier(folder, made, vocabulary, "LlamaForSequenceClassification", form="bin")


def trl(folder: Path) -> Published:
    """A model of TRL's ``RewardTrainer``: where the tokenizer has no pad token, pad is EOS.

    The template ends with that token, and transformers' classes read the last one that is not pad.
    From TRL's ``reward_trainer.py`` and transformers' ``GenericForSequenceClassification``.
    """
    vocabulary = llama3(templates.LLAMA3, pad="<|eot_id|>")
    made = body("llama3.1", 128256, seed=6, pad_token_id=128009)
    return _classifier(folder, made, vocabulary, "LlamaForSequenceClassification", pad=128009)


def ms_swift(folder: Path) -> Published:
    """ms-swift's ``swift rlhf --rlhf_type rm``: a classifier.

    ``problem_type`` stands in the config of one that was trained with labels, as transformers'
    classes set it for one output; the reward is the plain output all the same.
    """
    vocabulary = qwen(templates.CHATML, pad="<|endoftext|>")
    rows, pad = _rows(vocabulary, "<|endoftext|>")
    made = body("qwen2", rows, seed=7, pad_token_id=pad, problem_type="regression")
    return _classifier(folder, made, vocabulary, "Qwen2ForSequenceClassification")


def openrlhf_score(folder: Path) -> Published:
    """OpenRLHF's default ``score``, with the labels' mean and std in config.json, normalised.

    At the last token, which is always EOS: (W h - mean) / std. From OpenRLHF's ``models/model.py``
    and ``datasets/reward_dataset.py``.
    """
    vocabulary = llama3(templates.LLAMA3, pad="<|eot_id|>")
    made = body("llama3.1", 128256, seed=8, pad_token_id=128009)
    return _openrlhf(folder, made, vocabulary, "score", mean=0.31, std=1.7)


def openrlhf_value_head(folder: Path) -> Published:
    """OpenRLHF with ``value_head_prefix``, on ChatML, whose last newline it does not keep.

    From the same files as ``openrlhf_score``.
    """
    vocabulary = qwen(templates.CHATML)
    made = body("qwen2", _rows(vocabulary)[0], seed=9)
    return _openrlhf(folder, made, vocabulary, "value_head", mean=-1.25, std=0.6)


def llama_factory(folder: Path) -> Published:
    """LLaMA-Factory: a language model in one file, ``value_head.safetensors`` beside it.

    W h + b of the last token by the attention mask, W and b in float32. From LLaMA-Factory's
    ``fix_valuehead_checkpoint`` (``train/callbacks.py``) and ``train/rm/trainer.py``; the head is
    TRL's ``ValueHead``.
    """
    return _value_head(folder, seed=10)


def llama_factory_sharded(folder: Path) -> Published:
    """The same with the language model in shards, its embeddings tied, and pad at the end.

    Where a tokenizer has no pad token, LLaMA-Factory takes EOS for it.
    """
    return _value_head(folder, seed=11, form="sharded", tied=True, ends_with_pad=True)


def llama_factory_bin(folder: Path) -> Published:
    """The same in ``.bin`` files (``save_safetensors`` false)."""
    return _value_head(folder, seed=12, form="bin")


def athene(folder: Path) -> Published:
    """Athene-RM-8B: ``v_head.weight``, read at a cls token (128003) after the conversation.

    From the class ``AtheneForSequenceClassification`` and its pipeline on the card.
    """
    cls = "<|reserved_special_token_1|>"
    vocabulary = llama3(templates.LLAMA3, release="3", cls=cls, pad="<|eot_id|>")
    assert vocabulary.tokenizer.token_to_id(cls) == 128003
    made = body("llama3", 128256, seed=13)
    head = weight(1, HIDDEN, seed=13)
    config = {"architectures": ["CustomAutoModelForSequenceClassification"], **made.config}
    write(folder, config, {**made.tensors, "v_head.weight": head})
    vocabulary.write(folder)
    return Published(folder, Rendering(vocabulary, suffix=cls), _last(made, head))


def internlm2_reward(folder: Path) -> Published:
    """internlm2-*-reward: ``InternLM2ForRewardModel``, a body with names and layout of its own.

    ``attention.wqkv`` holds per group of keys its queries, the key, the value; read at
    ``reward_token_id``, which stands last. From ``modeling_internlm2.py`` of the models.
    """
    vocabulary = internlm2(templates.INTERNLM2)
    reward = vocabulary.tokenizer.token_to_id("<|reward|>")
    made = body("llama3", _rows(vocabulary)[0], seed=14, num_attention_heads=2)
    head = weight(1, HIDDEN, seed=14)
    names = ("hidden_size", "intermediate_size", "max_position_embeddings", "num_attention_heads",
             "num_hidden_layers", "num_key_value_heads", "rms_norm_eps", "torch_dtype",
             "vocab_size", "initializer_range", "hidden_act", "rope_theta",
             "use_cache")  # fmt: skip
    config = {
        "architectures": ["InternLM2ForRewardModel"],
        "attn_implementation": "eager",
        "auto_map": {"AutoConfig": "configuration_internlm2.InternLM2Config",
                     "AutoModel": "modeling_internlm2.InternLM2ForRewardModel"},
        "bias": False,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "model_type": "internlm2",
        "pad_token_id": 2,
        "reward_token_id": reward,
        "rope_scaling": {"factor": 1.0, "type": "dynamic"},
        "tie_word_embeddings": False,
        **{name: made.config[name] for name in names},
    }  # fmt: skip
    write(folder, config, {**_as_internlm2(made), "v_head.weight": head})
    vocabulary.write(folder)
    return Published(folder, Rendering(vocabulary, suffix="<|reward|>"), _last(made, head))


def _classifier(
    folder: Path,
    made: Body,
    vocabulary: Vocabulary,
    architecture: str,
    *,
    form: str = "single",
    pad: int | None = None,
) -> Published:
    """transformers' own class: ``score.weight`` [1, H].

    Args:
        pad: a token that the template ends with and the head is not read at.
    """
    head = weight(1, HIDDEN, seed=100 + HIDDEN)
    config = {"architectures": [architecture], **made.config, **labels(1)}
    write(folder, config, {**made.tensors, "score.weight": head}, form=form)
    vocabulary.write(folder)
    values = _last(made, head, pad=pad)
    direct = () if pad is None else None
    return Published(folder, Rendering(vocabulary), values, direct=direct, unread=pad)


def _openrlhf(
    folder: Path, made: Body, vocabulary: Vocabulary, name: str, *, mean: float, std: float
) -> Published:
    head = weight(1, HIDDEN, seed=200)
    config = {
        "architectures": ["RewardModel"],
        **made.config,
        "mean": mean,
        "normalize_reward": True,
        "std": std,
        "value_head_prefix": name,
    }
    write(folder, config, {**made.tensors, f"{name}.weight": head})
    vocabulary.write(folder)
    raw = _last(made, head)

    def values(ids: Sequence[int]) -> Values:
        return {"reward": (raw(ids)["reward"] - mean) / std}

    return Published(folder, Rendering(vocabulary, end="eos"), values)


def _value_head(
    folder: Path,
    seed: int,
    *,
    form: str = "single",
    tied: bool = False,
    ends_with_pad: bool = False,
) -> Published:
    template, pads = templates.CHATML, {}
    if ends_with_pad:
        template = template.replace("<|im_end|>\n", "<|im_end|>")
        pads = {"pad_token_id": qwen(template).tokenizer.token_to_id("<|im_end|>")}
    vocabulary = qwen(template, pad="<|im_end|>" if ends_with_pad else "<|endoftext|>")
    rows, _ = _rows(vocabulary)
    made = body("qwen2", rows, seed=seed, tie_word_embeddings=tied, **pads)
    tensors = dict(made.tensors)
    if not tied:
        tensors["lm_head.weight"] = weight(rows, HIDDEN, seed=seed)
    write(folder, {"architectures": ["Qwen2ForCausalLM"], **made.config}, tensors, form=form)
    vocabulary.write(folder)
    head = weight(1, HIDDEN, seed=seed + 1, dtype=torch.float32)
    bias = weight(1, seed=seed + 2, dtype=torch.float32)
    write_value_head(folder, head, bias, form=form)
    return Published(folder, Rendering(vocabulary), _last(made, head, bias))


def write_value_head(folder: Path, head: Any, bias: Any, *, form: str = "single") -> None:
    """TRL's ``ValueHead`` in a file of its own."""
    tensors = {"v_head.summary.bias": bias, "v_head.summary.weight": head}
    if form == "bin":
        torch.save(tensors, folder / "value_head.bin")
    else:
        save_file(tensors, folder / "value_head.safetensors", metadata={"format": "pt"})


def _last(made: Body, head: Any, bias: Any = None, *, pad: int | None = None) -> Any:
    """W h + b at the last token, or at the last that is not ``pad``."""

    def values(ids: Sequence[int]) -> Values:
        at = max(place for place, id_ in enumerate(ids) if id_ != pad)
        reward = made.hidden(ids)[at] @ head.float()[0]
        return {"reward": float(reward if bias is None else reward + bias.float()[0])}

    return values


def _rows(vocabulary: Vocabulary, token: str = "") -> tuple[int, int | None]:
    """Rows of the embedding, a multiple of 64 above the tokenizer's, and a token's id."""
    tokenizer = vocabulary.tokenizer
    return -(-tokenizer.get_vocab_size() // 64) * 64, tokenizer.token_to_id(token)


def _as_internlm2(made: Body) -> Tensors:
    """A Llama body's tensors as InternLM2 names and packs them."""
    heads, groups = made.config["num_attention_heads"], made.config["num_key_value_heads"]
    size = HIDDEN // heads
    old = made.tensors
    tensors = {
        "model.tok_embeddings.weight": old["model.embed_tokens.weight"],
        "model.norm.weight": old["model.norm.weight"],
    }
    for layer in range(made.config["num_hidden_layers"]):
        at = f"model.layers.{layer}"
        q, k, v = (old[f"{at}.self_attn.{name}_proj.weight"] for name in "qkv")
        packed = [
            q.view(groups, heads // groups, size, HIDDEN),
            k.view(groups, 1, size, HIDDEN),
            v.view(groups, 1, size, HIDDEN),
        ]
        tensors |= {
            f"{at}.attention.wqkv.weight": torch.cat(packed, 1).reshape(-1, HIDDEN),
            f"{at}.attention.wo.weight": old[f"{at}.self_attn.o_proj.weight"],
            f"{at}.attention_norm.weight": old[f"{at}.input_layernorm.weight"],
            f"{at}.feed_forward.w1.weight": old[f"{at}.mlp.gate_proj.weight"],
            f"{at}.feed_forward.w2.weight": old[f"{at}.mlp.down_proj.weight"],
            f"{at}.feed_forward.w3.weight": old[f"{at}.mlp.up_proj.weight"],
            f"{at}.ffn_norm.weight": old[f"{at}.post_attention_layernorm.weight"],
        }
    return tensors
