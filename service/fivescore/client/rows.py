"""Makes pairs of what people have: dicts, tuples, generators, data frames."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from difflib import SequenceMatcher
from typing import Any, TypeAlias

from fivescore import content
from fivescore.client.columns import Given, Unclear, layout
from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.types import PAIR_FIELDS, Pair

PairLike: TypeAlias = Mapping[str, Any] | Pair | tuple[Any, Any] | list[Any] | InvalidPair
"""A pair as ``POST /score`` takes it, a row of a data set that holds one, a ``Pair``,
``(prompt, response)``, or the error of what is none."""
Pairs: TypeAlias = Iterable[PairLike] | Mapping[str, Any] | Any
"""Pairs: any iterable of them, one dict, a dict of columns, or a pandas, polars or Arrow table."""
_KNOWN = PAIR_FIELDS | content.OF_ROWS
_ALIKE = 0.85
"""Similarity (``difflib``) from which a name is a misspelt field: reponse, not response_id."""


def rows_of(pairs: Pairs) -> list[PairLike]:
    """The pairs one by one.

    Raises:
        ConfigurationError: ``pairs`` is nothing that holds pairs.
    """
    for method, arguments in (("to_pylist", ()), ("to_dicts", ()), ("to_dict", ("records",))):
        if hasattr(pairs, method) and hasattr(pairs, "columns"):  # Arrow, polars, pandas
            return [_python(row) for row in getattr(pairs, method)(*arguments)]
    if isinstance(pairs, Mapping):
        return _of_columns(pairs) if _is_columns(pairs) else [pairs]
    if isinstance(pairs, Pair):
        return [pairs]
    if isinstance(pairs, str | bytes) or not isinstance(pairs, Iterable):
        raise ConfigurationError(
            f"pairs: {type(pairs).__name__} holds no pairs: give a list of (prompt, response), of"
            " dicts, or a data frame"
        )
    rows = list(pairs)
    is_pair = len(rows) == 2 and all(isinstance(one, str) for one in rows)
    return [(rows[0], rows[1])] if is_pair else rows


def fields_of(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row's fields in the form of ``POST /score``; what only describes the row is left out.

    A field that looks like a misspelt one stays, and is refused by name like one whose content
    would be dropped.

    Raises:
        InvalidPair: which of the row's columns hold the pair is not clear.
    """
    if row.keys() <= _KNOWN:
        return row
    try:
        found = layout([row], Given(), "the pair")
    except Unclear as error:
        if not error.candidates:
            return row
        raise InvalidPair(f"{error.what}: send prompt and response alone") from error
    misspelt = {name: row[name] for name in row.keys() - set(found.named) if _is_misspelt(name)}
    return {**misspelt, **found.pair(row)}


def _is_misspelt(name: str) -> bool:
    return name not in PAIR_FIELDS and any(
        SequenceMatcher(None, str(name).lower(), field).ratio() >= _ALIKE for field in PAIR_FIELDS
    )


def _is_columns(table: Mapping[str, Any]) -> bool:
    """Whether a dict holds columns, as a slice of a data set does, and not one pair."""
    lists = [_listed(values) for values in table.values()]
    if not lists or None in lists or len({len(one or ()) for one in lists}) != 1:
        return False
    return not lists[0] or any(isinstance(one[0], str | list) for one in lists if one)


def _listed(values: Any) -> list[Any] | None:
    values = _python(values)
    return list(values) if isinstance(values, list | tuple) else None


def _of_columns(table: Mapping[str, Any]) -> list[PairLike]:
    columns = [_listed(values) or [] for values in table.values()]
    return [dict(zip(table, row, strict=True)) for row in zip(*columns, strict=True)]


def _python(value: Any) -> Any:
    """A value with lists where tables have arrays, and None where pandas has NaN."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_python(one) for one in value]
    if isinstance(value, Mapping):
        return {str(name): _python(one) for name, one in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
