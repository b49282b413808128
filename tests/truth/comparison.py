"""Scores combinations by the service's own path and by the reference, and judges the difference."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from transformers import AutoConfig

from fivescore.engine.vllm import entrance
from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.model import manifest as manifests
from fivescore.model import proof
from fivescore.model.checkpoint import Checkpoint
from fivescore.model.reference import Reference, ReferenceTokenizer
from fivescore.model.token_ids import first_difference
from fivescore.serve import make_engine
from fivescore.settings import Settings
from fivescore.types import Pair
from tests.truth.combinations import Combination, discard, make

TOLERANCE = 1e-4
"""The largest difference of an output."""
MOST_CHARACTERS = 400
"""The longest refusal."""
PAIRS = (
    *proof.PAIRS,
    Pair(prompt="Think.", response="<think>\nFirst 2, then 3.\n</think>\n\nIt is 5.\n"),
    Pair(prompt="\tTabs\t\tand    spaces  \n\n\n", response="\n\n  yes\n"),
)


class Side(NamedTuple):
    """What the service made of one combination."""

    one: Combination
    folder: Path
    ids: list[list[int] | InvalidPair]


@dataclass
class Verdict:
    """What became of combinations and of their pairs."""

    combinations: Counter[str] = field(default_factory=Counter)
    """By outcome: equal, refused, different."""
    pairs: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    """What is different, or refused in more than a line."""

    def refuse(self, one: Combination, error: ConfigurationError) -> None:
        self.combinations["refused"] += 1
        if "\n" in error.detail or len(error.detail) > MOST_CHARACTERS:
            self.faults.append(f"{one}: refused in {len(error.detail)} characters: {error.detail}")


def compare(combinations: Iterable[Combination], scratch: Path) -> Verdict:
    """Compare combinations; those of one body share an engine."""
    verdict = Verdict()
    by_body: dict[str, list[Side]] = {}
    for one in combinations:
        folder = make(one, scratch / str(one.seed), scratch / "bodies")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                found = Checkpoint(Settings(model=str(folder)))
                ids = found.conversation().encode(PAIRS)
        except ConfigurationError as error:
            verdict.refuse(one, error)
            discard(folder)
            continue
        by_body.setdefault(one.body, []).append(Side(one, folder, ids))
    for sides in by_body.values():
        _compare_body(sides, verdict)
    return verdict


def _compare_body(sides: Sequence[Side], verdict: Verdict) -> None:
    settings = Settings(model=str(sides[0].folder), engine={"dtype": "float32"})
    encoded = [ids for side in sides for ids in side.ids]
    sequences = {tuple(ids) for ids in encoded if not isinstance(ids, InvalidPair)}
    outputs = asyncio.run(_outputs(settings, sorted(sequences)))
    reference = Reference(settings.model, len(next(iter(outputs.values()))))
    for side in sides:
        faults = _faults(side, outputs, reference, verdict)
        verdict.faults += faults
        verdict.combinations["different" if faults else "equal"] += 1


async def _outputs(
    settings: Settings, sequences: Sequence[tuple[int, ...]]
) -> dict[tuple[int, ...], list[float]]:
    entrance.prepare(settings)
    engine = await asyncio.to_thread(make_engine, settings, None)
    try:
        await engine.load()
        found = await asyncio.gather(*(engine.encode(list(ids), "truth") for ids in sequences))
        return {ids: output.values for ids, output in zip(sequences, found, strict=True)}
    finally:
        await engine.close()


def _faults(
    side: Side,
    outputs: dict[tuple[int, ...], list[float]],
    reference: Reference,
    verdict: Verdict,
) -> list[str]:
    pad = AutoConfig.from_pretrained(side.folder).pad_token_id
    manifest = manifests.read(str(side.folder / manifests.FILE_NAME))
    tokenizer = ReferenceTokenizer(str(side.folder), manifest.prompt, pad)
    faults = []
    for pair, ids in zip(PAIRS, side.ids, strict=True):
        if isinstance(ids, InvalidPair):
            verdict.pairs["refused"] += 1
            continue
        plain = tokenizer.plain(pair)
        wanted = tokenizer.token_ids(pair) if plain else ids
        verdict.pairs["plain" if plain else "with a special token's string"] += 1
        at = first_difference(wanted, ids)
        if at is not None:
            around = slice(max(at - 2, 0), at + 4)
            faults.append(
                f"{side.one}: {pair.prompt!r}: token {at}: reference {wanted[around]},"
                f" service {ids[around]}"
            )
            continue
        worst = max(
            abs(a - b) for a, b in zip(outputs[tuple(ids)], reference.outputs(wanted), strict=True)
        )
        if not worst <= TOLERANCE:
            faults.append(f"{side.one}: {pair.prompt!r}: outputs differ by {worst}")
    return faults
