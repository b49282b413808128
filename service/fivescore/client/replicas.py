"""Chooses the replica of a prompt: the same one for all of its responses, while it is up."""

from __future__ import annotations

import hashlib
import logging
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass, field

import httpx

from fivescore.client.retry import backoff
from fivescore.errors import ConfigurationError, FivescoreError

log = logging.getLogger(__name__)

DEFAULT_URL = "http://127.0.0.1:8000"
URL_VARIABLE = "FIVESCORE_URL"
KEY_VARIABLE = "FIVESCORE_API_KEY"


@dataclass(frozen=True)
class Address:
    """A replica's URL, without user, query and trailing slash, and the API key for it."""

    url: str
    key: str | None = field(repr=False)


def addresses(urls: str | Sequence[str] | None, api_key: str | None) -> tuple[Address, ...]:
    """The replicas' addresses, from the arguments or else from the environment.

    Args:
        urls: one or several URLs, or one string of them separated by commas; None reads
            FIVESCORE_URL.
        api_key: None reads the first key of FIVESCORE_API_KEY. A key inside a URL, as in
            ``http://user:KEY@host``, replaces it for that replica.

    Raises:
        ConfigurationError: a URL is not a server's address; names it, without its key.
    """
    if urls is None:
        urls = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if api_key is None:
        api_key = os.environ.get(KEY_VARIABLE, "").partition(",")[0].strip() or None
    parts = urls.split(",") if isinstance(urls, str) else urls
    parsed = [_address(url.strip(), api_key) for url in parts if url.strip()]
    if not parsed:
        raise ConfigurationError(f"urls has no address: give one, such as {DEFAULT_URL}")
    return tuple(dict.fromkeys(parsed))


def _address(text: str, api_key: str | None) -> Address:
    shown = _without_key(text)
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ConfigurationError(
            f"{shown} is not the address of a server: give one such as {DEFAULT_URL}"
        )
    key = url.password or url.username or api_key
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError(
            "the API key has characters that an HTTP header cannot carry: use visible ASCII ones"
        )
    return Address(str(url.copy_with(username=None, password=None)).rstrip("/"), key)


def _without_key(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]


class Replica:
    """One server, and until when no request is sent to it after a failure."""

    def __init__(self, address: Address, priority: int = 0) -> None:
        self.url = address.url
        self.headers = {"Content-Type": "application/json"}
        if priority:
            self.headers["X-Priority"] = str(priority)
        if address.key is not None:
            self.headers["Authorization"] = f"Bearer {address.key}"
        self.paused_until = 0.0
        self._failures = 0
        self._failed_at = -math.inf
        self._logged = False

    def is_up(self, now: float) -> bool:
        """Whether requests may be sent to it at ``now`` (seconds of the clock, like all times)."""
        return now >= self.paused_until

    def fail(self, started: float, now: float, retry_after: float) -> None:
        """Pause it after a failure. Requests that were running at a failure count once in all.

        Args:
            started: when the failed request was sent.
            retry_after: the least pause, in seconds.
        """
        if started > self._failed_at:
            self._failures += 1
            self._failed_at = now
        self.paused_until = max(self.paused_until, now + backoff(self._failures, retry_after))

    def succeed(self, started: float) -> None:
        """Count a request that was sent at ``started`` and answered; ends the pause."""
        if started < self._failed_at:
            return
        if self._logged:
            log.info("%s works again", self.url)
        self._failures, self.paused_until, self._logged = 0, 0.0, False

    def log(self, error: FivescoreError, seconds: float) -> None:
        """Log that its requests are retried for up to ``seconds``; once until it works again."""
        if not self._logged:
            reason = error.detail.removeprefix(f"{self.url}: ")
            log.warning("%s: %s; retrying for up to %.0f s", self.url, reason, seconds)
            self._logged = True


class Replicas:
    """All replicas, ranked per prompt by rendezvous hashing.

    Every client ranks them alike, and when one goes down only its own prompts move.
    """

    def __init__(self, addresses: Sequence[Address], priority: int = 0) -> None:
        self.all = [Replica(address, priority) for address in addresses]

    def ranked(self, prompt: str) -> list[Replica]:
        """All replicas in the order in which to try them for a prompt."""
        if len(self.all) == 1:
            return self.all
        return sorted(self.all, key=lambda replica: _weight(replica.url, prompt), reverse=True)

    def back_at(self) -> float:
        """When the first paused replica is tried again, in the clock's seconds."""
        return min(replica.paused_until for replica in self.all)


def _weight(url: str, prompt: str) -> bytes:
    text = f"{url}\n{prompt}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).digest()
