"""``fivescore check``: the engine that ``serve`` would start, compared with a reference.

The reference is transformers in float32. What agrees can be kept as a proof in ``reward.json``:
each later start of an engine is then compared with it.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tqdm import tqdm
from transformers.utils import logging as transformers_logging

from fivescore.data import markdown
from fivescore.data.formats import read_file
from fivescore.engine.base import Engine
from fivescore.engine.vllm import entrance
from fivescore.errors import ConfigurationError, FivescoreError, InvalidPair, NotProved
from fivescore.exhaustion import LEAST_ADDRESSES_OF_VLLM, check_addresses
from fivescore.model import manifest as manifests
from fivescore.model import proof
from fivescore.model.checkpoint import Checkpoint, Model
from fivescore.model.checkpoint import check as check_model
from fivescore.model.manifest import FILE_NAME, MOST_PROVED, PRESETS, Proof
from fivescore.model.reference import Reference, ReferenceTokenizer
from fivescore.model.token_ids import first_difference
from fivescore.scoring.proving import prove
from fivescore.serve import make_engine
from fivescore.settings import Settings, load
from fivescore.telemetry import logging as logs
from fivescore.types import Pair, parse_pair

BAR = "{desc}: {percentage:3.0f}%|{bar}| {elapsed}<{remaining}"
SHOWN_IDS = 4
"""Token ids that are shown of each side where they differ."""


@dataclass(frozen=True, slots=True)
class Compared:
    """One pair on both sides."""

    place: int
    pair: Pair
    token_ids: list[int]
    fault: str
    """How the token ids differ; empty where they are equal."""
    engine: list[float]
    """The engine's outputs, ``[outputs]``."""
    reference: list[float]

    @property
    def largest(self) -> float:
        """The largest difference of an output."""
        return max(abs(a - b) for a, b in zip(self.engine, self.reference, strict=True))


def check(flags: dict[str, Any]) -> int:
    """Compare, print a table, and with ``write`` keep a proof; returns the exit status.

    Raises:
        ConfigurationError: one of the two cannot be loaded, or the proof cannot be written.
    """
    write, file = flags.pop("write"), flags.pop("pairs")
    settings = load({"log_level": "warning", **flags})  # the table is what is asked for
    logs.configure(settings.log_level, settings.log_format)
    check_model(settings.model)
    if settings.backend != "vllm":
        raise ConfigurationError("--backend fake makes its scores up: there is nothing to check")
    check_addresses(LEAST_ADDRESSES_OF_VLLM)
    target = _target(settings) if write else None
    pairs = proof.PAIRS if file is None else _pairs(file, write)
    if not sys.stderr.isatty():
        transformers_logging.disable_progress_bar()
    model, pairs, ids, outputs = asyncio.run(_engine_side(settings, pairs, write))
    reference = Reference(
        settings.model, model.info.outputs, model.manifest.head,
        revision=settings.revision, trust_remote_code=settings.trust_remote_code,
    )  # fmt: skip
    compared = _compare(settings, model, pairs, ids, outputs, reference)
    verdict, agrees = _verdict(compared, model, reference)
    print(_table(compared))
    print(verdict)
    if target is None:
        return 0 if agrees else 1
    if not agrees:
        raise ConfigurationError(f"{target} is not written: see the line above")
    proved = (proof.proved_pair(one.pair, one.token_ids, one.reference) for one in compared)
    kept = Proof(reference=reference.name, pairs=tuple(proved))
    manifests.write(target, model.manifest.model_copy(update={"proof": kept}))
    print(f"{target}: a proof of {len(kept.pairs)} pairs is written")
    return 0


def _target(settings: Settings) -> Path:
    """The manifest that gets the proof: the file of ``--manifest``, or that beside the weights."""
    given = settings.manifest
    if given is not None and given not in PRESETS:
        return Path(given)
    if not Path(settings.model).is_dir():
        raise ConfigurationError(
            f"--write: {settings.model} is on the hub: give its folder, or a file with --manifest"
        )
    return Path(settings.model) / FILE_NAME


def _pairs(file: Path, write: bool) -> list[Pair]:
    pairs = []
    for row in read_file(file):
        if row.raw is not None and not row.raw.strip():
            continue
        value = row.value or {}
        names = ("prompt", "response", "principle")
        pair = parse_pair({name: value.get(name) for name in names})
        if isinstance(pair, InvalidPair):
            raise ConfigurationError(f"{row.place}: {row.fault or pair.detail}")
        pairs.append(pair)
    if not pairs:
        raise ConfigurationError(f"{file} has no pairs: give rows with prompt and response")
    if write and len(pairs) > MOST_PROVED:
        raise ConfigurationError(
            f"{file} has {len(pairs)} pairs, and a proof at most {MOST_PROVED}: give fewer"
        )
    return pairs


async def _engine_side(
    settings: Settings, pairs: Sequence[Pair], write: bool
) -> tuple[Model, list[Pair], list[list[int] | InvalidPair], dict[int, list[float]]]:
    """The model, the pairs as it takes them, their token ids, and the engine's outputs by place."""
    entrance.prepare(settings)
    found = await asyncio.to_thread(Checkpoint, settings)
    engine = await asyncio.to_thread(make_engine, settings, found.max_tokens, found.own_head)
    try:
        model = found.fit(await engine.load())
        if model.manifest.proof is not None:
            print(await _kept_proof(engine, model, found))
        if write:
            model = _on_a_day(found, model)
        pairs = proof.with_principle(pairs, model.manifest.prompt)
        ids = model.conversation.encode(pairs)
        outputs = {}
        for place, token_ids in enumerate(ids):
            if not isinstance(token_ids, InvalidPair) and len(token_ids) <= model.max_tokens:
                outputs[place] = (await engine.encode(token_ids, f"check-{place}")).values
        return model, pairs, ids, outputs
    except FivescoreError as error:
        raise ConfigurationError(error.detail) from error
    finally:
        logging.disable(logging.ERROR)  # vLLM may take its own end for a failure
        await engine.close()
        logging.disable(logging.NOTSET)


