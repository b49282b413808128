"""Every setting of a training run; the defaults are HelpSteer2's recipe (arXiv 2406.08673).

The field ``some_name`` is the flag ``--some-name`` of ``fivescore train``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)

from fivescore.errors import ConfigurationError, without_kind
from fivescore.model.manifest import ATTRIBUTES, NEMOTRON_WEIGHTS

Positive = Annotated[int, Field(ge=1, le=1_000_000_000)]
Real = Annotated[float, Field(le=1e6, allow_inf_nan=False)]
Name = Annotated[str, Field(min_length=1)]
PREFERENCE_STEPS = 105
"""Default optimizer steps of the second stage (arXiv 2410.01257)."""
LEARNING_RATES = {"regression": 2e-6, "preference": 1e-6}
"""Default peak learning rate per stage (arXiv 2406.08673 and 2410.01257)."""
MAX_TOKENS = 4096
"""Default length limit: the context of the published reward models of this recipe, in tokens."""
MOST_VISITS = 2**27
"""Limit of steps times rows per step, because the order of a run takes 8 bytes per row."""
MAY_BE_EMPTY = frozenset({"system", "suffix"})
"""Fields for which an empty text is a valid value."""
SHOWN_CHARACTERS = 80
"""Length to which an error cuts a refused value."""


class Recipe(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())

    data: str = Field(
        description="training data: a hub id, a folder with train.* and validation.*, or a file"
        " (jsonl, jsonl.gz, parquet)"
    )
    validation: Path | None = Field(
        None, description="validation data: a file [the validation split of --data]"
    )
    model: str = Field(
        description="backbone: folder or hub id; a folder without weights starts from random ones"
    )
    revision: str | None = Field(None, description="branch, tag or commit of the hub's backbone")
    output: Path = Field(description="folder to write; 'fivescore serve --model' takes it")
    stage: Literal["regression", "preference"] = Field(
        "regression",
        description="regression on attributes, or preference: a second stage from such a model",
    )
    resume: bool = Field(False, description="continue from the last checkpoint in --output")
    attributes: tuple[str, ...] = Field(
        ATTRIBUTES,
        description="attributes of a new head, separated by commas [HelpSteer2's five]",
    )
    uncentered: bool = Field(
        False, description="start a new head at 0 instead of at the means of the training labels"
    )
    weights: dict[str, Annotated[Real, Field(ge=-1e6)]] | None = Field(
        None,
        description="weights of the combined reward: attribute=weight, separated by commas"
        " [Nemotron-4-340B-Reward's]",
    )
    prompt_format: Literal["chat_template", "steerlm", "raw"] | None = Field(
        None,
        description="how a pair becomes text [as in the model's reward.json, else chat_template]",
    )
    system: str | None = Field(
        None, description="system message for pairs without one [as in the model's reward.json]"
    )
    suffix: str | None = Field(
        None, description="text after the rendered pair [as in the model's reward.json]"
    )
    chat_template: Path | None = Field(
        None, description="file with a Jinja chat template [the tokenizer's own]"
    )
    max_tokens: Positive | None = Field(
        None, description=f"longest pair in tokens [{MAX_TOKENS}, at most the model's context]"
    )
    epochs: Annotated[Real, Field(gt=0)] | None = Field(
        None, description="passes over the training rows [2]"
    )
    steps: Positive | None = Field(
        None, description=f"optimizer steps instead of epochs [preference: {PREFERENCE_STEPS}]"
    )
    batch_size: Positive = Field(128, description="rows per optimizer step, over all devices")
    micro_batch_size: Positive = Field(1, description="rows per device at once")
    learning_rate: Annotated[Real, Field(gt=0)] | None = Field(
        None, description="peak learning rate [2e-6, preference: 1e-6]"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="course of the learning rate after the warm-up"
    )
    warmup_steps: Annotated[int, Field(ge=0, le=1_000_000_000)] = Field(
        10, description="steps over which the learning rate rises linearly"
    )
    weight_decay: Annotated[Real, Field(ge=0)] = Field(0.0, description="AdamW's weight decay")
    max_grad_norm: Annotated[Real, Field(ge=0)] = Field(
        1.0, description="norm that gradients are clipped to; 0 does not clip"
    )
    evaluate_every: Positive | None = Field(
        None,
        description="steps between validations; each writes a checkpoint [a tenth of all steps]",
    )
    keep_checkpoints: Positive = Field(
        2, description="checkpoints to keep for --resume, including the best"
    )
    log_every: Positive = Field(1, description="steps between losses in the log")
    seed: Annotated[int, Field(ge=0, le=2**32 - 1)] = Field(
        1, description="seed of the new head, the order of rows and dropout"
    )
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="precision of the body [bfloat16 on a GPU, float32 on a CPU]"
    )
    attention: str | None = Field(
        None, description="attention implementation [transformers' choice]"
    )
    gradient_checkpointing: bool = Field(
        False, description="use less memory for about a third more computation"
    )
    lora_rank: Annotated[int, Field(ge=0, le=65_536)] = Field(
        0, description="rank of LoRA; 0 trains all weights"
    )
    lora_alpha: Positive | None = Field(None, description="LoRA's alpha [twice the rank]")
    lora_dropout: Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)] | None = Field(
        None, description="LoRA's dropout [0]"
    )
    lora_targets: tuple[Name, ...] | None = Field(
        None, description="modules that get LoRA, separated by commas [all linear layers]"
    )

    @field_validator("*", mode="before")
    @classmethod
    def _not_empty(cls, value: Any, field: ValidationInfo) -> Any:
        if value == "" and field.field_name not in MAY_BE_EMPTY:
            raise ValueError("the value is empty: give one, or leave the flag out")
        return value

    @field_validator("attributes", "lora_targets", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("weights", mode="before")
    @classmethod
    def _read_weights(cls, value: Any) -> Any:
        if not isinstance(value, str):
            return value
        parts = [part.partition("=") for part in value.split(",")]
        if not all(name.strip() and equals for name, equals, _ in parts):
            raise ValueError("write attribute=weight, separated by commas")
        return {name.strip(): weight for name, _, weight in parts}

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(ATTRIBUTES):
            raise ValueError(f"{sorted(unknown)} are not among {', '.join(ATTRIBUTES)}")
        return tuple(name for name in ATTRIBUTES if name in names)

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        present = self.model_fields_set
        if {"epochs", "steps"} <= present:
            raise ValueError("--epochs and --steps exclude each other: give one")
        if not self.lora_rank and (lora := {n for n in present if n.startswith("lora_")}):
            names = ", ".join(sorted(map(flag, lora - {"lora_rank"})))
            if names:
                raise ValueError(f"{names}: only with --lora-rank above 0")
        if self.stage == "preference" and (new := present & {"attributes", "uncentered"}):
            names = ", ".join(sorted(map(flag, new)))
            raise ValueError(f"{names}: not with --stage preference, which trains an existing head")
        if self.batch_size % self.micro_batch_size:
            raise ValueError(
                f"--batch-size {self.batch_size} is not a multiple of --micro-batch-size"
                f" {self.micro_batch_size}"
            )
        return self

    @property
    def peak(self) -> float:
        """The learning rate after the warm-up."""
        return self.learning_rate or LEARNING_RATES[self.stage]

    def step_count(self, rows: int) -> int:
        """The number of optimizer steps for ``rows`` usable rows.

        Raises:
            ConfigurationError: the rows do not fill one batch, or the run would read more than
                ``MOST_VISITS`` rows.
        """
        steps = self.steps
        if steps is None and self.stage == "preference" and self.epochs is None:
            steps = PREFERENCE_STEPS
        if steps is None:
            epochs = self.epochs or 2.0
            steps = int(rows * epochs) // self.batch_size
            if steps == 0:
                raise ConfigurationError(
                    f"{rows} usable rows in {epochs:g} epochs do not fill --batch-size"
                    f" {self.batch_size}: lower it, or give --epochs or --steps"
                )
        if steps * self.batch_size > MOST_VISITS:
            cause = "--steps" if self.epochs is None else "--epochs"
            raise ConfigurationError(
                f"{cause}: {steps} steps of --batch-size {self.batch_size} read more than"
                f" {MOST_VISITS} rows, the most for a run: lower {cause} or --batch-size"
            )
        return steps

    def combined(self, attributes: tuple[str, ...]) -> dict[str, float]:
        """The combined reward's ``{attribute: weight}`` for a head's attributes.

        Raises:
            ConfigurationError: ``--weights`` names another attribute.
        """
        if self.weights is None:
            preset = dict(zip(ATTRIBUTES, NEMOTRON_WEIGHTS, strict=True))
            alone = len(attributes) == 1
            return {name: 1.0 if alone else preset.get(name, 0.0) for name in attributes}
        if unknown := set(self.weights) - set(attributes):
            raise ConfigurationError(
                f"--weights: {sorted(unknown)} are not among {', '.join(attributes)}"
            )
        return dict(self.weights)


def flag(name: str) -> str:
    """The flag of a field."""
    return f"--{name.replace('_', '-')}"


def load(flags: dict[str, Any]) -> Recipe:
    """The recipe that the flags describe, by their fields' names.

    Raises:
        ConfigurationError: a value is out of range, or two flags exclude each other.
    """
    try:
        return Recipe(**flags)
    except ValidationError as error:
        fault = error.errors()[0]
        message = without_kind(fault["msg"])
        if not fault["loc"]:
            raise ConfigurationError(message) from error
        name = str(fault["loc"][0])
        if fault["type"] != "value_error":
            message = _range(name) or message
        got = ""
        if flags.get(name):
            got = repr(flags[name])
            got = f", got {got if len(got) <= SHOWN_CHARACTERS else got[:SHOWN_CHARACTERS] + '...'}"
        raise ConfigurationError(f"{flag(name)}: {message}{got}") from error


def _range(name: str) -> str | None:
    """The range of a numeric field in words; None for another field."""
    schema = Recipe.model_json_schema()["properties"][name]
    for kind in schema.get("anyOf", [schema]):
        kind = kind.get("additionalProperties", kind)  # the values of a mapping
        if kind.get("type") in ("integer", "number"):
            least = (
                f"at least {kind['minimum']:g}"
                if "minimum" in kind
                else f"above {kind['exclusiveMinimum']:g}"
            )
            most = (
                f"at most {kind['maximum']:.10g}"
                if "maximum" in kind
                else f"below {kind['exclusiveMaximum']:g}"
            )
            whole = "whole " if kind["type"] == "integer" else ""
            return f"give a {whole}number {least} and {most}"
    return None
