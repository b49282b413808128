"""Published models that are not reward models of a response, and a head that nobody knows."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from transformers import DebertaV2Config, DebertaV2ForSequenceClassification

from tests.published import templates
from tests.published.bodies import HIDDEN, body, labels, weight, write
from tests.published.vocabularies import llama3, qwen


class Refused(NamedTuple):
    """A checkpoint, and words that its refusal has."""

    make: Callable[[Path], Path]
    words: tuple[str, ...]


def math_prm(folder: Path) -> Path:
    """Qwen2.5-Math-PRM: two outputs at each ``<extra_0>``, one score a step.

    From ``modeling_qwen2_rm.py`` of the model, as vLLM's ``qwen2_rm.py`` has it.
    """
    vocabulary = qwen(templates.QWEN25_MATH)
    rows = -(-vocabulary.tokenizer.get_vocab_size() // 64) * 64
    made = body("qwen2", rows, seed=61)
    head = {
        "score.0.weight": weight(HIDDEN, HIDDEN, seed=61),
        "score.0.bias": weight(HIDDEN, seed=62),
        "score.2.weight": weight(2, HIDDEN, seed=63),
        "score.2.bias": weight(2, seed=64),
    }
    config = {"architectures": ["Qwen2ForProcessRewardModel"], **made.config, **labels(2)}
    write(folder, config, {**made.tensors, **head})
    vocabulary.write(folder)
    return folder


def deberta(folder: Path) -> Path:
    """OpenAssistant's reward-model-deberta-v3-large-v2: an encoder of a pair of sentences."""
    config = DebertaV2Config(
        vocab_size=700, hidden_size=HIDDEN, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=HIDDEN, num_labels=1, relative_attention=True,
    )  # fmt: skip
    DebertaV2ForSequenceClassification(config).save_pretrained(folder)
    qwen(templates.CHATML).write(folder)
    return folder


def unknown(folder: Path) -> Path:
    """A head under a name, and of a shape, that no published model has."""
    vocabulary = llama3(templates.LLAMA3)
    made = body("llama3", 128256, seed=65)
    head = {
        "oracle.query.weight": weight(8, HIDDEN, seed=65),
        "oracle.memory": weight(8, 16, seed=66),
    }
    config = {"architectures": ["LlamaForOracleReward"], **made.config, **labels(1)}
    write(folder, config, {**made.tensors, **head})
    vocabulary.write(folder)
    return folder


def language_model(folder: Path) -> Path:
    """A language model that nothing says to be a reward model."""
    vocabulary = llama3(templates.LLAMA3)
    made = body("llama3", 128256, seed=67)
    head = {"lm_head.weight": weight(128256, HIDDEN, seed=67)}
    write(folder, {"architectures": ["LlamaForCausalLM"], **made.config}, {**made.tensors, **head})
    vocabulary.write(folder)
    return folder


REFUSED = {
    "Qwen2.5-Math-PRM": Refused(math_prm, ("process", "step")),
    "deberta": Refused(deberta, ("DebertaV2ForSequenceClassification", "causal")),
    "an unknown head": Refused(unknown, ("oracle",)),
    "a language model": Refused(language_model, ("language model",)),
}
