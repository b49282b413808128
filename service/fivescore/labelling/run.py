"""What an output says about the run that made it, and whether another run may continue it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fivescore import __version__
from fivescore.client.served import Served

KEY = "fivescore"
"""The member of the side file, and the key of Parquet's metadata, that holds the description."""


def description(served: Served, options: Mapping[str, Any]) -> dict[str, Any]:
    """The description of a run: what must be the same for a later run to continue it.

    It holds no times and no addresses, so that the same run gives the same files.
    """
    return {
        "command": "fivescore score",
        "version": __version__,
        "model": served.model,
        "digest": served.digest,
        "manifest": served.manifest,
        "options": dict(options),
    }


def difference(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between two descriptions, as ``NAME was VALUE, now VALUE``; empty if nothing.

    A model is its digest; the name counts where one of the two has no digest.
    """
    digests = before.get("digest"), now.get("digest")
    name = "model" if None in digests else "digest"
    if before.get(name) != now.get(name):
        return f"{_model(before)} was asked, now {_model(now)}"
    if before.get("manifest") != now.get("manifest"):
        return f"the manifest of {now['model']} (reward.json) was another one"
    earlier, later = before.get("options", {}), now["options"]
    for option in [*later, *(earlier.keys() - later.keys())]:
        if earlier.get(option) != later.get(option):
            return f"{option} was {_value(earlier.get(option))}, now {_value(later.get(option))}"
    return ""


def _model(about: Mapping[str, Any]) -> str:
    digest = f" (digest {about['digest'][:12]})" if about.get("digest") else ""
    return f"model {about.get('model')}{digest}"


def _value(value: Any) -> str:
    return "not set" if value is None else json.dumps(value, ensure_ascii=False)
