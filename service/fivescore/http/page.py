"""``GET /``: a page to try the model in. It holds no data: its script asks the other routes."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response


def _read(kind: str) -> str:
    return Path(__file__).with_suffix(f".{kind}").read_text(encoding="utf-8")


def _source(text: str) -> str:
    """The one inline script or style that a Content-Security-Policy allows."""
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


async def page(request: Request) -> Response:
    """The page, open to all; it asks for a key where the service has keys, before any data."""
    key = "required" if request.app.state.settings.guarded else "none"
    return Response(_PAGE.replace("{{key}}", key), headers=_HEADERS, media_type="text/html")
