"""Every setting of a training run; the defaults are HelpSteer2's recipe (arXiv 2406.08673).

A field is the flag ``--its-name`` of ``fivescore train``.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    FiniteFloat,
    ValidationError,
    field_validator,
    model_validator,
)

from fivescore.errors import ConfigurationError
from fivescore.model.manifest import ATTRIBUTES, NEMOTRON_WEIGHTS

Positive = Annotated[int, Field(ge=1)]
PREFERENCE_STEPS = 105
"""Steps of the second stage (arXiv 2410.01257)."""
LEARNING_RATES = {"regression": 2e-6, "preference": 1e-6}
"""arXiv 2406.08673 and 2410.01257."""
MAX_TOKENS = 4096
"""Context of the published reward models that the recipe made."""


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
    revision: str | None = Field(None, description="branch, tag or commit of a hub backbone")
    output: Path = Field(description="folder to write; 'fivescore serve --model' takes it")
    stage: Literal["regression", "preference"] = Field(
        "regression", description="preference: scaled Bradley-Terry from the first stage's model"
    )
    resume: bool = Field(False, description="go on from the last checkpoint in --output")
    attributes: tuple[str, ...] = Field(
        ATTRIBUTES, description="what a new head learns: a list with commas [HelpSteer2's five]"
    )
    uncentered: bool = Field(
        False, description="a new head starts at 0 instead of at the training labels' means"
    )
    weights: dict[str, FiniteFloat] | None = Field(
        None,
        description="the combined reward, attribute=weight with commas [Nemotron-4-340B-Reward's]",
    )
    prompt_format: Literal["chat_template", "steerlm", "raw"] | None = Field(
        None, description="how a pair becomes text [the model's reward.json, else chat_template]"
    )
    system: str | None = Field(None, description="system message of pairs that have none")
    suffix: str | None = Field(None, description="text after the rendered pair")
    chat_template: Path | None = Field(
        None, description="file with a Jinja chat template [the tokenizer's own]"
    )
    max_tokens: Positive | None = Field(
        None, description=f"longest pair in tokens [{MAX_TOKENS}, at most the model's context]"
    )
    epochs: Annotated[float, Field(gt=0)] | None = Field(None, description="passes [2]")
    steps: Positive | None = Field(
        None, description=f"optimizer steps instead of epochs [preference: {PREFERENCE_STEPS}]"
    )
    batch_size: Positive = Field(128, description="rows a step, over all devices")
    micro_batch_size: Positive = Field(1, description="rows a device reads at once")
    learning_rate: Annotated[float, Field(gt=0)] | None = Field(
        None, description="peak learning rate [2e-6, preference: 1e-6]"
    )
    schedule: Literal["constant", "linear", "cosine"] = Field(
        "constant", description="learning rate after the warm-up"
    )
    warmup_steps: Annotated[int, Field(ge=0)] = Field(10, description="linear warm-up")
    weight_decay: Annotated[float, Field(ge=0)] = Field(0.0, description="AdamW's weight decay")
    max_grad_norm: Annotated[float, Field(ge=0)] = Field(
        1.0, description="gradients are clipped to this norm; 0 leaves them"
    )
    evaluate_every: Positive | None = Field(
        None, description="steps between validations, each a checkpoint [a tenth of all]"
    )
    keep_checkpoints: Annotated[int, Field(ge=1)] = Field(
        2, description="checkpoints kept for --resume, the best included"
    )
    log_every: Positive = Field(1, description="steps between losses in the log")
    seed: int = Field(1, description="of the head, the order of rows, dropout")
    dtype: Literal["float32", "bfloat16"] | None = Field(
        None, description="of the body's arithmetic [bfloat16 on a GPU, float32 on a CPU]"
    )
    attention: str | None = Field(None, description="attention implementation [transformers']")
    gradient_checkpointing: bool = Field(False, description="less memory, a third more work")
    lora_rank: Annotated[int, Field(ge=0)] = Field(0, description="LoRA; 0 trains all weights")
    lora_alpha: Positive | None = Field(None, description="LoRA's alpha [twice the rank]")
    lora_dropout: Annotated[float, Field(ge=0, lt=1)] | None = Field(
        None, description="LoRA's dropout [0]"
    )
    lora_targets: tuple[str, ...] | None = Field(
        None, description="modules that get LoRA, with commas [all linear layers]"
    )

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
            raise ValueError("write attribute=weight, several with commas")
        return {name.strip(): weight for name, _, weight in parts}

    @field_validator("attributes")
    @classmethod
    def _known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        if unknown := set(names) - set(ATTRIBUTES):
            raise ValueError(f"{sorted(unknown)} are not among {', '.join(ATTRIBUTES)}")
        return tuple(name for name in ATTRIBUTES if name in names)

    @model_validator(mode="after")
    def _combinations(self) -> Self:
        given = self.model_fields_set
        if {"epochs", "steps"} <= given:
            raise ValueError("--epochs and --steps exclude each other: give one")
        if not self.lora_rank and (lora := {n for n in given if n.startswith("lora_")}):
            names = ", ".join(sorted(map(flag, lora - {"lora_rank"})))
            if names:
                raise ValueError(f"{names}: only with --lora-rank above 0")
        if self.stage == "preference" and (new := given & {"attributes", "uncentered"}):
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
        """Optimizer steps over ``rows`` usable rows.

        Raises:
            ConfigurationError: the rows do not fill one batch.
        """
        if self.steps is not None:
            return self.steps
        if self.stage == "preference" and self.epochs is None:
            return PREFERENCE_STEPS
        epochs = self.epochs or 2.0
        steps = int(rows * epochs) // self.batch_size
        if steps == 0:
            raise ConfigurationError(
                f"{rows} usable rows in {epochs:g} epochs do not fill --batch-size"
                f" {self.batch_size}: lower it, or give --epochs or --steps"
            )
        return steps

    def combined(self, attributes: tuple[str, ...]) -> dict[str, float]:
        """Weights of the combined reward over the attributes that the head has.

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


def load(given: dict[str, Any]) -> Recipe:
    """The recipe of given flags.

    Raises:
        ConfigurationError: a value out of range or a combination that makes no sense.
    """
    try:
        return Recipe(**given)
    except ValidationError as error:
        fault = error.errors()[0]
        message = fault["msg"].removeprefix("Value error, ")
        if not fault["loc"]:
            raise ConfigurationError(message) from error
        name = str(fault["loc"][0])
        got = f", got {given[name]!r}" if name in given else ""
        raise ConfigurationError(f"{flag(name)}: {message}{got}") from error
