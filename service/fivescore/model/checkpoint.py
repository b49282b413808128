"""A checkpoint's tokenizer and manifest: all that fivescore reads besides the weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fivescore.data.hub import HUB_ID, OLD_HUB_ID
from fivescore.endings import GENERATION_CONFIG, Endings, stop_ids
from fivescore.errors import ConfigurationError, InvalidPair, NoGate, first_line
from fivescore.model import architecture, context, doubts, gating, proof, tokenizer_file, weights
from fivescore.model import manifest as manifests
from fivescore.model.conversation import Conversation
from fivescore.model.engine_options import change_outputs
from fivescore.model.head import Gate, GatedHead, LinearHead, OwnHead, TokenHead
from fivescore.model.manifest import Manifest, PromptFormat
from fivescore.model.proof import Sample
from fivescore.policy import PolicyTemplate
from fivescore.settings import Settings
from fivescore.types import ModelInfo

log = logging.getLogger(__name__)

LEAST_MAX_CHARACTERS = 2**20
"""The smallest limit of characters per pair, for models with a short context."""
CHARACTERS_PER_TOKEN = 16
"""Characters allowed per token of the context: four times the average of English text."""


def check(model: str) -> None:
    """Check that ``model`` is the folder of a checkpoint, or has the form of a hub id.

    Raises:
        ConfigurationError: it is neither.
    """
    folder = Path(model)
    if folder.exists() and not (folder / "config.json").is_file():
        architecture.check_folder(folder)
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigurationError(f"model {model}: the folder has no config.json")
    elif folder.exists():
        raise ConfigurationError(
            f"model {model}: this is a file; give the folder that holds config.json"
        )
    elif not (HUB_ID.fullmatch(model) or OLD_HUB_ID.fullmatch(model)):
        raise ConfigurationError(f"model {model}: there is no such folder")


@dataclass(frozen=True, slots=True)
class Model:
    """A loaded model with everything that scoring needs to know of it."""

    name: str
    info: ModelInfo
    manifest: Manifest
    conversation: Conversation
    max_tokens: int
    """The limit of tokens per pair: the setting's, the manifest's or the context."""
    max_characters: int
    """The limit of characters per pair, checked before tokenising; truncation starts from it."""
    endings: Endings
    """What ends a response that was sampled, and is no part of it."""
    proved: bool = False
    """Whether the engine gives what the proof in the manifest says."""
    policy: PolicyTemplate | None = None
    """Parses texts in the policy's template; None unless the operator named its tokenizer."""

    def completed(self, text: str) -> str:
        """A rendered text with the end that the model's template writes, for the policy's own.

        A response that was cut has no end, and its text stays as it is.
        """
        if self.conversation.format != "chat_template":
            return text
        without = self.endings.cut(text)
        return text if without == text else without + self.conversation.tail


