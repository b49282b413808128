"""Language models whose reward is the logit of a token, or the difference of two logits."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from fivescore.model import manifest as manifests
from fivescore.model.head import TokenHead
from fivescore.model.importers import body, meaning
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan
from fivescore.model.importers.sources import Source, Tensor
from fivescore.model.importers.suffixed import writes_bos
from fivescore.model.manifest import PromptFormat

if TYPE_CHECKING:
    import torch


class Known(NamedTuple):
    """A published model that nothing but its name identifies."""

    name: re.Pattern[str]
    token: int
    minus: int | None
    max_tokens: int | None
    principle: str | None = None


KNOWN = (
    Known(re.compile(r"llama[-_]?3[._]3[-_]nemotron[-_].*reward[-_]principle", re.I),
          9642, 2822, None, manifests.NEMOTRON_PRINCIPLE),
    Known(re.compile(r"llama[-_]?3[._]3[-_]nemotron[-_].*reward", re.I), 0, None, None),
    Known(re.compile(r"llama[-_]?3[._]1[-_]nemotron[-_].*reward", re.I), 0, None, 4096),
)  # fmt: skip
"""NVIDIA's reward models with a language model's head, by their cards: the logit of token 0, or
``Yes`` (9642) less ``No`` (2822) after a question. 3.1 takes at most 4,096 tokens."""

MULTIPLIED = ("logit_scale", "lm_head_multiplier")
"""Entries of config.json by which Cohere and Falcon-H1 multiply their logits; Granite divides them
by ``logits_scaling``, and Gemma 2 caps them at ``final_logit_softcapping``."""


def plan(source: Source, options: Options) -> Plan | None:
    """The plan of a language model that is named, or for which a token is given; else None."""
    inner, language, others = body.parts(source)
    known = _known(source)
    given = _given(options)
    if others or not (options.token or given or known):
        return None
    row = _row_tensor(source, inner, language)
    if given is not None and options.token is None:
        token, minus, limit, prompt = given.token, given.minus, None, PromptFormat()
    elif options.token is not None:
        token = _id(source, options.token)
        minus = None if options.minus is None else _id(source, options.minus)
        prompt, limit = PromptFormat(), None
    else:
        assert known is not None
        token, minus, limit = known.token, known.minus, known.max_tokens
        prompt = _prompt(source, known)
    if max(token, minus or 0) >= row.shape[0]:
        raise source.refuse(
            f"its vocabulary of {row.shape[0]} lacks token {max(token, minus or 0)}"
        )
    if token == minus:
        raise source.refuse(f"the logit of token {token} less itself is always 0: give another")
    head = TokenHead(kind="token", token=token, minus=minus)
    manifest = meaning.scalar(head, prompt, **({"max_tokens": limit} if limit else {}))
    if options.manifest is not None:
        manifest = meaning.with_head(manifests.read(options.manifest), head)
    return Plan(
        kind="token",
        sentence=_sentence(source, token, minus),
        config=body.language_config(source),
        manifest=manifest,
        tensors=tuple(body.planned({**inner, **language})),
        files=source.files,
        head=lambda states, ids: _logit(source, row, (token, minus), states),
    )


def _given(options: Options) -> TokenHead | None:
    """The head that ``--manifest`` describes, where it is a token's."""
    head = None if options.manifest is None else manifests.read(options.manifest).head
    return head if isinstance(head, TokenHead) else None


def _prompt(source: Source, known: Known) -> PromptFormat:
    """The prompt of the cards: ids are the template's, so BOS is there where it writes one."""
    asked = {} if known.principle is None else {"principle": known.principle}
    return PromptFormat(**asked, **({} if writes_bos(source) else {"bos": "never"}))


def _sentence(source: Source, token: int, minus: int | None) -> str:
    tokenizer = source.tokenizer()
    shown = [
        f'{id_} ("{text}")' if tokenizer and (text := tokenizer.decode([id_])) else str(id_)
        for id_ in (token, minus)
        if id_ is not None
    ]
    less = f" less that of token {shown[1]}" if minus is not None else ""
    return f"a causal language model whose reward is the logit of token {shown[0]}{less}"


def _known(source: Source) -> Known | None:
    names = (source.name, source.folder.name, str(source.config.get("_name_or_path", "")))
    for known in KNOWN:
        if any(known.name.search(name.rstrip("/").rpartition("/")[2]) for name in names):
            return known
    # A folder of the hub's cache is named by its commit, below one named by the repository.
    parents = "/".join(parent.name for parent in source.folder.parents)
    return next((known for known in KNOWN if known.name.search(parents)), None)


def _row_tensor(source: Source, inner: dict[str, Tensor], language: dict[str, Tensor]) -> Tensor:
    """The weight of the language model's head, or the embedding where the two are tied."""
    for name, tensor in language.items():
        if name.endswith(".weight"):
            return tensor
    if source.value("tie_word_embeddings") is not False:
        for tensor in inner.values():
            if tensor.shape[:1] == (source.value("vocab_size"),) and len(tensor.shape) == 2:
                return tensor
    raise source.refuse("a language model without lm_head.weight: fetch or export it again")


def _logit(
    source: Source, row: Tensor, ids: tuple[int, int | None], states: torch.Tensor
) -> list[float]:
    """The logit of the first id, less that of the second, as the language model returns them."""
    import torch

    bias = source.tensors.get("lm_head.bias")
    chosen = [id_ for id_ in ids if id_ is not None]
    logits = row.read()[chosen].float() @ states[-1]
    if bias is not None:
        logits = logits + bias.float()[chosen]
    for name in MULTIPLIED:
        logits = logits * float(source.value(name) or 1.0)
    logits = logits / float(source.value("logits_scaling") or 1.0)
    if cap := source.value("final_logit_softcapping"):
        logits = torch.tanh(logits / cap) * cap
    return [float(logits[0] if len(chosen) == 1 else logits[0] - logits[1])]


def _id(source: Source, given: str) -> int:
    """The id that ``given`` is, or that of the one token which it is encoded to."""
    if given.isdecimal():
        ids = [int(given)]
    else:
        tokenizer = source.tokenizer()
        if tokenizer is None:
            raise source.refuse(f"it has no tokenizer.json: give the id of {given!r} with --token")
        ids = tokenizer.encode(given, add_special_tokens=False).ids
    if len(ids) != 1:
        raise source.refuse(f"{given!r} is {len(ids)} tokens, {ids[:8]}: give the id of one")
    return int(ids[0])
