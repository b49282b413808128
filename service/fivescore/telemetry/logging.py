"""Log lines for people, on standard error."""

from __future__ import annotations

import logging


def configure(level: str) -> None:
    """Send fivescore's log to standard error from ``level`` up, and others' from warning up."""
    handler = logging.StreamHandler()
    handler.setFormatter(
        logging.Formatter("%(asctime)s %(levelname)-7s %(message)s", "%Y-%m-%d %H:%M:%S")
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("fivescore").setLevel(level.upper())