class Checkpoint:
    """A checkpoint's tokenizer and manifest, which are read before its weights.

    Raises:
        ConfigurationError: one of them is missing or invalid.
    """

    def __init__(self, settings: Settings) -> None:
        check(settings.model)
        self._settings = settings
        self._architecture = architecture.read(settings)
        self._manifest = self._read_manifest()
        self._has_seen_weights = weights.check(settings, self._architecture, self.own_head)
        self._conversations: dict[PromptFormat, Conversation] = {}
        self._tokenizer = self._read("tokenizer", tokenizer_file.read)
        self._policy = _read_policy(settings)
        # Where the outputs are known, a misfit fails before the engine loads.
        has_meaning = self._manifest is not None or self._has_head()
        own = self.own_head
        known = own is not None or (has_meaning and not change_outputs(settings.engine))
        config = self._read_config(required=known)
        self._pad_id: int | None = config and config.get_text_config().pad_token_id
        if known:
            self.conversation(self._manifest_for(own.outputs if own else config.num_labels))
        if own is not None and isinstance(own.head, GatedHead):
            self._check_gate(own.head.gate)

    @property
    def max_tokens(self) -> int | None:
        """The limit in the settings or the manifest, else the context within which scores are the
        reference's; None leaves it to the engine."""
        exact = context.exact(self._architecture)
        if self._asked_tokens or exact is None:
            return self._asked_tokens
        return min(exact, int(self._tokenizer.model_max_length))

    @property
    def _asked_tokens(self) -> int | None:
        if self._settings.max_tokens or self._manifest is None:
            return self._settings.max_tokens
        return self._manifest.max_tokens

    @property
    def own_head(self) -> OwnHead | None:
        """The manifest's head; None where it is one linear layer, or where the engine options make
        the head of rows of the language model's head.

        Raises:
            ConfigurationError: the options do so, and the manifest says something else.
        """
        manifest, architecture = self._manifest, self._architecture
        if manifest is None or isinstance(manifest.head, LinearHead):
            return None
        if architecture is not None and architecture.head_of_language_model:
            if isinstance(manifest.head, TokenHead):
                return None
            raise ConfigurationError(
                f"head.kind {manifest.head.kind} of the manifest and classifier_from_token of the"
                " engine options are two heads: leave one out"
            )
        return OwnHead(manifest.head, manifest.outputs)

    def _check_gate(self, gate: Gate) -> None:
        """Check that a rendered pair has the tokens at which the gate is computed."""
        (ids,) = self.conversation().encode([proof.PAIRS[0]])
        try:
            gating.position([] if isinstance(ids, InvalidPair) else ids, gate.at)
        except NoGate:
            raise ConfigurationError(
                f"model {self._settings.model}: head.gate.at of the manifest,"
                f" {', '.join(map(str, gate.at))}, is nowhere in the token ids of a rendered pair:"
                " correct it, or prompt, in reward.json"
            ) from None

    def _has_head(self) -> bool:
        """False where a default manifest would be proposed for what may have no head."""
        return (
            self._has_seen_weights or self._architecture is None or self._architecture.declares_head
        )

    def fit(self, info: ModelInfo) -> Model:
        """The model, of this checkpoint and the engine's description of its weights.

        Raises:
            ConfigurationError: the two do not fit each other.
        """
        if not self._has_seen_weights:  # the engine may have fetched them
            self._has_seen_weights = weights.check(
                self._settings, self._architecture, self.own_head
            )
        context.warn(self._architecture, info.max_tokens)
        manifest = self._manifest_for(info.outputs)
        if self._settings.principle is not None and manifest.prompt.principle is None:
            raise ConfigurationError(
                "--principle: the model is not asked about one: its reward.json has no"
                " prompt.principle"
            )
        conversation = self.conversation(manifest)
        limit = min(self._asked_tokens or manifest.max_tokens or info.max_tokens, info.max_tokens)
        return Model(
            name=self._settings.name or _short_name(self._settings.model),
            info=info,
            manifest=manifest,
            conversation=conversation,
            max_tokens=limit,
            max_characters=max(LEAST_MAX_CHARACTERS, limit * CHARACTERS_PER_TOKEN),
            endings=self._policy.endings if self._policy else self._endings(conversation),
            policy=self._policy,
        )

    def conversation(self, manifest: Manifest | None = None) -> Conversation:
        """The conversation, from pairs to token ids, for this manifest or else the own one."""
        chosen = manifest or self._manifest
        prompt = chosen.prompt if chosen else PromptFormat()
        if prompt not in self._conversations:  # it copies the tokenizer, which takes up to a second
            made = Conversation(prompt, self._tokenizer, self._pad_id)
            for line in doubts.find(prompt, made, self._tokenizer, self._pad_id):
                log.warning("model %s: %s", self._settings.model, line)
            self._conversations[prompt] = made
        return self._conversations[prompt]

    def samples(self) -> list[Sample]:
        """The pairs of the manifest's proof that are within the limit of tokens; none without one.

        Raises:
            NotProved: the proof has other token ids.
        """
        manifest = self._manifest
        if manifest is None or manifest.proof is None:
            return []
        return proof.samples(manifest.proof, self.conversation(), self.max_tokens)

    def _endings(self, conversation: Conversation) -> Endings:
        """Those of the reward model's own template, where the policy's are not known."""
        if conversation.format == "chat_template":
            return Endings.of_tokenizer(self._tokenizer, stop_ids(self._settings.model))
        return Endings(self._tokenizer)

    def _manifest_for(self, outputs: int) -> Manifest:
        manifest = self._manifest or manifests.for_outputs(outputs)
        manifests.check_outputs(manifest, outputs)
        return manifest

    def _read(self, what: str, load: Callable[..., Any]) -> Any:
        settings = self._settings
        try:
            return load(
                settings.model,
                revision=settings.revision,
                trust_remote_code=settings.trust_remote_code,
            )
        except Exception as error:  # the library raises many types for an invalid checkpoint
            advice = ""
            if "trust_remote_code" in str(error):
                advice = " --trust-remote-code runs it: it can do all that this process can"
            raise ConfigurationError(
                f"model {settings.model}: its {what} cannot be loaded: {first_line(error)}{advice}"
            ) from error

    def _read_config(self, required: bool) -> Any:
        """config.json; None where the engine may know a model that transformers does not."""
        from transformers import AutoConfig

        try:
            return self._read("config.json", AutoConfig.from_pretrained)
        except ConfigurationError:
            if required:
                raise
            return None

    def _read_manifest(self) -> Manifest | None:
        settings = self._settings
        if settings.manifest is not None:
            return manifests.read(settings.manifest)
        return manifests.beside(settings.model, settings.revision, f"model {settings.model}")


def _read_policy(settings: Settings) -> PolicyTemplate | None:
    name = settings.policy_tokenizer
    if name is None:
        return None
    try:
        reference = tokenizer_file.read(name)
    except Exception as error:  # the library raises many types
        raise ConfigurationError(
            f"policy_tokenizer {name}: it cannot be loaded: {first_line(error)}"
        ) from error
    return PolicyTemplate(reference, stop_ids(_folder(name)))


def _folder(policy: str) -> str:
    """The folder of a policy's generation_config.json, which is downloaded for a hub id."""
    from huggingface_hub import hf_hub_download

    if Path(policy).is_dir():
        return policy
    try:
        return str(Path(hf_hub_download(policy, GENERATION_CONFIG)).parent)
    except Exception:  # many policies have none, and EOS is known without it
        return policy


def _short_name(model: str) -> str:
    """The model's name in answers: a hub id as it is, a folder's name without its path."""
    return Path(model).resolve().name if Path(model).exists() else model
