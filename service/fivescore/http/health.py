"""Probes, metrics, and what the service runs. None of them calls the engine."""

from __future__ import annotations

import time

from starlette.requests import Request
from starlette.responses import Response

from fivescore import __version__
from fivescore.http.body import json_response
from fivescore.http.request import service_of
from fivescore.http.schema import STRING, Description, described, list_of, obj
from fivescore.model.manifest import NEWEST

SCALAR = "-scalar"
"""Suffix of the model name whose chat completions hold only the combined reward."""
_STARTED = int(time.time())
_PROBE = Description(answer=obj(("status",), status=STRING), is_probe=True)


@described(_PROBE)
async def live(request: Request) -> Response:
    """200 while the service can recover by itself, 503 once its engine has stopped for good."""
    state = service_of(request).state
    return json_response({"status": state}, 503 if state == "failed" else 200)


@described(_PROBE)
async def ready(request: Request) -> Response:
    """200 while requests are taken, 503 while loading, restarting, draining or failed."""
    state = service_of(request).state
    return json_response({"status": state}, 200 if state == "ready" else 503)


@described(Description(media=("text/plain",)))
async def metrics(request: Request) -> Response:
    """Metrics of the service, of vLLM and of the process, in Prometheus's text format."""
    exposition = service_of(request).metrics.exposition()
    return Response(exposition, media_type="text/plain; version=0.0.4; charset=utf-8")


@described(Description(answer=obj(("version", "engine"), version=STRING)))
async def version(request: Request) -> Response:
    """fivescore's version and the engine's, which is null before the model is loaded."""
    service = service_of(request)
    engine = service.model.info.engine if service.has_model else None
    return json_response({"version": __version__, "engine": engine})


@described(Description(answer=obj(("object", "data"), data=list_of(obj(("id", "max_model_len"))))))
async def models(request: Request) -> Response:
    """The model's names, in OpenAI's form: its own, and that for the combined reward alone."""
    model = service_of(request).model
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


@described(
    Description(
        answer=obj(("outputs", "attributes", "reward", "prompt", "max_tokens", "digest", "proved"))
    )
)
async def manifest(request: Request) -> Response:
    """The reward manifest and the token limit in force, the digest of the model's files, and
    whether its load was proved."""
    service = service_of(request)
    model = service.model
    newest = model.manifest.model_copy(update={"version": NEWEST})
    body = newest.model_dump(mode="json", by_alias=True, exclude={"proof"})
    loaded = {"max_tokens": model.max_tokens, "digest": service.digest, "proved": model.proved}
    return json_response({**body, **loaded})
