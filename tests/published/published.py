"""What a row of the table of published models is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from tests.published.rendering import Rendering

Head = Literal["linear", "token", "mlp", "gated"]
Values = dict[str, float]
"""``reward``, and attributes by the names that the model's card gives a meaning to."""


@dataclass(frozen=True)
class Published:
    """A tiny checkpoint of a published model's shape, and its published reward.

    Args:
        source: the folder, as a user would have downloaded it.
        rendering: the token ids of a pair.
        values: token ids to the reward, float32, by the published formula.
        options: of ``fivescore import``, beside the source and the output.
        direct: flags with which ``fivescore serve`` takes the source as it is; None where it has to
            be imported.
        unread: a token that the head is not read at where it stands last, so that it need not be
            computed.
    """

    source: Path
    rendering: Rendering
    values: Callable[[Sequence[int]], Values]
    options: tuple[str, ...] = ()
    direct: tuple[str, ...] | None = None
    unread: int | None = None

    def read(self, ids: Sequence[int]) -> list[int]:
        """The ids up to the one that the head is read at."""
        last = max(place for place, id_ in enumerate(ids) if id_ != self.unread)
        return list(ids[: last + 1])


class Row(NamedTuple):
    """A row: its kind of head, and the maker of its checkpoint in an empty folder."""

    head: Head
    make: Callable[[Path], Published]
