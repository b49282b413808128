"""JSON schemas of bodies and answers; each endpoint carries its own, which ``openapi`` collects."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

Schema = dict[str, Any]
Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])

JSON = "application/json"
STRING: Schema = {"type": "string"}
NUMBER: Schema = {"type": "number"}
COUNT: Schema = {"type": "integer", "minimum": 0}
FLAG: Schema = {"type": "boolean"}


@dataclass(frozen=True, slots=True)
class Description:
    """What an endpoint takes and answers.

    Args:
        answer: schema of the JSON that is answered with 200.
        media: media types of that answer.
        body: schema of the body; None where the endpoint reads none.
        body_required: whether a request without a body is refused.
        example: a body that ``/docs`` shows.
        definitions: schemas that ``body`` refers to, by name.
        errors: statuses that no other endpoint answers, each with its description.
        is_probe: a 503 is an answer like the 200, not a problem document.
    """

    answer: Schema = field(default_factory=dict)
    media: tuple[str, ...] = (JSON,)
    body: Schema | None = None
    body_required: bool = True
    example: Any = None
    definitions: Mapping[str, Schema] = field(default_factory=dict)
    errors: Mapping[int, str] = field(default_factory=dict)
    is_probe: bool = False


def described(description: Description) -> Callable[[Endpoint], Endpoint]:
    """Attach a description to an endpoint."""

    def attach(endpoint: Endpoint) -> Endpoint:
        endpoint.__dict__["description"] = description
        return endpoint

    return attach


def description_of(endpoint: Callable[..., Any]) -> Description:
    """The description that ``described`` attached."""
    description: Description = endpoint.__dict__["description"]
    return description


def obj(required: tuple[str, ...] = (), **properties: Schema) -> Schema:
    """An object with some required members; it may have others."""
    return {"type": "object", "properties": properties, "required": list(required)}


def list_of(items: Schema, least: int = 0) -> Schema:
    """A list of at least ``least`` items."""
    return {"type": "array", "items": items, "minItems": least}


def either(*schemas: Schema) -> Schema:
    """A value that fits one of the schemas."""
    return {"anyOf": list(schemas)}
