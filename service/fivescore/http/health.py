"""Is it alive, is it ready, what is it? No engine call in a probe."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from fivescore import __version__
from fivescore.http.body import json_response
from fivescore.scoring.scorer import Scorer

SCALAR = "-scalar"
"""Ending of the model name that answers chat completions with the combined reward alone."""
_STARTED = int(time.time())


def scorer_of(request: Request) -> Scorer:
    """The app's scorer."""
    scorer: Scorer = request.app.state.scorer
    return scorer


async def live(request: Request) -> Response:
    """200 while the process can recover by itself, 503 once its engine has stopped for good."""
    state = scorer_of(request).service.state
    return json_response({"status": state}, 503 if state == "failed" else 200)


async def ready(request: Request) -> Response:
    """200 when requests are taken, 503 while loading, draining or failed."""
    state = scorer_of(request).service.state
    return json_response({"status": state}, 200 if state == "ready" else 503)


async def metrics(request: Request) -> Response:
    """Prometheus text format: the service's metrics, vLLM's and the process's."""
    exposition = scorer_of(request).service.metrics.exposition()
    return Response(exposition, media_type="text/plain; version=0.0.4; charset=utf-8")


async def version(request: Request) -> Response:
    """fivescore's version and, once loaded, the engine's."""
    scorer = scorer_of(request)
    engine = scorer.service.model.info.engine if scorer.service.has_model else None
    return json_response({"version": __version__, "engine": engine})


async def models(request: Request) -> Response:
    """The served model and the name under which it answers its reward alone, in OpenAI's shape."""
    model = scorer_of(request).service.model
    data = [
        {
            "id": name,
            "object": "model",
            "created": _STARTED,
            "owned_by": "fivescore",
            "max_model_len": model.max_tokens,
        }
        for name in (model.name, model.name + SCALAR)
    ]
    return json_response({"object": "list", "data": data})


async def manifest(request: Request) -> Response:
    """The reward manifest in force."""
    model = scorer_of(request).service.model
    body = model.manifest.model_dump(mode="json")
    return json_response({**body, "max_tokens": model.max_tokens})
