"""Every setting of the server: flag ``--some-name``, environment ``FIVESCORE_SOME_NAME``.

Engine arguments pass through: ``--engine.dtype float32``, ``FIVESCORE_ENGINE__DTYPE=float32``.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from fivescore.errors import ConfigurationError

PREFIX = "FIVESCORE_"
CLIENT_VARIABLES = frozenset({"FIVESCORE_URL"})
"""Read by ``fivescore score``, not by the server."""
LIKENESS = 0.8
"""How alike names must be, 0 to 1, for one to be offered instead of the other."""
DEMO = str(Path(__file__).parent / "demo" / "fivescore-demo")


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX,
        env_nested_delimiter="__",
        env_ignore_empty=True,
        extra="forbid",
        frozen=True,
    )

    model: str = Field(DEMO, description="folder or hub id of the checkpoint [the bundled demo]")
    revision: str | None = Field(None, description="branch, tag or commit of a hub checkpoint")
    name: str | None = Field(None, description="the model's name in answers [its folder's or id]")
    manifest: str | None = Field(
        None, description="reward manifest: a file or a preset's name [reward.json of the model]"
    )
    trust_remote_code: bool = Field(False, description="run Python code that the checkpoint brings")
    backend: Literal["vllm", "fake"] = Field(
        "vllm", description="the engine; fake needs no vLLM and scores by a hash"
    )
    engine: dict[str, Any] = Field({}, description="the engine's own arguments")
    host: str = Field("127.0.0.1", description="address to listen on")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(8000, description="0 takes a free one")
    max_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None, description="tokens per pair [the manifest's, else the model's context]"
    )
    max_pairs: Annotated[int, Field(ge=1)] = Field(10_000, description="pairs per request")
    max_body_bytes: Annotated[int, Field(ge=1)] = Field(
        64 * 2**20, description="bytes per request body"
    )
    max_inflight_pairs: Annotated[int, Field(ge=1)] = Field(
        65_536, description="pairs admitted and not answered; more are refused with 429"
    )
    shutdown_grace_seconds: Annotated[int, Field(ge=0)] = Field(
        60, description="how long accepted requests may go on after SIGTERM"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="log level")

    @field_validator("model")
    @classmethod
    def _expand_home(cls, model: str) -> str:
        return str(Path(model).expanduser()) if model.startswith("~") else model


def load(flags: dict[str, Any]) -> Settings:
    """Settings from flags, then environment, then defaults.

    Raises:
        ConfigurationError: an unknown variable or a value out of range; names it as it was given.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**flags)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        given = f"--{name.replace('_', '-')}" if name in flags else PREFIX + name.upper()
        raise ConfigurationError(f"{given}: {fault['msg']}, got {fault['input']!r}") from error
    except Exception as error:  # pydantic-settings: a value that should be JSON and is not
        raise ConfigurationError(f"environment: {error}") from error


def _refuse_unknown_variables(environment: Iterable[str]) -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields} | CLIENT_VARIABLES
    for name in environment:
        if not name.startswith(PREFIX) or name in known or name.startswith(f"{PREFIX}ENGINE__"):
            continue
        close = difflib.get_close_matches(name, known, n=1, cutoff=LIKENESS)
        hint = f": did you mean {close[0]}?" if close else ""
        raise ConfigurationError(f"unknown environment variable {name}{hint}")
