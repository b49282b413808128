"""Normalises engine options from flags, environment variables and JSON.

``--engine.hf-overrides.num_labels 1``, ``--engine.hf_overrides '{"num_labels": 1}'`` and
``FIVESCORE_ENGINE__HF_OVERRIDES__NUM_LABELS=1`` in the environment mean the same. Names and values
are not checked here: the engine does that.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from fivescore.errors import ConfigurationError

OVERRIDES = frozenset({"outputs", "hf_overrides"})
"""Options that can change the number of a model's outputs."""


def merged(options: Mapping[str, Any]) -> dict[str, Any]:
    """Each option once, with ``_`` in its name and without dots.

    Parts of one option (``name.part``, ``name.list+``, a whole JSON object) become one dict; the
    later of two values for the same part counts.

    Raises:
        ConfigurationError: an option has parts, but its whole value is not a JSON object.
    """
    result: dict[str, Any] = {}
    for key, value in options.items():
        name, *parts = key.split(".")
        name = name.replace("-", "_")
        if parts:
            part = _nested(parts, value)
            result[name] = combined(name, result.get(name), part)
        elif isinstance(result.get(name), dict):
            result[name] = combined(name, result[name], value)
        else:
            result[name] = value
    return result


def change_outputs(options: Mapping[str, Any]) -> bool:
    """Whether the options can change the number of outputs, which then only the engine knows."""
    return not OVERRIDES.isdisjoint(merged(options))


def combined(name: str, first: Any, second: Any) -> dict[str, Any]:
    """Two JSON objects, or their text, merged recursively; ``second`` wins, and lists are joined.

    Raises:
        ConfigurationError: one of them is not a JSON object.
    """
    return _merge(_mapping(name, first), _mapping(name, second))


def _nested(parts: list[str], value: Any) -> dict[str, Any]:
    *outer, last = parts
    if last.endswith("+"):  # vLLM's notation for a part that is a list
        last, value = last[:-1], str(value).split(",")
    else:
        value = _from_json(value)
    for part in (last, *reversed(outer)):
        value = {part: value}
    assert isinstance(value, dict)
    return value


def _from_json(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() in ("true", "false"):
        return value.lower() == "true"
    try:
        return json.loads(value)
    except ValueError:  # a plain string
        return value


def _mapping(name: str, value: Any) -> dict[str, Any]:
    whole = {} if value is None else _from_json(value)
    if not isinstance(whole, dict):
        flag = name.replace("_", "-")
        raise ConfigurationError(
            f"--engine.{flag} is {value!r}, so it has no parts: give --engine.{flag} a JSON object,"
            f" or only --engine.{flag}.NAME"
        )
    return whole


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    result = dict(first)
    for name, value in second.items():
        before = result.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            result[name] = _merge(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            result[name] = [*before, *value]
        else:
            result[name] = value
    return result
