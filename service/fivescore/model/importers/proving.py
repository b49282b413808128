"""The proof of an import: what the source's own formula gives over transformers' body."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, InvalidPair
from fivescore.model import manifest as manifests
from fivescore.model import proof, reference_head, tensors, tokenizer_file
from fivescore.model.conversation import Conversation
from fivescore.model.importers import meaning
from fivescore.model.importers.plan import Plan
from fivescore.model.manifest import Manifest, Proof
from fivescore.model.reference import ReferenceTokenizer
from fivescore.model.streaming import StreamedBody
from fivescore.types import Pair


def prove(plan: Plan, folder: Path, done: Callable[[float], Any]) -> Manifest:
    """The plan's manifest with a proof over the weights that lie in ``folder``.

    Args:
        done: called with the share of the work that this adds, out of 1.

    Raises:
        ConfigurationError: transformers has no such body or other token ids, or no pair fits.
    """
    from transformers import __version__

    written = tensors.stored(folder, str(folder))
    with meaning.written(plan.config, {**plan.files, **_weights(folder)}) as place:
        chosen = _pairs(plan, place)
        body = StreamedBody(place, written, str(folder))
        limit = min(plan.manifest.max_tokens or body.max_tokens, body.max_tokens)
        chosen = [(pair, ids) for pair, ids in chosen if len(ids) <= limit]
        if not chosen:
            raise ConfigurationError(f"no pair of the proof fits into {limit} tokens")
        sequences = [ids for _, ids in chosen]
        states = body.hidden_states(sequences, lambda count: done(count / len(chosen)))
        head = plan.head or reference_head.read(
            str(place), None, plan.manifest.head, plan.manifest.outputs, body.config
        )
    proved = tuple(
        proof.proved_pair(pair, ids, head(found, ids))
        for (pair, ids), found in zip(chosen, states, strict=True)
    )
    kept = Proof(reference=f"transformers {__version__}, float32", pairs=proved)
    return plan.manifest.model_copy(update={"proof": kept, "version": manifests.NEWEST})


def _pairs(plan: Plan, folder: Path) -> list[tuple[Pair, list[int]]]:
    """The proof's pairs with their token ids, which are the reference's too."""
    prompt = plan.manifest.prompt
    pad = meaning.pad_id(plan.config)
    conversation = Conversation(prompt, tokenizer_file.read(str(folder)), pad)
    reference = ReferenceTokenizer(str(folder), prompt, pad)
    found = []
    pairs = proof.with_principle(proof.PAIRS, prompt)
    for place, (pair, ids) in enumerate(zip(pairs, conversation.encode(pairs), strict=True)):
        if isinstance(ids, InvalidPair):
            continue
        if reference.plain(pair) and ids != reference.token_ids(pair):
            raise ConfigurationError(
                f"{folder}: the token ids of {proof.named(place, pair)} are not the reference's:"
                " import with --no-proof, then fivescore check shows where they differ"
            )
        found.append((pair, ids))
    return found


def _weights(folder: Path) -> dict[str, Path]:
    """Files of weights, for a body that is loaded whole."""
    names = [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]
    return {file.name: file for file in names}
