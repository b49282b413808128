"""Names of repositories on the Hugging Face hub, and the data sets there."""

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
"""One of the hub's first models, which have no owner, such as ``gpt2``."""


def load(name: str, split: str | None = None, folder: str | None = None) -> dict[str, Any]:
    """The splits of a data set by name: the one called ``split``, or all of them.

    Args:
        folder: the folder of the repository that holds the data, where it is not the top.

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
        found = load_dataset(name, data_dir=folder, split=split)
    except Exception as error:  # it raises dozens of kinds, from four libraries
        called = f"{name} (split {split})" if split else name
        raise ConfigurationError(
            f"{called} cannot be loaded from the hub: {first_line(error)}; download it elsewhere"
            f" and give its file instead of {name}"
        ) from error
    return {split: found} if split else dict(found)


def rows(split: str, found: Any) -> Iterator[Row]:
    """The rows of a split that ``load`` returned."""
    for number, value in enumerate(found, 1):
        yield Row(split, number, dict(value))
