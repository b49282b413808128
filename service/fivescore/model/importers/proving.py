"""The proof of an import: what the source's own formula gives over transformers' body."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fivescore.errors import ConfigurationError, first_line
from fivescore.model import manifest as manifests
from fivescore.model import proof, reference_head, tensors
from fivescore.model.importers import meaning
from fivescore.model.importers.plan import Plan
from fivescore.model.manifest import Manifest, Proof
from fivescore.model.reference import proof_pairs
from fivescore.model.streaming import StreamedBody


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
        chosen = proof_pairs(place, plan.manifest)
        body = StreamedBody(place, written, str(folder))
        limit = min(plan.manifest.max_tokens or body.max_tokens, body.max_tokens)
        chosen = [(pair, ids) for pair, ids in chosen if len(ids) <= limit]
        if not chosen:
            raise ConfigurationError(f"no pair of the proof fits into {limit} tokens")
        sequences = [ids for _, ids in chosen]
        try:
            states = body.hidden_states(sequences, lambda count: done(count / len(chosen)))
        except (RuntimeError, ValueError, LookupError) as error:  # of a config.json that misfits
            raise ConfigurationError(
                f"transformers cannot compute the proof: {first_line(error)}"
            ) from error
        head = plan.head or reference_head.read(
            str(place), None, plan.manifest.head, plan.manifest.outputs, body.config
        )
    proved = tuple(
        proof.proved_pair(pair, ids, _finite(head(found, ids)))
        for (pair, ids), found in zip(chosen, states, strict=True)
    )
    kept = Proof(reference=f"transformers {__version__}, float32", pairs=proved)
    return plan.manifest.model_copy(update={"proof": kept, "version": manifests.NEWEST})


def _finite(outputs: Sequence[float]) -> Sequence[float]:
    if not all(map(math.isfinite, outputs)):
        raise ConfigurationError(
            f"the reference gives {next(x for x in outputs if not math.isfinite(x))} for a pair of"
            " the proof: the weights are damaged, or config.json is of another model"
        )
    return outputs


def _weights(folder: Path) -> dict[str, Path]:
    """Files of weights, for a body that is loaded whole."""
    names = [*folder.glob("*.safetensors"), *folder.glob("*.index.json")]
    return {file.name: file for file in names}
