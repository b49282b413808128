"""Scores as a pandas data frame."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fivescore.client.rows import Pairs, rows_of
from fivescore.errors import ConfigurationError, FivescoreError
from fivescore.types import Score

if TYPE_CHECKING:
    import pandas


def scores_to_frame(
    scores: Sequence[Score | FivescoreError | None], pairs: Pairs | None = None, *, prefix: str = ""
) -> pandas.DataFrame:
    """One row per score: a column per attribute, ``reward``, ``tokens``, ``cached_tokens`` and
    ``truncated``. Where a pair failed they are empty, and ``error`` has its code (a column only if
    one failed).

    Args:
        scores: what ``score`` returned.
        pairs: the pairs that were scored; their columns come first, and a data frame's index stays.
            A generator is used up by ``score``: give a list.
        prefix: text before the names of the scores' columns.

    Raises:
        ConfigurationError: pandas is not installed, the numbers of pairs and scores differ, or the
            pairs have a column that the scores have too.
    """
    try:
        import pandas
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            "scores_to_frame needs pandas, which is not installed: pip install pandas"
        ) from error
    found = pandas.DataFrame([_row(one) for one in scores]).add_prefix(prefix)
    if pairs is None:
        return found
    rows = pairs if isinstance(pairs, pandas.DataFrame) else pandas.DataFrame(_dicts(pairs))
    if len(rows) != len(scores):
        raise ConfigurationError(f"there are {len(rows)} pairs and {len(scores)} scores")
    if both := rows.columns.intersection(found.columns).tolist():
        raise ConfigurationError(
            f"the pairs have a column {both[0]}, and so do the scores: give a prefix"
        )
    return pandas.concat([rows, found.set_index(rows.index)], axis="columns")


def _row(result: Score | FivescoreError | None) -> dict[str, Any]:
    if isinstance(result, Score):
        return result.to_dict()
    return {} if result is None else {"error": result.code}


def _dicts(pairs: Pairs) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for row in rows_of(pairs):
        if isinstance(row, tuple | list) and len(row) == 2:
            rows.append({"prompt": row[0], "response": row[1]})
        else:
            dumped: Any = row.model_dump(exclude_none=True) if hasattr(row, "model_dump") else row
            rows.append(dict(dumped))
    return rows
