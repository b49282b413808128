"""Without keys, what a web page of another site makes a browser send is refused.

A page may send a simple POST to this machine, which would spend the engine's time. By a name that
it resolves anew to a loopback address (DNS rebinding) it could read the answers as well.
Starlette's ``TrustedHostMiddleware`` knows neither IPv6 addresses nor ``Origin``.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterator
from urllib.parse import urlsplit

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from fivescore.errors import ForeignHost, ForeignOrigin, ForeignSite, printable
from fivescore.http.auth import OPEN, holder_of
from fivescore.http.problems import on_error

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:\[\]/@\s]+)(:\d{0,5})?")
_PORTS = {"http": "80", "https": "443"}
_OWN_SITE = (b"same-origin", b"none")
"""Values of ``Sec-Fetch-Site``: the page itself asks, or a person does, by the address bar."""
_READING = ("GET", "HEAD", "OPTIONS")
"""Methods that change nothing; a page of another site cannot read their answers."""
PROBES = OPEN - {"/"}
MOST_SHOWN = 60
"""Characters of a refused header that its error shows."""


class Hosts:
    """ASGI middleware, inside of ``Keys``: refuses requests of foreign pages that need no key.

    Args:
        address, name: what the service listens on, and the setting's name for it. On a loopback
            address, or with ``allowed`` hosts, a request must ask for this machine, one of these
            two, or one of those.
        allowed: further hosts, without ports.
        guarded: whether there are keys; then only routes that the operator opened are checked, and
            by what names the service is asked is the keys' affair.
    """

    def __init__(
        self, app: ASGIApp, address: str, name: str, allowed: Collection[str], guarded: bool
    ) -> None:
        self._app = app
        self._allowed = frozenset(map(_normal, allowed))
        self._names = self._allowed | {_normal(address), _normal(name)}
        self._loopback = is_loopback(address)
        self._checks_host = not guarded and (self._loopback or bool(allowed))
        self._guarded = guarded

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = self._fault(scope) if scope["type"] == "http" else None
        if error is None:
            await self._app(scope, receive, send)
            return
        response = await on_error(Request(scope), error)
        await response(scope, receive, send)

    def _fault(self, scope: Scope) -> ForeignSite | None:
        if holder_of(scope) is not None or (self._guarded and scope["path"] in OPEN):
            return None
        hosts = list(_values(scope, b"host"))
        if self._checks_host and (self._loopback or scope["path"] not in PROBES):
            for host in hosts:
                if not self._is_ours(host):
                    return _foreign_host(host)
        return self._foreign_origin(scope, hosts)

    def _is_ours(self, host: bytes) -> bool:
        authority = _AUTHORITY.fullmatch(host.decode("latin-1").strip())
        return authority is not None and (
            (name := _normal(authority[1])) in self._names or is_loopback(name)
        )

    def _foreign_origin(self, scope: Scope, hosts: list[bytes]) -> ForeignOrigin | None:
        sites = list(_values(scope, b"sec-fetch-site"))
        if sites and all(site.strip().lower() in _OWN_SITE for site in sites):
            return None
        origins = list(_values(scope, b"origin"))
        foreign = [one for one in origins if not self._is_own(one, hosts)]
        if foreign or (sites and not origins and scope["method"] not in _READING):
            return _foreign(foreign[0] if foreign else sites[0])
        return None

    def _is_own(self, origin: bytes, hosts: list[bytes]) -> bool:
        """Whether an origin is where the request goes to; behind a proxy, a name of the proxy's."""
        try:
            parts = urlsplit(origin.decode("latin-1").strip())
            name, port = _normal(parts.hostname or ""), str(parts.port or _PORTS[parts.scheme])
        except (ValueError, KeyError):  # no address, or "null"
            return False
        ports = {f":{port}", None} if port in _PORTS.values() else {f":{port}"}
        targets = (_AUTHORITY.fullmatch(host.decode("latin-1").strip()) for host in hosts)
        return name in self._allowed or any(
            target and _normal(target[1]) == name and target[2] in ports for target in targets
        )


def is_loopback(host: str) -> bool:
    """Whether a host, as ``--host`` or a request names it, is this machine's own."""
    name = _normal(host)
    if name == "localhost" or name.endswith(".localhost"):  # RFC 6761: always loopback
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _normal(host: str) -> str:
    """A host in the one form in which hosts are compared."""
    name = host.strip("[]").lower().removesuffix(".")
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return name
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _values(scope: Scope, wanted: bytes) -> Iterator[bytes]:
    return (value for name, value in scope["headers"] if name == wanted)


def _shown(value: bytes) -> str:
    return printable(value.decode("latin-1"))[:MOST_SHOWN]


def _foreign_host(host: bytes) -> ForeignHost:
    return ForeignHost(
        f"Host: {_shown(host)!r} is no name of this service, which has no keys: ask for it as"
        " localhost, by the address that it listens on, or by a name that --allowed-hosts gives"
    )


def _foreign(origin: bytes) -> ForeignOrigin:
    return ForeignOrigin(
        f"Origin: a web page of another site ({_shown(origin)!r}) sent this request, and the"
        " service has no keys: open the service's own page, set keys, or name the page's host in"
        " --allowed-hosts"
    )
