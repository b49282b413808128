"""The deployments of Ray Serve, and the application that is made of them."""

from __future__ import annotations

import logging
import math
from typing import Any, cast

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from ray import serve
from ray.serve.config import AutoscalingConfig, AutoscalingPolicy, RequestRouterConfig
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fivescore.errors import ConfigurationError, without_kind
from fivescore.http.app import create_app
from fivescore.ray.engines import SEQUENCES, EngineReplica
from fivescore.ray.remote import RemoteEngine
from fivescore.scoring.lifecycle import Service
from fivescore.scoring.scorer import Scorer
from fivescore.serve import freeze_heap, start_tracing
from fivescore.settings import load
from fivescore.telemetry import logging as logs
from fivescore.telemetry.metrics import Metrics

log = logging.getLogger(__name__)

QUIET = {"enable_access_log": False}
"""Ray's own line for each call; each request has one of fivescore's."""
ENGINES, HTTP = "engines", "http"
"""The names of the deployments."""
ROUTER = "ray.serve.experimental.consistent_hash_router.ConsistentHashRouter"
MOST_ONGOING = 100_000
"""Calls that a replica takes at once, which is to say all: the engine has the queue."""
GRACE_SECONDS = 300.0
"""How long a replica that Ray takes away may finish what it has."""


class Arguments(BaseModel):
    """What ``serve run fivescore.ray:app NAME=VALUE`` and ``args`` of a Serve file may say. All
    else is said by the settings' variables, ``FIVESCORE_*``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    engines: int = Field(1, ge=1)
    """Engine replicas; the fewest, where ``most_engines`` says that there may be more."""
    most_engines: int | None = Field(None, ge=1)
    """The most engine replicas; None: always ``engines``."""
    sequences_per_engine: int = Field(256, ge=1)
    """With more than this in flight for each engine replica, there are more of them."""
    http: int = Field(1, ge=1)
    """HTTP replicas."""
    gpus: float = Field(0.0, ge=0)
    """GPUs of an engine replica: as many as its tensor parallelism has ranks."""
    cpus: float = Field(1.0, gt=0)
    """CPUs that Ray reserves for an engine replica."""

    @model_validator(mode="after")
    def _in_order(self) -> Arguments:
        if self.most < self.engines:
            raise ValueError(f"most_engines {self.most} is less than engines {self.engines}")
        return self

    @property
    def most(self) -> int:
        """The most engine replicas."""
        return self.engines if self.most_engines is None else self.most_engines


def app(given: dict[str, Any]) -> serve.Application:
    """The application, for ``serve run`` and Serve files.

    Args:
        given: as ``Arguments``.

    Raises:
        ConfigurationError: an argument or a setting is wrong.
    """
    try:
        arguments = Arguments.model_validate(given)
    except ValidationError as error:
        fault = error.errors()[0]
        name = ".".join(map(str, fault["loc"])) or "arguments"
        known = ", ".join(Arguments.model_fields)
        raise ConfigurationError(
            f"{name}: {without_kind(fault['msg'])} (known: {known})"
        ) from error
    load({})  # a mistake shows here, and not in each replica's log
    deployment: Any = serve.deployment  # its annotations are those of a decorator
    engines = deployment(EngineReplica).options(
        name=ENGINES,
        max_ongoing_requests=MOST_ONGOING,
        graceful_shutdown_timeout_s=GRACE_SECONDS,
        health_check_period_s=5,
        logging_config=QUIET,
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        request_router_config=RequestRouterConfig(request_router_class=cast("Any", ROUTER)),
        **_number_of(arguments),
    )
    http = deployment(serve.ingress(_build)(Http)).options(
        name=HTTP,
        num_replicas=arguments.http,
        logging_config=QUIET,
        max_ongoing_requests=MOST_ONGOING,
        graceful_shutdown_timeout_s=GRACE_SECONDS,
    )
    bound: serve.Application = http.bind(engines.bind(), arguments.most)
    return bound


def _number_of(arguments: Arguments) -> dict[str, Any]:
    if arguments.most == arguments.engines:
        return {"num_replicas": arguments.engines}
    return {
        "autoscaling_config": AutoscalingConfig(
            min_replicas=arguments.engines,
            max_replicas=arguments.most,
            target_ongoing_requests=arguments.sequences_per_engine,
            # An RL step sends all its pairs at once, and none while the policy learns.
            upscale_delay_s=30,
            downscale_delay_s=1800,
            policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
                policy_function="fivescore.ray.deployments:wanted"
            ),
        )
    }


def wanted(context: Any) -> tuple[int, dict[str, Any]]:
    """Ray's autoscaling policy: as many replicas as the sequences in flight need.

    Args:
        context: ``ray.serve.config.AutoscalingContext``.

    Returns: the number, and a state that is not used.
    """
    found = context.aggregated_metrics.get(SEQUENCES, {})
    config = context.config
    number = math.ceil(sum(found.values()) / config.target_ongoing_requests)
    return max(config.min_replicas, min(config.max_replicas, number)), {}


class Http:
    """An HTTP replica: the whole app, whose engine is the engine replicas."""

    failure: Exception | None = None
    """Why it cannot go on."""
    most_engines = 1

    def __init__(self, engines: Any, most_engines: int) -> None:
        Http.most_engines = most_engines  # ``_build`` is called next, and without arguments

    def check_health(self) -> None:
        """For Ray, which replaces a replica that raises.

        Raises:
            Exception: the model cannot be loaded, or is not that of the engines.
        """
        if Http.failure is not None:
            raise Http.failure


def _build() -> FastAPI:
    settings = load({})
    logs.configure(settings.log_level, settings.log_format)
    handle = serve.get_deployment_handle(ENGINES)
    most = Http.most_engines

    def fail(error: Exception) -> None:
        log.error("the replica has failed: %s", error)
        Http.failure = error

    service = Service(settings, lambda *_: RemoteEngine(handle, most), Metrics(), freeze_heap, fail)
    app = create_app(settings, Scorer(service), start_tracing(settings.otlp_traces_endpoint))
    app.add_middleware(_Pickled)
    return app


class _Pickled:
    """Middleware: bodies as bytes, since Ray pickles what an app sends."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_bytes(message: Message) -> None:
            if isinstance(message.get("body"), memoryview):
                message = {**message, "body": bytes(message["body"])}
            await send(message)

        await self._app(scope, receive, send_bytes)
