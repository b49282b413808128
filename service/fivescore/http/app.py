"""The app: its routes, its middleware and its lifespan."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from fivescore import __version__
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.http import health, page, problems, routes
from fivescore.http.auth import OPEN, Keys, open_routes
from fivescore.http.beside import Beside
from fivescore.http.budget import Budget
from fivescore.http.context import RequestContext
from fivescore.http.holding import Holding
from fivescore.http.hosts import Hosts
from fivescore.http.keyring import Keyring
from fivescore.http.openapi import describe
from fivescore.http.protocols import llama_factory, nemo_gym, openai, openrlhf, slime, tei, vllm
from fivescore.http.protocols.protocol import Translated, answer, context_of
from fivescore.http.ratelimit import RateLimit
from fivescore.http.request import body_of, read
from fivescore.http.schema import Description, described, either
from fivescore.scoring.scorer import Scorer
from fivescore.settings import Settings

if TYPE_CHECKING:
    from fivescore.telemetry.tracing import Tracing

log = logging.getLogger(__name__)


@described(
    Description(
        body=either(*routes.BODIES, *vllm.SIDES),
        answer=either(*routes.ANSWERS, vllm.DATA),
        definitions=routes.DEFINITIONS,
        errors=routes.ERRORS,
    )
)
async def score(request: Request) -> Response:
    """Score pairs: fivescore's own body, or vLLM's.

    In an answer to fivescore's own body a pair that fails has its error in its place, and its
    neighbours are not affected.
    """
    received = await body_of(request)
    context = context_of(request)

    def parse(body: Any) -> Translated | routes.Asked:
        if vllm.asks_for_score(body):
            return vllm.scores(body, context)
        problems.use_protocol_errors(request.scope, False)  # until here it had the form of both
        return routes.parse(body)

    asked = await read(request, received, parse)
    del received  # or it would take memory until the answer
    if isinstance(asked, Translated):
        return await answer(request, asked)
    return await routes.score(request, asked)


REWARD = "/reward"
"""slime's route, unless ``--reward-path`` moves it."""
Routes = tuple[tuple[str, str, Callable[[Request], Coroutine[Any, Any, Response]]], ...]
PROTOCOLS: Routes = (
    ("POST", "/v1/score", vllm.score),
    ("POST", "/rerank", vllm.rerank),
    ("POST", "/v1/rerank", vllm.rerank),
    ("POST", "/v2/rerank", vllm.rerank),
    ("POST", "/classify", vllm.classify),
    ("POST", "/pooling", vllm.pooling),
    ("POST", "/v1/embeddings", vllm.embeddings),
    ("POST", "/v1/chat/completions", openai.chat_completions),
    ("GET", "/v1/models", health.models),
    ("POST", "/get_reward", openrlhf.get_reward),
    ("POST", "/v1/score/evaluation", llama_factory.evaluation),
    ("POST", REWARD, slime.reward),
    ("POST", "/verify", nemo_gym.verify),
    ("POST", "/seed_session", nemo_gym.seed_session),
    ("POST", "/predict", tei.predict),
)
"""Routes of other services' wire formats; their errors have a form that their clients read."""
ROUTES: Routes = (
    ("GET", "/", page.page),
    ("POST", "/score", score),
    *PROTOCOLS,
    ("GET", "/manifest", health.manifest),
    ("GET", "/health", health.ready),
    ("GET", "/health/ready", health.ready),
    ("GET", "/health/live", health.live),
    ("GET", "/metrics", health.metrics),
    ("GET", "/version", health.version),
)


class Plain(APIRoute):
    """A route whose endpoint takes the request itself, without FastAPI's parsing of parameters."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


def create_app(
    settings: Settings,
    scorer: Scorer,
    tracing: Tracing | None = None,
    address: str | None = None,
) -> FastAPI:
    """The service's app. Its lifespan starts loading the model; it answers meanwhile.

    Args:
        tracing: makes a span of every request; closed at the end of the lifespan.
        address: what the service listens on; by default the setting's host.

    Raises:
        ConfigurationError: the settings name a path that clashes or does not exist, or the file of
            keys cannot be used.
    """

    keyring = Keyring((key.get_secret_value() for key in settings.api_key), settings.api_key_file)

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(scorer))
        watching = asyncio.create_task(keyring.watch())
        yield
        loading.cancel()
        watching.cancel()
        await scorer.close()
        if tracing is not None:
            await asyncio.to_thread(tracing.close)

    app = FastAPI(
        title="fivescore",
        version=__version__,
        lifespan=life,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.router.route_class = Plain
    app.state.scorer = scorer
    app.state.settings = settings
    app.state.holding = Holding(scorer.service, settings)
    most_bytes = max(settings.max_receiving_bytes, settings.max_body_bytes)
    refused = scorer.service.metrics.rejections.labels("bytes").inc
    app.state.budget = Budget(most_bytes, refused)
    app.state.beside = Beside(most_bytes, refused)
    scorer.service.metrics.receiving.set_function(lambda: app.state.budget.held)
    app.state.rate_limit = RateLimit(settings.key_pairs_per_second)
    _add_routes(app, settings.reward_path)
    paths_of_protocols = {"/score", settings.reward_path, *(path for _, path, _ in PROTOCOLS)}
    paths = {path for route in app.routes if (path := getattr(route, "path", None))}
    app.add_middleware(
        Hosts,
        address=address or settings.host,
        name=settings.host,
        allowed=settings.allowed_hosts,
        guarded=settings.guarded,
    )
    app.add_middleware(Keys, keyring=keyring, open_routes=open_routes(settings.open_routes, paths))
    app.add_middleware(
        RequestContext,
        metrics=scorer.service.metrics,
        tracing=tracing,
        log_texts=settings.log_texts,
        paths=paths,
        protocol_paths=paths_of_protocols,
    )
    app.add_exception_handler(FivescoreError, problems.on_error)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    app.openapi = lambda: describe(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _add_routes(app: FastAPI, reward_path: str) -> None:
    if reward_path != REWARD and reward_path in {path for _, path, _ in ROUTES}:
        raise ConfigurationError(
            f"--reward-path: {reward_path} is the path of another route: choose another one"
        )
    for method, path, endpoint in ROUTES:
        served_at = reward_path if path == REWARD else path
        app.add_api_route(served_at, endpoint, methods=[method], response_model=None)
        if path in OPEN:  # some load balancers probe with HEAD
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)


async def _load(scorer: Scorer) -> None:
    with suppress(Exception):  # the service has called its ``on_failure`` with it
        await scorer.load()
