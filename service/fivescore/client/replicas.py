"""Chooses the replica of a prompt: the same one for all of its responses, while it is there."""

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
    """Where a replica is, without what follows its path, and the key that it wants."""

    url: str
    key: str | None = field(repr=False)


def addresses(urls: str | Sequence[str] | None, api_key: str | None) -> tuple[Address, ...]:
    """Addresses as given, or as the environment says.

    Args:
        urls: one, several, or one text with commas; None reads FIVESCORE_URL.
        api_key: None reads the first key of FIVESCORE_API_KEY. A key inside a URL, as in
            ``http://user:KEY@host``, counts for that replica.

    Raises:
        ConfigurationError: one is no address of a server; names it, without its key.
    """
    if urls is None:
        urls = os.environ.get(URL_VARIABLE) or DEFAULT_URL
    if api_key is None:
        api_key = os.environ.get(KEY_VARIABLE, "").partition(",")[0].strip() or None
    given = urls.split(",") if isinstance(urls, str) else urls
    found = [_address(url.strip(), api_key) for url in given if url.strip()]
    if not found:
        raise ConfigurationError(f"no server's address is given: such as {DEFAULT_URL}")
    return tuple(dict.fromkeys(found))


def _address(text: str, api_key: str | None) -> Address:
    shown = _without_key(text)
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise ConfigurationError(f"{shown}: {error}") from None
    if url.scheme not in ("http", "https") or not url.host or url.query or url.fragment:
        raise ConfigurationError(f"{shown}: give an address such as {DEFAULT_URL}")
    key = url.password or url.username or api_key
    if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
        raise ConfigurationError("the API key has characters that no HTTP header can carry")
    return Address(str(url.copy_with(username=None, password=None)).rstrip("/"), key)


def _without_key(url: str) -> str:
    scheme, separator, rest = url.rpartition("://")
    return scheme + separator + rest.rpartition("@")[2].partition("?")[0]


class Replica:
    """One server, and whether it is left alone for now."""

    def __init__(self, address: Address) -> None:
        self.url = address.url
        self.headers = {"Content-Type": "application/json"}
        if address.key is not None:
            self.headers["Authorization"] = f"Bearer {address.key}"
        self.away_until = 0.0
        self._failures = 0
        self._failed_at = -math.inf
        self._logged = False

    def is_up(self, now: float) -> bool:
        return now >= self.away_until

    def fail(self, started: float, now: float, advised: float) -> None:
        """Leave it alone for a while. What was under way when it failed counts once."""
        if started > self._failed_at:
            self._failures += 1
            self._failed_at = now
        self.away_until = max(self.away_until, now + backoff(self._failures, advised))

    def succeed(self, started: float) -> None:
        """It answered a request that was sent at ``started``."""
        if started < self._failed_at:
            return
        if self._logged:
            log.info("%s works again", self.url)
        self._failures, self.away_until, self._logged = 0, 0.0, False

    def log(self, error: FivescoreError, seconds: float) -> None:
        """Log that requests to it are tried again; logs once until it works again."""
        if not self._logged:
            reason = error.detail.removeprefix(f"{self.url}: ")
            log.warning("%s: %s; trying again for up to %.0f s", self.url, reason, seconds)
            self._logged = True


class Replicas:
    """Rendezvous hashing: every client ranks the replicas alike for a prompt, and when one goes
    only its own prompts move."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self.all = [Replica(address) for address in addresses]

    def ranked(self, prompt: str) -> list[Replica]:
        """All replicas, the prompt's own first."""
        if len(self.all) == 1:
            return self.all
        return sorted(self.all, key=lambda replica: _weight(replica.url, prompt), reverse=True)

    def back_at(self) -> float:
        """When the first of them is tried again."""
        return min(replica.away_until for replica in self.all)


def _weight(url: str, prompt: str) -> bytes:
    text = f"{url}\n{prompt}".encode("utf-8", "surrogatepass")
    return hashlib.blake2b(text, digest_size=8).digest()
