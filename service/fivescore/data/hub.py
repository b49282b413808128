"""Repository names and data sets on the Hugging Face hub."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from fivescore.data.rows import Row
from fivescore.errors import ConfigurationError, first_line

_NAME = r"\w[\w.-]*"
HUB_ID = re.compile(rf"{_NAME}/{_NAME}", re.ASCII)
"""A repository with its owner, such as ``nvidia/HelpSteer2``."""
OLD_HUB_ID = re.compile(_NAME, re.ASCII)
"""A repository without an owner, such as ``gpt2``: some of the hub's first models."""


def load(name: str, split: str | None = None, folder: str | None = None) -> dict[str, Any]:
    """The splits of a data set by name: the one named ``split``, or all of them.

    Args:
        folder: the folder of the repository that holds the data [the top one].

    Raises:
        ConfigurationError: the data set cannot be loaded; says what to do instead.
    """
    try:
        from datasets import load_dataset
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            f"{name}: data sets on the hub need {error.name}, which is not installed:"
            " pip install 'fivescore[evaluate]'"
        ) from error
    try:
        loaded = load_dataset(name, data_dir=folder, split=split)
    except Exception as error:  # it raises dozens of types, from four libraries
        shown = f"{name} (split {split})" if split else name
        raise ConfigurationError(
            f"{shown} cannot be loaded from the hub: {first_line(error)}; download it elsewhere"
            f" and give its file instead of {name}"
        ) from error
    return {split: loaded} if split else dict(loaded)


def rows(split: str, data: Any) -> Iterator[Row]:
    """The rows of a split, of which ``load`` returned the ``data``."""
    for number, value in enumerate(data, 1):
        yield Row(split, number, dict(value))
