"""``GET /``: a page to try the model on. It holds no data: its script asks the other routes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from fivescore.http.request import settings_of
from fivescore.http.schema import Description, described


def _read(kind: str) -> str:
    return Path(__file__).with_suffix(f".{kind}").read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The source of an inline script or style, for a Content-Security-Policy."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


_STYLE, _SCRIPT = _read("css"), _read("js")
_PAGE = _read("html").replace("{{style}}", _STYLE).replace("{{script}}", _SCRIPT)
_HEADERS = {
    "Content-Security-Policy": "; ".join(
        (
            "default-src 'none'",
            f"script-src {_source(_SCRIPT)}",
            f"style-src {_source(_STYLE)}",
            "connect-src 'self'",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "frame-ancestors 'none'",
            "require-trusted-types-for 'script'",  # the browser refuses text as markup
            "trusted-types 'none'",
        )
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@described(Description(media=("text/html",)))
async def page(request: Request) -> Response:
    """The page. It needs no key, and asks for one before it shows data if the service has keys."""
    key = "required" if settings_of(request).guarded else "none"
    return Response(_PAGE.replace("{{key}}", key), headers=_HEADERS, media_type="text/html")