def _on_a_day(found: Checkpoint, model: Model) -> Model:
    """The model with today for its date, if its template writes one and the manifest has none.

    A proof holds on one day only.
    """
    day, prompt = model.conversation.day, model.manifest.prompt
    if day is None or prompt.date is not None:
        return model
    print(f"The chat template writes the date: prompt.date is now {day}.")
    fixed = prompt.model_copy(update={"date": day})
    manifest = model.manifest.model_copy(update={"prompt": fixed})
    return replace(model, manifest=manifest, conversation=found.conversation(manifest))


async def _kept_proof(engine: Engine, model: Model, found: Checkpoint) -> str:
    """Whether the proof that the manifest has already holds, as a start of the service sees it."""
    try:
        holds = await prove(engine, model, found.samples(), model.info.name)
    except NotProved as error:
        return f"A start is refused: {error.detail}."
    return f"The manifest's proof {'holds' if holds else 'cannot be compared'}."


def _compare(
    settings: Settings,
    model: Model,
    pairs: Sequence[Pair],
    ids: Sequence[list[int] | InvalidPair],
    outputs: dict[int, list[float]],
    reference: Reference,
) -> list[Compared]:
    tokenizer = ReferenceTokenizer(
        settings.model, model.manifest.prompt, reference.pad_id,
        revision=settings.revision, trust_remote_code=settings.trust_remote_code,
    )  # fmt: skip
    chosen: list[tuple[int, Pair, list[int], list[int]]] = []
    for place, (pair, token_ids) in enumerate(zip(pairs, ids, strict=True)):
        if isinstance(token_ids, InvalidPair):
            print(f"{proof.named(place, pair)} is left out: {token_ids.detail}", file=sys.stderr)
        elif place not in outputs:
            print(
                f"{proof.named(place, pair)} is left out: it has {len(token_ids)} tokens, the"
                f" limit is {model.max_tokens}",
                file=sys.stderr,
            )
        else:
            # The service takes a special token's string in a text for text, as no other does.
            other = tokenizer.token_ids(pair) if tokenizer.plain(pair) else token_ids
            chosen.append((place, pair, token_ids, other))
    if not chosen:
        raise ConfigurationError("no pair can be compared: give others with --pairs")
    with tqdm(total=len(chosen), desc="reference", bar_format=BAR, disable=None) as bar:
        values = reference.all_outputs([other for *_, other in chosen], bar.update)
    return [
        Compared(place, pair, ours, _difference(ours, other, tokenizer), outputs[place], found)
        for (place, pair, ours, other), found in zip(chosen, values, strict=True)
    ]


def _difference(ours: Sequence[int], other: Sequence[int], tokenizer: ReferenceTokenizer) -> str:
    """Where two sequences of token ids differ first, and what each side has there."""
    at = first_difference(ours, other)
    if at is None:
        return ""
    sides = (
        " ".join(f"{id_} {tokenizer.token(id_)!r}" for id_ in side[at : at + SHOWN_IDS])
        or "no more"
        for side in (other, ours)
    )
    return "at token {}: the reference has {}, the engine's side has {}".format(at, *sides)


def _verdict(compared: Sequence[Compared], model: Model, reference: Reference) -> tuple[str, bool]:
    """One sentence that says which part disagrees, and whether nothing does."""
    for one in compared:
        if one.fault:
            where = proof.named(one.place, one.pair)
            return f"The token ids of {where} differ {one.fault}.", False
    if not proof.shows_something([one.reference for one in compared]):
        return (
            f"The outputs of {reference.name} are the same for all pairs, so that equal ones show"
            " nothing: is its head all zeros?"
        ), False
    ranges = proof.output_ranges([one.reference for one in compared])
    share, place, output, wanted, found = max(
        (proof.difference(wanted, found, ranges[output]), one.place, output, wanted, found)
        for one in compared
        for output, (wanted, found) in enumerate(zip(one.reference, one.engine, strict=True))
    )
    allowed = proof.tolerance(model.info)
    sides = f"{model.info.engine} and {reference.name}"
    limit = f"{allowed:g} of an output's range is allowed for {proof.precision(model.info)}"
    if share <= allowed:
        worst = max(one.largest for one in compared)
        return f"{sides} agree: token ids are equal, outputs within {worst:.1e}; {limit}.", True
    return (
        f"The outputs of {sides} differ, while token ids are equal: output {output} of pair {place}"
        f" is {found:.6g} for {wanted:.6g}, {share:.2g} of its range; {limit}."
    ), False


def _table(compared: Sequence[Compared]) -> str:
    """Pairs by outputs: the engine's, the reference's, and the largest difference of a pair."""
    rows = [
        [
            one.place,
            len(one.token_ids),
            "differ" if one.fault else "equal",
            " ".join(f"{value:.5f}" for value in one.engine),
            " ".join(f"{value:.5f}" for value in one.reference),
            f"{one.largest:.1e}",
        ]
        for one in compared
    ]
    header = ["pair", "tokens", "token ids", "engine", "reference", "largest difference"]
    return markdown.table(header, rows)
