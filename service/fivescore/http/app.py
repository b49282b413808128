"""The app on one screen: its middleware, its routes, its life."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

from fivescore import __version__
from fivescore.errors import FivescoreError
from fivescore.http import health, problems, routes
from fivescore.http.context import RequestContext
from fivescore.scoring.scorer import Scorer
from fivescore.settings import Settings

log = logging.getLogger(__name__)

ROUTES: tuple[tuple[str, str, Any], ...] = (
    ("POST", "/score", routes.score),
    ("GET", "/manifest", health.manifest),
    ("GET", "/v1/models", health.models),
    ("GET", "/health", health.ready),
    ("GET", "/health/ready", health.ready),
    ("GET", "/health/live", health.live),
    ("GET", "/metrics", health.metrics),
    ("GET", "/version", health.version),
)
REFERENCE = "#/components/schemas/{model}"
BODIES, DEFINITIONS = models_json_schema(
    [(routes.Batch, "validation"), (routes.Single, "validation")], ref_template=REFERENCE
)
SCORE_BODY = {
    "requestBody": {
        "required": True,
        "content": {"application/json": {"schema": {"anyOf": list(BODIES.values())}}},
    }
}


def create_app(
    settings: Settings, scorer: Scorer, on_failure: Callable[[Exception], None]
) -> FastAPI:
    """The service. It listens at once and loads the model meanwhile.

    Args:
        on_failure: called when the model cannot be loaded; the service can then only stop.
    """

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        loading = asyncio.create_task(_load(scorer, on_failure))
        yield
        loading.cancel()
        await scorer.close()

    app = FastAPI(
        title="fivescore",
        version=__version__,
        lifespan=life,
        redoc_url=None,
        redirect_slashes=False,
    )
    app.state.scorer = scorer
    app.state.settings = settings
    app.add_middleware(RequestContext, metrics=scorer.metrics)
    app.add_exception_handler(FivescoreError, problems.on_error)
    app.add_exception_handler(HTTPException, problems.on_http_exception)
    for method, path, endpoint in ROUTES:
        extra = SCORE_BODY if path == "/score" else None
        app.add_api_route(
            path, endpoint, methods=[method], response_model=None, openapi_extra=extra
        )
        if path.startswith("/health"):  # some load balancers probe with HEAD
            app.add_api_route(path, endpoint, methods=["HEAD"], include_in_schema=False)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's documented way
    return app


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's description, with the bodies that ``POST /score`` parses by itself."""
    if app.openapi_schema is None:
        app.openapi_schema = get_openapi(title=app.title, version=app.version, routes=app.routes)
        schemas = app.openapi_schema.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(DEFINITIONS["$defs"])
    return app.openapi_schema


async def _load(scorer: Scorer, on_failure: Callable[[Exception], None]) -> None:
    try:
        await scorer.load()
    except Exception as error:
        on_failure(error)
