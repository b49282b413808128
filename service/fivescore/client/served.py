"""Requests the model, manifest and versions that servers report, before anything is scored."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import httpx

from fivescore.client.answers import failure
from fivescore.client.errors import BadAnswer, Unreachable
from fivescore.client.exchange import read
from fivescore.client.replicas import Address, addresses
from fivescore.client.retry import Failure, Retry, with_retries
from fivescore.errors import ConfigurationError

TRY_SECONDS = 30.0
"""Time limit of one try; these routes do not wait for the engine."""
MANIFEST = ("version", "outputs", "attributes", "reward", "head", "prompt", "max_tokens", "source",
            "proof")  # fmt: skip
"""The manifest's members in the answer of ``GET /manifest``: ``fivescore.model.manifest.Manifest``,
which a client does not import. Beside them it has facts of the server, which change with its
version."""


@dataclass(frozen=True)
class Served:
    """The model that all replicas at ``urls`` serve.

    ``manifest`` is that in the answer of ``GET /manifest``, ``versions`` that of ``GET /version``.
    """

    urls: tuple[str, ...]
    model: str
    manifest: dict[str, Any]
    versions: dict[str, Any]
    digest: str | None = None
    """The digest of the model's files; None where the server does not know it (yet)."""

    @property
    def identity(self) -> dict[str, Any]:
        """What must be equal for scores to be comparable."""
        return {"model": self.model, "manifest": self.manifest}


def served_at(urls: str | None, retry_seconds: float) -> Served:
    """The model that all replicas at ``urls`` serve; waits for one that is still loading.

    Raises:
        ConfigurationError: they serve different models, or a URL is not a server's address.
        FivescoreError: one cannot be reached within ``retry_seconds``, or answers an error.
    """
    give_up_at = time.monotonic() + retry_seconds
    replicas = [_request(address, give_up_at) for address in addresses(urls, None)]
    first = replicas[0]
    digest = next((replica.digest for replica in replicas if replica.digest is not None), None)
    for other in replicas[1:]:
        if other.identity != first.identity or other.digest not in (None, digest):
            raise ConfigurationError(
                f"{first.urls[0]} and {other.urls[0]} serve different models or manifests"
                f" ({first.model}, {other.model}): give replicas of one model"
            )
    return replace(first, urls=tuple(replica.urls[0] for replica in replicas), digest=digest)


def _request(address: Address, give_up_at: float) -> Served:
    headers = {"Authorization": f"Bearer {address.key}"} if address.key else {}
    apart = httpx.Limits(max_keepalive_connections=0)  # so no answer can be that of the last one
    with httpx.Client(
        base_url=address.url, headers=headers, timeout=TRY_SECONDS, limits=apart
    ) as http:

        def get(path: str) -> dict[str, Any]:
            return with_retries(lambda: _get(http, path), give_up_at - time.monotonic())

        try:
            model = str(get("/v1/models")["data"][0]["id"])
        except (LookupError, TypeError) as error:
            raise BadAnswer(f"{address.url}: is it a fivescore server?") from error
        answered = get("/manifest")
        manifest = {name: answered[name] for name in MANIFEST if name in answered}
        digest = answered.get("digest")
        return Served((address.url,), model, manifest, get("/version"), digest)


def _get(http: httpx.Client, path: str) -> dict[str, Any]:
    """The JSON object at ``path``.

    Raises:
        Failure: the server cannot be reached, or answers something else.
    """
    try:
        with http.stream("GET", path, headers={"Accept-Encoding": "identity"}) as response:
            answer = read(response)
    except httpx.TransportError as error:
        reason = f"{http.base_url} cannot be reached: {error or repr(error)}"
        raise Failure(Unreachable(reason), Retry.ANOTHER_REPLICA) from error
    if not answer.is_success:
        failed = failure(answer)
        answered = f"{answer.url} answered {answer.status}"
        detail = failed.error.detail.removeprefix(f"{answered} ")
        may_recover = failed.retry in (Retry.ANOTHER_REPLICA, Retry.SAME_REPLICA)
        kind = Unreachable if may_recover else BadAnswer
        raise Failure(kind(f"{answered}: {detail}"), failed.retry, failed.retry_after)
    try:
        body = answer.json()
    except ValueError:
        body = None
    if not isinstance(body, dict):
        reason = f"{answer.url} did not answer a JSON object: is it a fivescore server?"
        raise Failure(BadAnswer(reason), Retry.NEVER)
    return body
