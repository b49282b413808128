"""The reward manifest, ``reward.json`` beside the weights: what each head output means.

``docs/reference.md`` describes the file. Presets hold the published weights of known models.
"""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import Field, ValidationError, model_validator

from fivescore.errors import ConfigurationError, first_line, without_kind
from fivescore.model.head import Finite, GatedHead, Head, LinearHead, Strict, TokenHead
from fivescore.types import ATTRIBUTES as ATTRIBUTES
from fivescore.types import Prompt, Response, Text

FILE_NAME = "reward.json"
ATTRIBUTE_RANGE = (0.0, 4.0)
"""The lowest and the highest annotation of an attribute (arXiv 2406.08673)."""
NEMO_OUTPUTS = 9
"""Outputs of a NeMo head: quality, toxicity, humor, creativity, then the five (NeMo-Aligner)."""
NOT_ATTRIBUTES = frozenset({"reward", "tokens", "cached_tokens", "truncated", "error"})
"""Names that an answer uses for other fields."""
NEWEST: Final = 2
"""The version of the format that is written; a file of version 1 is read too."""
MOST_PROVED = 64
"""The most pairs of a proof: every start of an engine computes them."""

AttributeName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{0,63}$")]


class Affine(Strict):
    """``value = raw[output] * scale + offset``; a head's bias becomes the offset."""

    output: Annotated[int, Field(ge=0)]
    scale: Finite = 1.0
    offset: Finite = 0.0


class Combined(Strict):
    """``reward = sum(weight * attribute) + bias``."""

    weights: Annotated[dict[AttributeName, Finite], Field(min_length=1)]
    bias: Finite = 0.0


class PromptFormat(Strict):
    """How a pair is rendered for the model; null stands for the format's own default."""

    format: Literal["chat_template", "steerlm", "raw"] = "chat_template"
    system: str | None = None
    suffix: str | None = None
    bos: Literal["auto", "always", "never"] = "auto"
    """Whether the ids begin with BOS; ``auto`` follows the tokenizer and the template."""
    end: Literal["rendered", "eos", "last_not_pad"] = "rendered"
    """At which token the head is read: the last one that is rendered; EOS in place of the white
    space that is rendered last (OpenRLHF); the last one that is not the pad token (transformers).
    """
    date: datetime.date | None = None
    """The day that a template writes."""
    principle: Annotated[str, Field(pattern=r"\{principle\}")] | None = None
    """What a user asks in a turn after the response; ``{principle}`` stands for the principle. The
    template's generation prompt follows, and the head is read at its end."""

    @model_validator(mode="after")
    def _template_asks(self) -> Self:
        if self.principle is not None and self.format != "chat_template":
            raise ValueError(f"principle is a turn of a chat template, not of {self.format}")
        return self


class ProvedPair(Strict):
    """A pair with what the reference gives for it."""

    prompt: Prompt
    response: Response
    principle: Text | None = None
    ids_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The sha256 of the token ids as JSON without spaces."""
    outputs: Annotated[tuple[Finite, ...], Field(min_length=1)]
    """The head's raw outputs."""


class Proof(Strict):
    """What a reference that is not the engine gives for some pairs."""

    reference: Annotated[str, Field(min_length=1)]
    """What computed it, such as ``transformers 5.19.0, float32``."""
    pairs: Annotated[tuple[ProvedPair, ...], Field(min_length=1, max_length=MOST_PROVED)]


class Source(Strict):
    """Where a converted checkpoint came from."""

    from_: Annotated[str, Field(alias="from")]
    sha256: str | None = None
    by: str | None = None


class Manifest(Strict):
    """``reward`` is either weights over the attributes, or one output read as the reward itself."""

    version: Literal[1, 2] = NEWEST
    outputs: Annotated[int, Field(ge=1)]
    attributes: dict[AttributeName, Affine] = Field(default={})
    reward: Combined | Affine
    prompt: PromptFormat = PromptFormat()
    head: Head = LinearHead()
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    source: Source | None = None
    proof: Proof | None = None

    @model_validator(mode="after")
    def _of_its_version(self) -> Self:
        newer = {"head", "source", "proof"} & self.model_fields_set
        newer |= {
            f"prompt.{name}"
            for name in {"bos", "end", "date", "principle"} & self.prompt.model_fields_set
        }
        if self.version == 1 and newer:
            raise ValueError(f'{", ".join(sorted(newer))} needs "version": 2')
        return self

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        affines = dict(self.attributes)
        if isinstance(self.reward, Affine):
            affines["reward"] = self.reward
        elif missing := self.reward.weights.keys() - self.attributes.keys():
            raise ValueError(f"reward.weights names {sorted(missing)}, which attributes lacks")
        for name, affine in affines.items():
            if affine.output >= self.outputs:
                raise ValueError(
                    f"{name} reads output {affine.output}, but there are {self.outputs}"
                    f" (0 to {self.outputs - 1})"
                )
        for place, pair in enumerate(self.proof.pairs if self.proof else ()):
            if len(pair.outputs) != self.outputs:
                raise ValueError(
                    f"proof.pairs.{place} has {len(pair.outputs)} outputs, but there are"
                    f" {self.outputs}"
                )
        if isinstance(self.head, TokenHead) and self.outputs != 1:
            raise ValueError(f"a token head has one output, not {self.outputs}")
        if isinstance(self.head, GatedHead) and self.outputs < 2:
            raise ValueError("a gated head has its outputs and, last, their gated sum")
        if reserved := NOT_ATTRIBUTES & self.attributes.keys():
            raise ValueError(f"{sorted(reserved)} cannot be attribute names")
        return self


