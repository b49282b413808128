"""The description of the routes."""

from __future__ import annotations

import re
from typing import Any

from fivescore import __version__
from fivescore.http.app import ROUTES
from tests.integration.service import Json, Service, strict


def resolve(document: Json, reference: str) -> Any:
    assert reference.startswith("#/"), reference
    node: Any = document
    for part in reference[2:].split("/"):
        node = node[part.replace("~1", "/").replace("~0", "~")]
    return node


async def test_every_route_is_described_and_every_reference_resolves(service: Service) -> None:
    response = await service.http.get("/openapi.json")
    document = strict(response)
    assert document["openapi"].startswith("3.")
    assert document["info"] == {"title": "fivescore", "version": __version__}
    assert len(ROUTES) == sum(map(len, document["paths"].values()))
    for method, path, _ in ROUTES:
        operation = document["paths"][path][method.lower()]
        assert {"200", "500", "503"} <= operation["responses"].keys()
        assert ("requestBody" in operation) == (method == "POST")
    references = set(re.findall(r'"\$ref":\s*"([^"]*)"', response.text))
    assert references
    for reference in references:
        assert isinstance(resolve(document, reference), dict), reference


async def test_openapi_describes_both_bodies_of_score(service: Service) -> None:
    document = strict(await service.http.get("/openapi.json"))
    operation = document["paths"]["/score"]["post"]
    assert operation["description"]
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    bodies = [
        resolve(document, body["$ref"]) if "$ref" in body else body for body in schema["anyOf"]
    ]
    options = {"weights", "truncate", "timeout_seconds", "principle"}
    fields = [set(body["properties"]) for body in bodies]
    assert {"pairs", *options} in fields
    assert {"prompt", "response", "text", "token_ids", *options} in fields
