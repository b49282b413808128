"""What a checkpoint's config.json says is served, and the kinds of models that cannot be."""

from __future__ import annotations

import logging
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError
from fivescore.model.engine_options import combined, merged
from fivescore.settings import Settings

log = logging.getLogger(__name__)

MOST_CHARACTERS = 200
"""Characters of a refusal; the model's name is cut from its start to keep to them."""
LEAST_OF_A_NAME = 20
ADAPTER = "adapter_config.json"
ELSEWHERE = frozenset({"hf_config_path", "config_format", "model_weights"})
"""Engine options by which vLLM reads a configuration or weights that are not the folder's own."""
SUFFIXES = (
    "ForSequenceClassification", "ForCausalLM", "ForConditionalGeneration", "LMHeadModel",
    "ChatModel", "Model",
)  # fmt: skip
"""Ends of the names of classes that vLLM serves with one linear layer as head."""
DEFAULT_OUTPUTS = 2
"""What transformers takes for a configuration that declares no labels."""
STEPS = re.compile(r"Process|PRM|Prm|ForTokenClassification")
OWN_HEAD = re.compile(r"Reward|^Custom|^Auto|Gating|ValueHead|Critic|Ranking")
NOT_CAUSAL = re.compile(
    r"(?i:bert)(?!Decoder)|Bidirec|Bi(?=Model|For)|Encoder|Embed|(?<!GP)T5|(?i:electra)|PaliGemma"
    r"|^New(?=Model|For)"  # gte's encoders
)


@dataclass(frozen=True, slots=True)
class Architecture:
    """What config.json says, after the engine's ``hf_overrides``.

    Args:
        model: the checkpoint's name in errors.
        name: the class that the weights are for, such as ``LlamaForSequenceClassification``; empty
            where config.json names none.
        content: config.json.
        config: transformers' configuration; None where this transformers does not know the model.
    """

    model: str
    name: str
    content: Mapping[str, Any]
    config: Any

    def value(self, name: str) -> Any:
        """An entry of config.json, of its text model, or transformers' default; else None."""
        text = self.content.get("text_config")
        for content in (self.content, text if isinstance(text, dict) else {}):
            if content.get(name) is not None:
                return content[name]
        return getattr(self.config, name, None)

    @property
    def outputs(self) -> int:
        """The number of outputs of the head that the engine builds."""
        if self.config is None:
            return int(self.content.get("num_labels") or len(self.content.get("id2label") or "ab"))
        text = self.config.get_text_config()
        undeclared = self.config.num_labels == DEFAULT_OUTPUTS
        return int(text.num_labels if undeclared else self.config.num_labels)

    @property
    def hidden(self) -> int | None:
        """The width of the body's states; None where config.json does not say."""
        if self.config is None:
            width = self.value("hidden_size")
        else:
            width = getattr(self.config.get_text_config(), "hidden_size", None)
        return width if isinstance(width, int) else None

    @property
    def declares_head(self) -> bool:
        """Whether the weights are said to have a head."""
        return self.name.endswith("ForSequenceClassification")

    @property
    def known(self) -> bool:
        """Whether transformers has code of its own for the body."""
        return self.config is not None and type(self.config).__module__.startswith("transformers.")

    @property
    def head_of_language_model(self) -> bool:
        """Whether vLLM makes the head of rows of the language model's head, on purpose."""
        return any(self.value(name) is not None for name in ("classifier_from_token", "method"))


def refusal(model: str, sentence: str) -> ConfigurationError:
    """The error ``model NAME: sentence``; a long name keeps its end."""
    room = max(LEAST_OF_A_NAME, MOST_CHARACTERS - len(f"model : {sentence}"))
    if len(model) > room:
        model = "..." + model[3 - room :]
    return ConfigurationError(f"model {model}: {sentence}")


def check_folder(folder: Path) -> None:
    """Check that a folder without config.json, or a file, is no checkpoint of another kind.

    Raises:
        ConfigurationError: it is a PEFT adapter or a NeMo checkpoint.
    """
    if (folder / ADAPTER).is_file():
        raise adapter(str(folder))
    if folder.suffix == ".nemo" or (folder / "model_config.yaml").is_file() or (
        (folder / "weights").is_dir() and (folder / "context").is_dir()
    ):  # fmt: skip
        raise refusal(
            str(folder),
            "a NeMo checkpoint cannot be served as it is: fivescore import SOURCE --output DIR"
            " makes a folder that can",
        )


def adapter(model: str) -> ConfigurationError:
    """The error for a PEFT adapter."""
    return refusal(
        model,
        "a PEFT adapter cannot be served as it is: fivescore import SOURCE --output DIR merges it"
        " into its base model",
    )


