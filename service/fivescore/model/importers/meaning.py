"""What a head's outputs mean, and the prompt, where a source's kind does not decide them."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import manifest as manifests
from fivescore.model import tokenizer_file
from fivescore.model.conversation import Conversation
from fivescore.model.head import Head, LinearHead
from fivescore.model.importers.plan import Plan
from fivescore.model.importers.sources import Source
from fivescore.model.manifest import Affine, Manifest, PromptFormat
from fivescore.types import Pair


def for_outputs(source: Source, outputs: int, head: Head, manifest: str | None) -> Manifest:
    """The manifest of a head with ``outputs`` outputs: the given one, or the default of its number.

    Raises:
        ConfigurationError: their number has no default, or the given manifest is for another.
    """
    if manifest is not None:
        found = manifests.read(manifest)
    elif (Path(source.folder) / manifests.FILE_NAME).is_file():
        found = manifests.read(str(source.folder / manifests.FILE_NAME))
    else:
        try:
            found = manifests.for_outputs(outputs)
        except ConfigurationError:
            raise source.refuse(
                f"its head has {outputs} outputs, whose meaning is unknown: give --manifest FILE, a"
                " reward.json that names them"
            ) from None
    manifests.check_outputs(found, outputs)
    return with_head(found, head)


def with_head(manifest: Manifest, head: Head) -> Manifest:
    """The manifest for another head, as version 2 and without a proof."""
    fields = {name: getattr(manifest, name) for name in manifest.model_fields_set}
    for name in ("proof", "source", "head"):
        fields.pop(name, None)
    if not isinstance(head, LinearHead):
        fields["head"] = head
    return Manifest(**{**fields, "version": manifests.NEWEST})


def scalar(head: Head, prompt: PromptFormat | None = None, **fields: Any) -> Manifest:
    """The manifest of one output that is the reward."""
    made = Manifest(outputs=1, reward=Affine(output=0), prompt=prompt or PromptFormat(), **fields)
    return with_head(made, head)


def scaled(manifest: Manifest, mean: float, std: float) -> Manifest:
    """The manifest whose scalar reward is ``(output - mean) / std``."""
    if not isinstance(manifest.reward, Affine):
        raise ConfigurationError(
            "a mean and a standard deviation are for a scalar reward, and this is a weighted sum"
        )
    reward = Affine(output=manifest.reward.output, scale=1 / std, offset=-mean / std)
    return manifest.model_copy(update={"reward": reward})


def with_prompt(manifest: Manifest, **changes: Any) -> Manifest:
    """The manifest with entries of its prompt changed, unless it has them already."""
    prompt = manifest.prompt
    new = {name: value for name, value in changes.items() if name not in prompt.model_fields_set}
    return manifest.model_copy(update={"prompt": prompt.model_copy(update=new)})


def settled(plan: Plan) -> Plan:
    """The plan with what its template leaves open decided: the date, and where the head is read.

    Raises:
        ConfigurationError: there is no usable tokenizer or template.
    """
    manifest = plan.manifest
    with written(plan.config, plan.files) as folder:
        try:
            reference = tokenizer_file.read(str(folder))
        except Exception as error:  # the library raises many types
            raise ConfigurationError(
                f"the source's tokenizer cannot be loaded: {first_line(error)}"
            ) from error
        pad = pad_id(plan.config)
        conversation = Conversation(manifest.prompt, reference, pad)
        if conversation.day is not None:
            manifest = with_prompt(manifest, date=conversation.day)
        if manifest.prompt.format == "chat_template":
            manifest = with_prompt(manifest, end=_end(plan, conversation, pad))
    return replace(plan, manifest=manifest)


def _end(plan: Plan, conversation: Conversation, pad: int | None) -> str:
    """transformers' classes read the last token that is not the pad token of config.json."""
    (ids,) = conversation.encode([Pair(prompt="x", response="x")])
    ends_with_pad = pad is not None and isinstance(ids, list) and ids[-1:] == [pad]
    return "last_not_pad" if ends_with_pad and plan.kind in ("linear", "mlp") else "rendered"


def pad_id(config: Mapping[str, Any]) -> int | None:
    """The pad token of a config.json; None where it names none."""
    text = config.get("text_config")
    inner = text.get("pad_token_id") if isinstance(text, dict) else None
    found = config.get("pad_token_id", inner)
    return found if isinstance(found, int) else None


@contextmanager
def written(config: Mapping[str, Any], files: Mapping[str, Path]) -> Iterator[Path]:
    """A folder for a while with config.json and the tokenizer's files, and no weights."""
    with tempfile.TemporaryDirectory(prefix="fivescore-") as place:
        folder = Path(place)
        (folder / "config.json").write_text(json.dumps(dict(config)))
        for name, file in files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).symlink_to(file.resolve())
        yield folder
