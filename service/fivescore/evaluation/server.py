"""What is served at an address: asked before anything is scored there."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import httpx

from fivescore.client.answers import failure
from fivescore.client.errors import BadAnswer, Unreachable
from fivescore.client.replicas import Address, addresses
from fivescore.client.retry import Cure, Failure, persist
from fivescore.errors import ConfigurationError

ASK_SECONDS = 30.0
"""How long one try may take: these routes do not wait for the engine."""


@dataclass(frozen=True)
class Served:
    """A model as its server tells it; replicas at several ``urls`` serve the same one.

    ``manifest`` is what ``GET /manifest`` answers, ``versions`` what ``GET /version`` does.
    """

    urls: tuple[str, ...]
    model: str
    manifest: dict[str, Any]
    versions: dict[str, Any]

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between scores that are to be compared."""
        return {"model": self.model, "manifest": self.manifest}


def ask(urls: str | None, retry_seconds: float) -> Served:
    """What all replicas at ``urls`` serve; waits for one that is still loading.

    Raises:
        ConfigurationError: they serve different models, or an address is none.
        FivescoreError: one cannot be reached for ``retry_seconds``, or refuses.
    """
    give_up_at = time.monotonic() + retry_seconds
    found = [_ask(address, give_up_at) for address in addresses(urls, None)]
    first = found[0]
    for other in found[1:]:
        if other.identity != first.identity:
            raise ConfigurationError(
                f"{first.urls[0]} and {other.urls[0]} serve different models or manifests"
                f" ({first.model}, {other.model}): give replicas of one model"
            )
    return Served(tuple(one.urls[0] for one in found), first.model, first.manifest, first.versions)


def _ask(address: Address, give_up_at: float) -> Served:
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    with httpx.Client(base_url=address.url, headers=headers, timeout=ASK_SECONDS) as http:

        def get(path: str) -> dict[str, Any]:
            return persist(lambda: _get(http, path), give_up_at - time.monotonic())

        try:
            model = str(get("/v1/models")["data"][0]["id"])
        except (LookupError, TypeError) as error:
            raise BadAnswer(f"{address.url}: is it a fivescore server?") from error
        return Served((address.url,), model, get("/manifest"), get("/version"))


def _get(http: httpx.Client, path: str) -> dict[str, Any]:
    """The JSON object at ``path``.

    Raises:
        Failure: there is none.
    """
    try:
        response = http.get(path)
    except httpx.TransportError as error:
        reason = f"{http.base_url} cannot be reached: {error or repr(error)}"
        raise Failure(Unreachable(reason), Cure.ELSEWHERE) from error
    if not response.is_success:
        found = failure(response)
        detail = found.error.detail.removeprefix(f"{response.url} answered {response.status_code} ")
        kind = Unreachable if found.cure in (Cure.ELSEWHERE, Cure.LATER) else BadAnswer
        error_ = kind(f"{response.url} answered {response.status_code}: {detail}")
        raise Failure(error_, found.cure, found.advised)
    try:
        body = response.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        reason = f"{response.url} did not answer a JSON object: is it a fivescore server?"
        raise Failure(BadAnswer(reason), Cure.NOTHING)
    return body
