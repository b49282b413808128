"""What the user asks of an import beside its source."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Options:
    """Options of ``fivescore import`` that decide what a source is taken for.

    Args:
        kind: the kind that the source is taken for; None recognises it.
        base: the base model of a PEFT adapter; None takes the one that the adapter names.
        tokenizer: a folder or hub id whose tokenizer and template are taken.
        manifest: a preset or file whose attributes, reward and prompt are taken.
        revision: the revision of a repository on the hub.
        token, minus: ids or strings of tokens; the reward is the logit of the first, less that of
            the second.
        normalize: whether an OpenRLHF model's mean and standard deviation are applied.
    """

    kind: str | None = None
    base: str | None = None
    tokenizer: str | None = None
    manifest: str | None = None
    revision: str | None = None
    token: str | None = None
    minus: str | None = None
    normalize: bool = False
