"""Loads the backbone with a regression head on the last token."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING,
    AutoConfig,
    AutoModelForSequenceClassification,
    set_seed,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import tokenizer_file
from fivescore.model.checkpoint import check
from fivescore.training.recipe import Recipe

WEIGHT_FILES = ("*.safetensors", "*.bin", "*.index.json")
HEAD = "score"
"""The head's attribute in every decoder of transformers and in vLLM."""


class Head(nn.Linear):  # type: ignore[misc]  # torch is Any to mypy
    """A linear head without bias that computes in float32, whatever the body computes in."""

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        with torch.autocast(hidden.device.type, enabled=False):
            return nn.functional.linear(hidden.float(), self.weight.float())


class LastToken:
    """A mixin for ``*ForSequenceClassification``: applies the head to the last unmasked token.

    Transformers finds that token by the padding id, which may also end a text. The attention mask
    is exact, and gives the token of vLLM's LAST pooling.
    """

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **_: Any
    ) -> SequenceClassifierOutput:
        """Raw outputs ``[..., outputs]`` of right-padded ids ``[..., tokens]``."""
        ids, mask = input_ids.flatten(0, -2), attention_mask.flatten(0, -2)
        body = self.base_model(input_ids=ids, attention_mask=mask, use_cache=False)  # type: ignore[attr-defined]
        hidden = body.last_hidden_state
        last = hidden[torch.arange(len(ids), device=ids.device), mask.sum(-1) - 1]
        logits = self.score(last)  # type: ignore[attr-defined]
        return SequenceClassifierOutput(logits=logits.view(*input_ids.shape[:-1], -1))


def load_tokenizer(recipe: Recipe) -> Any:
    """The backbone's tokenizer, with ``--chat-template`` if the recipe has one.

    Raises:
        ConfigurationError: one of them cannot be read.
    """
    check(recipe.model)
    tokenizer = _load(recipe, "tokenizer", tokenizer_file.read)
    if recipe.chat_template is not None:
        try:
            tokenizer.chat_template = recipe.chat_template.read_text()
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigurationError(
                f"--chat-template {recipe.chat_template}: {first_line(error)}"
            ) from error
    return tokenizer


def load_config(recipe: Recipe) -> Any:
    """The backbone's ``config.json``.

    Raises:
        ConfigurationError: it cannot be read, or its model type has no sequence classification.
    """
    config = _load(recipe, "config.json", AutoConfig.from_pretrained)
    if type(config) not in MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING:
        raise ConfigurationError(
            f"--model {recipe.model}: transformers has no sequence classification for"
            f" {config.model_type}"
        )
    return config


def context_of(config: Any) -> int | None:
    """The context of the backbone in tokens; None if its configuration does not have one."""
    return getattr(config.get_text_config(), "max_position_embeddings", None)


def is_untrained(model: str) -> bool:
    """Whether ``model`` is a folder with a configuration and no weights."""
    folder = Path(model)
    return folder.is_dir() and not any(any(folder.glob(files)) for files in WEIGHT_FILES)


def has_head(recipe: Recipe, config: Any) -> bool:
    """Whether the backbone already has a trained head, as any sequence classifier does."""
    classifies = any("ForSequenceClassification" in name for name in config.architectures or ())
    return classifies and not is_untrained(recipe.model)


def load_model(recipe: Recipe, config: Any, attributes: Sequence[str], dtype: str) -> Any:
    """The model with its own head, or with a new one of one output per attribute.

    Weights are float32, because small steps would round away in bfloat16, and the body computes in
    ``dtype``. Only a body that LoRA freezes has its weights in ``dtype``. Random weights come from
    the recipe's seed.

    Raises:
        ConfigurationError: the weights cannot be loaded, or the model has no linear head.
    """
    original = MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    kind = type(original.__name__, (LastToken, original), {"__module__": original.__module__})
    is_new = not has_head(recipe, config)
    if is_new:
        config.id2label = dict(enumerate(attributes))
        config.label2id = {name: index for index, name in enumerate(attributes)}
    config.problem_type = "regression"
    set_seed(recipe.seed)
    model = _load_weights(recipe, kind, config, dtype if recipe.lora_rank else "float32")
    head = getattr(model, HEAD, None)
    if not isinstance(head, nn.Linear) or head.bias is not None:
        raise ConfigurationError(
            f"--model {recipe.model}: {original.__name__} has no linear layer '{HEAD}' without bias"
            " on the last token: choose a decoder"
        )
    model.score = _float_head(head, recipe.seed if is_new else None)
    return _with_lora(model, recipe) if recipe.lora_rank else model


def _load_weights(recipe: Recipe, kind: Any, config: Any, dtype: str) -> Any:
    options = {"dtype": getattr(torch, dtype)}
    capped = getattr(config.get_text_config(), "attn_logit_softcapping", None)
    if recipe.attention is not None or capped:
        # The default implementation leaves out the cap, and the engine does not.
        options["attn_implementation"] = recipe.attention or "eager"
    try:
        if is_untrained(recipe.model):
            # Transformers makes random weights for its own classes alone.
            model = AutoModelForSequenceClassification.from_config(config, **options)
            model.__class__ = kind
            return model
        return kind.from_pretrained(
            recipe.model, config=config, revision=recipe.revision, **options
        )
    except Exception as error:  # the library raises many kinds for a checkpoint that is wrong
        raise ConfigurationError(
            f"--model {recipe.model}: its weights cannot be loaded: {first_line(error)}"
        ) from error


def _float_head(head: nn.Linear, seed: int | None) -> Head:
    """The head in float32; with a seed a new one, so near 0 that the offsets decide at first."""
    made = Head(head.in_features, head.out_features, bias=False, dtype=torch.float32)
    with torch.no_grad():
        if seed is None:
            made.weight.copy_(head.weight)
        else:  # as OpenRLHF initialises value heads
            generator = torch.Generator().manual_seed(seed)
            made.weight.normal_(0.0, 1 / (head.in_features + 1), generator=generator)
    return made


def _with_lora(model: Any, recipe: Recipe) -> Any:
    from peft import LoraConfig, TaskType, get_peft_model

    targets = "all-linear" if recipe.lora_targets is None else list(recipe.lora_targets)
    settings = LoraConfig(
        task_type=TaskType.SEQ_CLS,
        r=recipe.lora_rank,
        lora_alpha=recipe.lora_alpha or 2 * recipe.lora_rank,
        lora_dropout=recipe.lora_dropout or 0.0,
        target_modules=targets,
        modules_to_save=[HEAD],
    )
    try:
        return get_peft_model(model, settings)
    except ValueError as error:
        raise ConfigurationError(f"--lora-targets: {first_line(error)}") from error


def _load(recipe: Recipe, what: str, load: Callable[..., Any]) -> Any:
    try:
        return load(recipe.model, revision=recipe.revision)
    except Exception as error:  # the library raises many kinds for a checkpoint that is wrong
        raise ConfigurationError(
            f"--model {recipe.model}: its {what} cannot be loaded: {first_line(error)}"
        ) from error
