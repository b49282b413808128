"""Tensors that a distributed checkpoint holds in pieces, read region by region."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Region:
    """A box of a tensor: its first index and its length along each axis."""

    start: Shape
    shape: Shape

    def within(self, start: Shape) -> tuple[slice, ...]:
        """The region as slices of a tensor whose first element is at ``start``."""
        return tuple(
            slice(own - other, own - other + length)
            for own, other, length in zip(self.start, start, self.shape, strict=True)
        )

    def common(self, other: Region) -> Region | None:
        """What lies in both; None where nothing does."""
        starts = tuple(map(max, self.start, other.start))
        ends = [
            min(a + m, b + n)
            for a, m, b, n in zip(self.start, self.shape, other.start, other.shape, strict=True)
        ]
        lengths = tuple(end - start for start, end in zip(starts, ends, strict=True))
        return Region(starts, lengths) if all(length > 0 for length in lengths) else None


@dataclass(frozen=True, slots=True)
class Stored:
    """A whole tensor's shape and type."""

    shape: Shape
    dtype: torch.dtype

    def part(self, *leading: int, rows: tuple[int, int] | None = None) -> Region:
        """The region at fixed leading indices, of all rows or of ``rows`` (first, end)."""
        inner = self.shape[len(leading) :]
        start = (*leading, *(0 for _ in inner))
        shape = (*(1 for _ in leading), *inner)
        if rows is not None:
            place = len(leading)
            start = (*start[:place], rows[0], *start[place + 1 :])
            shape = (*shape[:place], rows[1] - rows[0], *shape[place + 1 :])
        return Region(start, shape)


class Store(Protocol):
    """A checkpoint's tensors by their names."""

    @property
    def tensors(self) -> Mapping[str, Stored]: ...

    def check(self, names: Sequence[str]) -> None:
        """Check by sizes alone that all pieces of these tensors are there.

        Raises:
            ConfigurationError: a file is missing or cut short, or a part is in none.
        """

    def read(self, name: str, region: Region) -> torch.Tensor:
        """A region; nothing else is kept in memory but the piece that is copied from.

        Raises:
            ConfigurationError: its bytes are not what the checkpoint's index says.
        """
