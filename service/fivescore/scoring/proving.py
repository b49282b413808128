"""Compares a new engine with the proof in the manifest, before it is used."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from fivescore.engine.base import Engine
from fivescore.errors import NotProved, ScoringError
from fivescore.model import proof
from fivescore.model.checkpoint import Model
from fivescore.model.proof import Sample
from fivescore.types import ModelInfo

log = logging.getLogger(__name__)


async def prove(engine: Engine, model: Model, samples: Sequence[Sample], shown: str) -> bool:
    """Score the proof's pairs; returns False, and warns, where nothing can be compared.

    Args:
        samples: what ``Checkpoint.samples`` returned.
        shown: the checkpoint's folder or hub id in a warning.

    Raises:
        NotProved: an output is not what the proof says.
        EngineDead: the engine stopped.
    """
    manifest, info = model.manifest, model.info
    usable = [sample for sample in samples if len(sample.token_ids) <= info.max_tokens]
    if manifest.proof is None or info.simulated or not usable:
        log.warning("%s", _unproved(shown, manifest.proof is not None, info))
        return False
    largest = 0.0
    for rank in range(info.ranks):
        outputs = await asyncio.gather(*(_outputs(engine, sample, rank) for sample in usable))
        found = proof.check_outputs(manifest.proof, usable, outputs, info)
        largest = max(largest, found)
    log.info(
        "proved: %d pairs as %s, differences up to %.1e of an output's range",
        len(usable), manifest.proof.reference, largest,
    )  # fmt: skip
    return True


async def _outputs(engine: Engine, sample: Sample, rank: int) -> list[float]:
    try:
        return (await engine.encode(sample.token_ids, f"proof-{sample.place}", rank=rank)).values
    except ScoringError as error:
        place = proof.named(sample.place, sample.pair)
        raise NotProved(f"the manifest's proof cannot be compared: {place}: {error}") from error


def _unproved(shown: str, has_proof: bool, info: ModelInfo) -> str:
    if info.simulated:
        return "unproved: the engine is simulated, and its scores mean nothing"
    if has_proof:
        return f"unproved: no pair of the manifest's proof fits into {info.max_tokens} tokens"
    return (
        f"unproved: {shown} has no proof in its manifest, so nothing says that its scores"
        f" are right: fivescore check {shown} --write"
    )
