"""Pure functions from raw head outputs to attributes and the combined reward."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from fivescore.errors import InvalidRequest, NonFinite
from fivescore.model.manifest import Affine, Manifest
from fivescore.types import Score


def check_weights(weights: Mapping[str, float], manifest: Manifest) -> None:
    """Check a request's weights.

    Raises:
        InvalidRequest: a weight is not finite, or is not of an attribute of the model.
    """
    unknown = weights.keys() - manifest.attributes.keys()
    if unknown or not weights:
        known = ", ".join(manifest.attributes) or "none: this model has a scalar reward"
        raise InvalidRequest(f"weights: {sorted(unknown) or 'empty'}; the attributes are {known}")
    if bad := [name for name, weight in weights.items() if not math.isfinite(weight)]:
        raise InvalidRequest(f"weights: {sorted(bad)} must be finite numbers")


def score(
    raw: Sequence[float],
    manifest: Manifest,
    weights: Mapping[str, float] | None = None,
    *,
    tokens: int,
    cached_tokens: int = 0,
    truncated: bool = False,
) -> Score:
    """The score of one sequence's raw outputs, shape ``[manifest.outputs]``.

    ``weights`` replaces the manifest's combined reward, and has no bias.

    Raises:
        NonFinite: an output, an attribute or the reward is NaN or infinite.
    """
    attributes = {name: _read(raw, affine) for name, affine in manifest.attributes.items()}
    combined = manifest.reward
    if weights is not None:
        reward = sum(weight * attributes[name] for name, weight in weights.items())
    elif isinstance(combined, Affine):
        reward = _read(raw, combined)
    else:
        terms = (weight * attributes[name] for name, weight in combined.weights.items())
        reward = sum(terms, combined.bias)
    if not math.isfinite(reward) or not all(map(math.isfinite, attributes.values())):
        raise _not_finite({**attributes, "reward": reward}, tokens)
    return Score(attributes, reward, tokens, cached_tokens, truncated)


def _not_finite(values: Mapping[str, float], tokens: int) -> NonFinite:
    names = tuple(name for name, value in values.items() if not math.isfinite(value))
    return NonFinite(
        f"the model's output for this pair is not a finite number: {', '.join(names)}",
        names,
        tokens=tokens,
    )


def _read(raw: Sequence[float], affine: Affine) -> float:
    return raw[affine.output] * affine.scale + affine.offset
