"""``X-Priority``: which requests run first when the engine cannot run all at once."""

from __future__ import annotations

import re

from starlette.requests import Request

from fivescore.errors import InvalidRequest
from fivescore.scoring.fairness import PRIORITIES

HEADER = "X-Priority"


def priority_of(request: Request) -> int:
    """The request's priority, 0 without the header; as in vLLM, lower numbers run first.

    Raises:
        InvalidRequest: the header is not an integer within ``PRIORITIES``.
    """
    text = request.headers.get(HEADER, "0")
    least, most = PRIORITIES
    if not re.fullmatch(r"-?\d{1,4}", text) or not least <= int(text) <= most:
        detail = f"must be an integer from {least} to {most}; lower numbers run first"
        raise InvalidRequest(f"{HEADER}: {detail}", [{"field": HEADER, "detail": detail}])
    return int(text)
