"""Every setting of the server: flag ``--some-name``, environment variable ``FIVESCORE_SOME_NAME``.

Engine arguments pass through: ``--engine.dtype float32``, ``FIVESCORE_ENGINE__DTYPE=float32``.
"""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, FiniteFloat, SecretStr, ValidationError, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from fivescore.errors import ConfigurationError, without_kind

PREFIX = "FIVESCORE_"
CLIENT_VARIABLES = frozenset({"FIVESCORE_URL"})
"""Variables that ``fivescore score`` reads, and the server does not."""
LIKENESS = 0.8
"""Similarity, from 0 to 1, from which on a known name is suggested for an unknown one."""
_ENDPOINT = r"^https?://[^\s/@?#]+(/[^\s?#]*)?$"
"""A URL without user and query, which would hold keys: OTEL_EXPORTER_OTLP_HEADERS is for those."""
KEY = re.compile(r"[!-+\--~]{1,512}")
KEY_RULE = "a key is 1 to 512 visible ASCII characters without a comma"
HOST = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")
"""A host's name or address; IPv6 addresses may have brackets."""
DEMO = str(Path(__file__).parent / "demo" / "fivescore-demo")

MOST_SECONDS = 10**9
"""The longest time that can be set, about 30 years: timers overflow at much longer ones."""
Seconds = Annotated[float, Field(gt=0, le=MOST_SECONDS, allow_inf_nan=False)]
WholeSeconds = Annotated[int, Field(ge=0, le=MOST_SECONDS)]


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
    name: str | None = Field(
        None, description="the model's name in answers [its folder's name or hub id]"
    )
    manifest: str | None = Field(
        None, description="reward manifest: a file or a preset's name [reward.json of the model]"
    )
    trust_remote_code: bool = Field(
        False, description="run Python code that is part of the checkpoint"
    )
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
    max_receiving_bytes: Annotated[int, Field(ge=1)] = Field(
        2**29,
        description="bytes of all bodies together that are being received, and of all large ones"
        " that wait to be read",
    )
    max_connections: Annotated[int, Field(ge=1)] = Field(
        8192, description="connections open at once; beyond them only probes are answered"
    )
    max_header_bytes: Annotated[int, Field(ge=1)] = Field(
        2**15, description="bytes of a request's line and headers"
    )
    max_headers: Annotated[int, Field(ge=1)] = Field(100, description="headers per request")
    max_target_bytes: Annotated[int, Field(ge=1)] = Field(
        8192, description="bytes of a request's path and query"
    )
    header_timeout_seconds: Seconds = Field(
        20, description="time for a request's line and headers, from their first byte on"
    )
    client_timeout_seconds: Seconds = Field(
        30,
        description="time over which a client must send, or read, at the rate of the next setting",
    )
    client_min_bytes_per_second: Annotated[int, Field(ge=1)] = Field(
        1024, description="the lowest rate of sending a body and of reading an answer"
    )
    keep_alive_seconds: Annotated[WholeSeconds, Field(ge=1)] = Field(
        75, description="how long a connection may stay open without a request"
    )
    max_inflight_pairs: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="pairs in flight, admitted and not answered; more are refused with 429"
        " [512 times the sequences of an engine step]",
    )
    max_inflight_tokens: Annotated[int, Field(ge=1)] | None = Field(
        None,
        description="tokens in flight at which new requests are refused with 429"
        " [32768 times the tokens of an engine step]",
    )
    engine_restarts: Annotated[int, Field(ge=0)] = Field(
        8,
        description="new starts of a lost engine within ten minutes; at one more the service stops",
    )
    engine_hang_seconds: Seconds = Field(
        120, description="an engine that has work and answers nothing for so long counts as lost"
    )
    shutdown_grace_seconds: WholeSeconds = Field(
        60, description="how long accepted requests may go on after SIGTERM"
    )
    api_key: Annotated[tuple[SecretStr, ...], NoDecode] = Field(
        (), description="keys that clients must send, separated by commas [none: anyone may ask]"
    )
    api_key_file: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="file of such keys, one per line; read again when it changes",
    )
    open_routes: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="routes that need no key, beside the probes and the page, separated by commas,"
        " such as /metrics [none]",
    )
    allowed_hosts: Annotated[tuple[str, ...], NoDecode] = Field(
        (),
        description="hosts, without ports and separated by commas, by which a service without keys"
        " may be asked beside localhost and its address, such as a proxy's [none]",
    )
    key_pairs_per_second: Annotated[float, Field(ge=1e-3, allow_inf_nan=False)] | None = Field(
        None,
        description="pairs that each key may send per second; up to 60 seconds of them are saved up"
        " [no limit but those of all requests]",
    )
    policy_tokenizer: str | None = Field(
        None,
        description="folder or hub id of the policy's tokenizer: texts that OpenRLHF and slime send"
        " in its template are rendered again in the reward model's [used as they are]",
    )
    principle: Annotated[str, Field(min_length=1)] | None = Field(
        None,
        description="what pairs are judged by that name no principle, for models that are asked"
        " about one; trainers' protocols name none [such a pair is refused]",
    )
    hold_seconds: Annotated[float, Field(ge=0, le=MOST_SECONDS, allow_inf_nan=False)] = Field(
        150,
        description="how long requests of trainers that do not come back wait while the model loads"
        " or the engine starts again; below the time-out of their clients",
    )
    trainer_truncate: Literal["prompt_start", "never"] = Field(
        "prompt_start", description="what the trainers' protocols do with a pair that is too long"
    )
    vector: Literal["reward", "attributes"] = Field(
        "reward",
        description="what vectors in the trainers' protocols hold: the reward alone, or the"
        " attributes and then the reward",
    )
    score_range: Annotated[tuple[FiniteFloat, FiniteFloat] | None, NoDecode] = Field(
        None,
        description="LOW,HIGH: the rewards that become 0 and 1 in OpenRLHF's scores [the lowest and"
        " the highest that attributes from 0 to 4 give; the logistic function for a scalar reward]",
    )
    reward_path: Annotated[str, Field(pattern=r"^(/[A-Za-z0-9_.-]+)+$")] = Field(
        "/reward", description="path at which slime asks for rewards"
    )
    otlp_traces_endpoint: Annotated[str, Field(pattern=_ENDPOINT)] | None = Field(
        None,
        description="where OpenTelemetry traces are sent, such as http://HOST:4317; OpenTelemetry's"
        " own variables (OTEL_*) set the rest [no traces]",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="log level")
    log_format: Literal["auto", "json", "text"] = Field(
        "auto", description="format of log lines; auto is text in a terminal and JSON elsewhere"
    )
    log_texts: bool = Field(
        False, description="log what clients send, for debugging: prompts, responses and errors"
    )

    @field_validator("model", "policy_tokenizer", "api_key_file")
    @classmethod
    def _expand_home(cls, model: str | None) -> str | None:
        return str(Path(model).expanduser()) if model and model.startswith("~") else model

    @field_validator("name")
    @classmethod
    def _not_empty(cls, name: str | None) -> str | None:
        if name is not None and not name.strip():
            raise ValueError("the name is empty: give one, or leave it out for the model's own")
        return name

    @field_validator("api_key", "open_routes", "allowed_hosts", "score_range", mode="before")
    @classmethod
    def _split(cls, value: Any) -> Any:
        return [part.strip() for part in value.split(",")] if isinstance(value, str) else value

    @field_validator("api_key")
    @classmethod
    def _usable(cls, keys: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        if any(not KEY.fullmatch(key.get_secret_value()) for key in keys):
            raise ValueError(KEY_RULE)
        return keys

    @field_validator("allowed_hosts")
    @classmethod
    def _are_hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        if any(not HOST.fullmatch(host) for host in hosts):
            raise ValueError("give names or addresses of hosts, without scheme and port")
        return hosts

    @field_validator("score_range")
    @classmethod
    def _rising(cls, bounds: tuple[float, float] | None) -> tuple[float, float] | None:
        if bounds is not None and bounds[0] >= bounds[1]:
            raise ValueError("LOW must be below HIGH")
        return bounds

    @property
    def guarded(self) -> bool:
        """Whether clients must send a key."""
        return bool(self.api_key) or self.api_key_file is not None


def load(flags: dict[str, Any]) -> Settings:
    """The settings: from flags, else from the environment, else the defaults.

    Raises:
        ConfigurationError: a variable is unknown, or a value out of range; the error names the flag
            or the variable.
    """
    _refuse_unknown_variables(os.environ)
    try:
        return Settings(**flags)
    except ValidationError as error:
        fault = error.errors()[0]
        name = str(fault["loc"][0])
        given = f"--{name.replace('_', '-')}" if name in flags else PREFIX + name.upper()
        # A key is never shown, and an endpoint that is refused may hold one.
        secret = name in ("api_key", "otlp_traces_endpoint")
        got = "" if secret else f", got {fault['input']!r}"
        raise ConfigurationError(f"{given}: {without_kind(fault['msg'])}{got}") from error
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