def read(settings: Settings) -> Architecture | None:
    """The architecture that the settings' model and engine options serve.

    Returns None where config.json cannot be read, which who loads it reports, or where the options
    name another configuration.

    Raises:
        ConfigurationError: the checkpoint is a PEFT adapter.
    """
    from transformers import PreTrainedConfig

    options = merged(settings.engine)
    if not ELSEWHERE.isdisjoint(options):
        return None
    try:
        found, _ = PreTrainedConfig.get_config_dict(settings.model, revision=settings.revision)
    except Exception:  # the library raises many types
        if _is_cached(settings, ADAPTER):
            raise adapter(settings.model) from None
        return None
    overrides = combined("hf_overrides", None, options.get("hf_overrides"))
    if not isinstance(found, Mapping):
        return None
    content = {**found, **overrides}
    return Architecture(settings.model, named(content), content, _config(settings, overrides))


def named(content: Mapping[str, Any]) -> str:
    """The class that a config.json names first; empty where it names none."""
    names = content.get("architectures")
    first = names[0] if isinstance(names, list) and names else names
    return first if isinstance(first, str) else ""


def of_content(model: str, content: Mapping[str, Any]) -> Architecture:
    """The architecture that a configuration describes, wherever it comes from."""
    from transformers import CONFIG_MAPPING

    config = None
    try:
        config = CONFIG_MAPPING[content.get("model_type")].from_dict(dict(content))
    except Exception as error:  # the library raises many types for what it does not know
        log.debug("model %s: transformers has no configuration for it: %s", model, error)
    return Architecture(model, named(content), content, config)


def _is_cached(settings: Settings, file: str) -> bool:
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(settings.model, file, revision=settings.revision)
    except HFValidationError:  # a folder
        return False
    return isinstance(found, str)


def _config(settings: Settings, overrides: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(
            settings.model,
            revision=settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )
        _apply(config, overrides)
    except Exception as error:  # the library raises many types
        log.debug("model %s: transformers has no configuration for it: %s", settings.model, error)
        return None
    return config


def _apply(config: Any, overrides: Mapping[str, Any]) -> None:
    """Set what vLLM's ``hf_overrides`` set: an object changes the parts of a nested config."""
    from transformers import PreTrainedConfig

    for name, value in overrides.items():
        inner = getattr(config, name, None)
        if isinstance(value, dict) and isinstance(inner, PreTrainedConfig):
            _apply(inner, value)
        else:
            setattr(config, name, value)


def check(architecture: Architecture) -> None:
    """Check that fivescore can serve the architecture: one output vector at the last token.

    Raises:
        ConfigurationError: the body is not causal, the model scores steps of a response, or its
            head is a class of its own.
    """
    check_causal(architecture)
    name = architecture.name
    if OWN_HEAD.search(name) or not (name.endswith(SUFFIXES) or is_standard(name)):
        raise own_head(architecture.model, name)


def check_causal(architecture: Architecture) -> None:
    """Check that there is one score per response, read at a token that sees all before it.

    Raises:
        ConfigurationError: the body is not causal, or the model scores steps of a response.
    """
    model, name = architecture.model, architecture.name
    if not _is_causal(architecture):
        raise refusal(
            model,
            f"{name or architecture.value('model_type')} has no causal body: its score is not read"
            " at the last token, so fivescore cannot serve it",
        )
    if STEPS.search(name):
        raise refusal(
            model,
            f"{name} is a process reward model, with a score per step or token: fivescore needs"
            " one score per response and cannot serve it",
        )


def own_head(model: str, name: str, tensors: str = "") -> ConfigurationError:
    """The error for a head that is not one linear layer, with the names of its tensors."""
    return refusal(
        model,
        f"{name} has a head of its own{tensors and f' ({tensors})'}: fivescore inspect SOURCE says"
        " whether fivescore import can convert it",
    )


def is_standard(name: str) -> bool:
    """Whether transformers has a class of this name; so has vLLM, or it adapts one."""
    import transformers

    return not name or hasattr(transformers, name)


def runs_in_vllm(name: str) -> bool:
    """Whether transformers has a class of this name whose own code vLLM can run."""
    import transformers

    found = getattr(transformers, name, None)
    return found is not None and bool(found.is_backend_compatible())


def _is_causal(architecture: Architecture) -> bool:
    value = architecture.value
    if value("is_encoder_decoder") is True or value("is_causal") is False:
        return False
    if value("use_bidirectional_attention") in (True, "all") or value("attn_type") == "bi":
        return False
    if NOT_CAUSAL.search(architecture.name):
        return False
    return not (architecture.known and _is_encoder(architecture.config.model_type))


def _is_encoder(model_type: str) -> bool:
    """Whether transformers lists models of this type among those that see a whole text at once."""
    from transformers.models.auto import modeling_auto as auto

    causal = (
        auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        auto.MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
        auto.MODEL_FOR_MULTIMODAL_LM_MAPPING_NAMES,
    )
    if model_type in auto.MODEL_FOR_MASKED_LM_MAPPING_NAMES:
        return True
    classifies = model_type in auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES
    return classifies and not any(model_type in names for names in causal)