def _five(
    weights: tuple[float, ...],
    outputs: int = 5,
    prompt: PromptFormat | None = None,
    max_tokens: int | None = None,
) -> Manifest:
    first = outputs - len(ATTRIBUTES)
    return Manifest(
        outputs=outputs,
        attributes={name: Affine(output=first + i) for i, name in enumerate(ATTRIBUTES)},
        reward=Combined(weights=dict(zip(ATTRIBUTES, weights, strict=True))),
        prompt=prompt or PromptFormat(),
        max_tokens=max_tokens,
    )


def _logit(head: TokenHead, prompt: PromptFormat | None = None) -> Manifest:
    return Manifest(
        outputs=1,
        reward=Affine(output=0),
        prompt=prompt or PromptFormat(),
        head=head,
        max_tokens=4096,
    )


NEMOTRON_WEIGHTS = (0.3, 0.74, 0.46, 0.47, -0.33)
"""Model card of nvidia/Nemotron-4-340B-Reward."""
NEMOTRON_PRINCIPLE = (
    "Evaluate the response to the previous prompt in terms of whether it satisfies this principle:"
    " {principle}. Only answer Yes or No."
)
"""Model card of nvidia/Llama-3.3-Nemotron-70B-Reward-Principle."""
STEERLM_WEIGHTS = (0.65, 0.8, 0.45, 0.55, -0.4)
"""Model card of nvidia/Llama3-70B-SteerLM-RM."""

PRESETS: dict[str, Manifest] = {
    "helpsteer2": _five(NEMOTRON_WEIGHTS),
    "scalar": Manifest(outputs=1, reward=Affine(output=0)),
    "nemotron-4-340b-reward": _five(
        NEMOTRON_WEIGHTS, NEMO_OUTPUTS, PromptFormat(format="steerlm"), max_tokens=4096
    ),
    "llama3-70b-steerlm-rm": _five(
        STEERLM_WEIGHTS, NEMO_OUTPUTS, PromptFormat(format="steerlm"), max_tokens=8192
    ),
    "llama-3.1-nemotron-70b-reward": _logit(TokenHead(kind="token", token=0)),
    "llama-3.3-nemotron-70b-reward": _logit(
        TokenHead(kind="token", token=0), PromptFormat(bos="never")
    ),
    "llama-3.3-nemotron-70b-reward-principle": _logit(
        TokenHead(kind="token", token=9642, minus=2822),  # Yes and No
        PromptFormat(principle=NEMOTRON_PRINCIPLE),
    ),
}
"""Manifests by name; contexts, weights and tokens are from the models' cards."""

_BY_OUTPUTS = {
    5: PRESETS["helpsteer2"],
    NEMO_OUTPUTS: _five(NEMOTRON_WEIGHTS, NEMO_OUTPUTS, PromptFormat(format="steerlm")),
    1: PRESETS["scalar"],
}


def read(name: str) -> Manifest:
    """The manifest in a file, or the preset with this name.

    Raises:
        ConfigurationError: there is no such preset or file, or the file is not a manifest.
    """
    if name in PRESETS:
        return PRESETS[name]
    try:
        return Manifest.model_validate_json(Path(name).read_bytes())
    except OSError as error:
        raise ConfigurationError(
            f"manifest {name!r} is neither a readable file ({error.strerror}) nor a preset"
            f" ({', '.join(PRESETS)})"
        ) from error
    except ValidationError as error:
        faults = "; ".join(
            f"{'.'.join(map(str, fault['loc'])) or 'manifest'}: {without_kind(fault['msg'])}"
            for fault in error.errors()
        )
        raise ConfigurationError(f"manifest {name}: {faults}") from error


def write(path: Path, manifest: Manifest) -> None:
    """Write a manifest of version 2, with the fields that were set.

    Raises:
        ConfigurationError: the file cannot be written.
    """
    newest = manifest.model_copy(update={"version": NEWEST})
    fields = newest.model_dump(mode="json", by_alias=True, exclude_unset=True)
    try:
        path.write_text(json.dumps(fields, indent=1) + "\n")
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be written: {error.strerror}") from error


def beside(model: str, revision: str | None, shown: str) -> Manifest | None:
    """The manifest beside a checkpoint's weights, in its folder or on the hub; None without one.

    Args:
        shown: the checkpoint's name in errors.

    Raises:
        ConfigurationError: it cannot be read, or is not a manifest.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    folder = Path(model)
    if folder.is_dir():
        return read(str(folder / FILE_NAME)) if (folder / FILE_NAME).is_file() else None
    try:
        path = hf_hub_download(model, FILE_NAME, revision=revision)
    except EntryNotFoundError:  # on the hub or, offline, in its cache
        return None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{shown}: {first_line(error)}") from error
    return read(path)


def for_outputs(outputs: int) -> Manifest:
    """The default manifest of a checkpoint without one, by its number of outputs.

    Raises:
        ConfigurationError: this number has no default.
    """
    if outputs in _BY_OUTPUTS:
        return _BY_OUTPUTS[outputs]
    raise ConfigurationError(
        f"the checkpoint has {outputs} outputs and no {FILE_NAME}, so what they mean is unknown:"
        f' put {FILE_NAME} beside the weights, such as {{"version": 2, "outputs": {outputs},'
        ' "attributes": {"helpfulness": {"output": 0}},'
        ' "reward": {"weights": {"helpfulness": 1.0}}}, or name one with --manifest'
    )


def check_outputs(manifest: Manifest, outputs: int) -> None:
    """Check that the manifest is for a head of ``outputs`` outputs.

    Raises:
        ConfigurationError: it is for another number.
    """
    if manifest.outputs != outputs:
        raise ConfigurationError(
            f"the manifest says outputs: {manifest.outputs}, the checkpoint's head has {outputs}:"
            f" correct {FILE_NAME} or choose another with --manifest"
        )
