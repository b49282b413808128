"""Engine options as they are given: flags, variables and JSON, brought into one form.

``--engine.hf-overrides.num_labels 1``, ``--engine.hf_overrides '{"num_labels": 1}'`` and
``FIVESCORE_ENGINE__HF_OVERRIDES__NUM_LABELS=1`` in the environment mean the same. The names and
values are the engine's; nothing here knows which it has.
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

    Parts of one option (``name.part``, ``name.list+``, a whole JSON object) become one dict; where
    two give the same part, the later one counts.

    Raises:
        ConfigurationError: a part of an option whose whole value is no JSON object.
    """
    found: dict[str, Any] = {}
    for given, value in options.items():
        name, *parts = given.split(".")
        name = name.replace("-", "_")
        if parts:
            part = _nested(parts, value)
            found[name] = combined(name, found.get(name), part)
        elif isinstance(found.get(name), dict):
            found[name] = combined(name, found[name], value)
        else:
            found[name] = value
    return found


def change_outputs(options: Mapping[str, Any]) -> bool:
    """Whether the options can change the number of outputs; then only the engine knows it."""
    return not OVERRIDES.isdisjoint(merged(options))


def combined(name: str, first: Any, second: Any) -> dict[str, Any]:
    """Two JSON objects as one, also where they are given as text; ``second`` wins.

    Raises:
        ConfigurationError: one of them is no JSON object.
    """
    return _deep(_mapping(name, first), _mapping(name, second))


def _nested(parts: list[str], value: Any) -> dict[str, Any]:
    *outer, last = parts
    if last.endswith("+"):  # the engine's sign for a part that is a list
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
    except ValueError:  # a word
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


def _deep(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    result = dict(first)
    for name, value in second.items():
        before = result.get(name)
        if isinstance(before, dict) and isinstance(value, dict):
            result[name] = _deep(before, value)
        elif isinstance(before, list) and isinstance(value, list):
            result[name] = [*before, *value]
        else:
            result[name] = value
    return result
