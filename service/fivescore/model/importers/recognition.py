"""Recognises a source by its configuration and its tensors' names, and plans its import."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from fivescore.errors import ConfigurationError
from fivescore.model import architecture as architectures
from fivescore.model import manifest as manifests
from fivescore.model import weights
from fivescore.model.architecture import refusal
from fivescore.model.head import LinearHead, OwnHead
from fivescore.model.importers import (
    adapter,
    body,
    gated,
    linear,
    logit,
    meaning,
    sources,
    suffixed,
)
from fivescore.model.importers.options import Options
from fivescore.model.importers.plan import Plan
from fivescore.model.importers.sources import Source
from fivescore.model.tensors import Tensors

NAMED = 3
"""Tensors that an error names; the others are counted."""


class Kind(NamedTuple):
    """A kind of reward model that can be imported.

    Args:
        plan: None where the source is not of this kind.
    """

    name: str
    described: str
    plan: Callable[[Source, Options], Plan | None]


KINDS = (
    Kind("armorm", "regression objectives gated by the prompt: ArmoRM", gated.plan),
    Kind("qrm", "quantiles of objectives gated by the prompt: QRM", gated.plan),
    Kind("urm", "attributes' means weighted by a network: URM", gated.plan_urm),
    Kind("athene", "a linear layer at an appended cls token: Athene", suffixed.plan_athene),
    Kind("internlm2", "a linear layer at an appended reward token: InternLM2",
         suffixed.plan_internlm2),
    Kind("mlp", "linear layers with ReLU between: INF-ORM, Qwen2.5-Math-RM, GRM", linear.plan_mlp),
    Kind("token", "the logit of a token, or the difference of two: Nemotron; --token ID",
         logit.plan),
    Kind("linear", "one linear layer of any name: Skywork, Tulu, OpenRLHF, TRL, LLaMA-Factory,"
         " ms-swift", linear.plan),
)  # fmt: skip
"""The kinds in the order in which a source is compared with them. The name ``nemo`` is for NeMo's
files, which are recognised before."""
NEMO = Kind("nemo", "NeMo's .nemo files and folders: SteerLM and Nemotron-4 reward models",
            lambda source, options: None)  # fmt: skip
ADAPTER = Kind("adapter", "PEFT adapters (LoRA, DoRA) of any of these, merged into their base",
               lambda source, options: None)  # fmt: skip


def plan(name: str, options: Options) -> Plan:
    """What an import of the source ``name`` does; reads no weights.

    Raises:
        ConfigurationError: it is no reward model that can be imported; says what it is.
    """
    check_kind(options.kind)
    return plan_at(sources.resolve(name, options.revision), name, options)


def plan_at(place: Path, name: str, options: Options) -> Plan:
    """The same for the source ``name`` whose file or folder is ``place``."""
    if sources.is_nemo(place):
        if options.kind not in (None, NEMO.name):
            raise refusal(name, f"a NeMo checkpoint is not of the kind {options.kind}")
        _check_used(name, NEMO.name, options)
        return _with_manifest(_nemo(place, options), options)
    if place.suffix == ".gguf":
        raise refusal(name, "a GGUF file is not imported: give the model that it was made of")
    if not place.is_dir():
        raise ConfigurationError(f"source {name}: this is a file: give the folder that holds it")
    source = opened(place, name, options)
    _check_causal(source)
    found = _recognised(source, options)
    if found is None:
        raise _unknown(source, options)
    _check_used(name, ADAPTER.name if adapter.is_adapter(place) else found.kind, options, found)
    if adapter.is_adapter(place):
        found = replace(found, sentence=f"a PEFT adapter; merged, it is {found.sentence}")
    _check_head(source, found)
    weights.check_body(
        architecture(source, found), Tensors({t.name: t.shape for t in found.tensors})
    )
    return _with_manifest(found, options)


def _check_head(source: Source, found: Plan) -> None:
    """Check that the tensors of the new head fit together.

    Raises:
        ConfigurationError: one of them has another shape than the others say.
    """
    head, outputs = found.manifest.head, found.manifest.outputs
    shapes = {one.name: one.shape for one in found.tensors}
    wanted: dict[str, tuple[int, ...]]
    if isinstance(head, LinearHead):
        wanted = {"score.bias": (outputs,)} if "score.bias" in shapes else {}
    else:
        wanted = OwnHead(head, outputs).tensors(body.hidden(source))
    for name, shape in wanted.items():
        if shapes.get(name) != shape:
            raise source.refuse(
                f"the parts of its head misfit: as {name} one is {list(shapes.get(name, ()))}, and"
                f" by the others {list(shape)}"
            )


def _check_used(name: str, kind: str, options: Options, found: Plan | None = None) -> None:
    """Check that no option was given that would do nothing."""
    head = found.kind if found else kind
    given = {
        "--token": options.token is not None and head != "token",
        "--minus": options.minus is not None and options.token is None,
        "--normalize": options.normalize and head != "linear",
        "--base": options.base is not None and kind != ADAPTER.name,
    }
    if unused := [flag for flag, is_unused in given.items() if is_unused]:
        what = found.sentence if found else "a NeMo checkpoint"
        raise refusal(name, f"{unused[0]} does nothing for {what}: leave it out")


def _nemo(place: Path, options: Options) -> Plan:
    # Later than the others, because it needs libraries that they do not.
    nemo: Any = importlib.import_module("fivescore.model.importers.nemo")
    given = None if options.manifest is None else manifests.read(options.manifest)
    found: Plan = nemo.plan(place, tokenizer=options.tokenizer, manifest=given)
    return found


def check_kind(kind: str | None) -> None:
    """Check that there is a kind of this name.

    Raises:
        ConfigurationError: there is none.
    """
    names = [each.name for each in (*KINDS, NEMO, ADAPTER)]
    if kind is not None and kind not in names:
        raise ConfigurationError(f"--kind {kind}: there are {', '.join(names)}")


def opened(folder: Path, name: str, options: Options) -> Source:
    """The source in a folder, an adapter merged, under the names of transformers' classes."""
    if adapter.is_adapter(folder):
        source = adapter.read(name, folder, options.base, options.revision)
    else:
        source = sources.read(name, folder, options.revision)
    if options.tokenizer is not None:
        source = source.with_(files=sources.files(sources.resolve(options.tokenizer, None, False)))
    return suffixed.as_llama(body.named(source))


def architecture(source: Source, plan: Plan) -> architectures.Architecture:
    """What the new config.json says."""
    return architectures.of_content(source.name, plan.config)


def _check_causal(source: Source) -> None:
    architectures.check_causal(architectures.of_content(source.name, source.config))


def _recognised(source: Source, options: Options) -> Plan | None:
    if not source.tensors:
        raise source.refuse("the folder has no weights: fetch *.safetensors or *.bin files too")
    for kind in KINDS:
        if options.kind in (None, kind.name, ADAPTER.name):
            found = kind.plan(source, options)
            if found is not None and options.kind in (None, found.kind, ADAPTER.name):
                return found
    return None


def _unknown(source: Source, options: Options) -> ConfigurationError:
    """What was recognised of a source, and what was not."""
    _, language, others = body.parts(source)
    what = source.architecture or source.config.get("model_type")
    if options.kind is not None and (options.kind != "token" or others):
        return source.refuse(f"{what} is not of the kind {options.kind}: leave --kind out")
    if not others and language:
        return source.refuse(
            "a language model without a reward head: --token ID imports the logit of a token as the"
            " reward"
        )
    if not others:
        return source.refuse(f"{what} has no reward head: its tensors are those of a body alone")
    names = sorted(others)
    more = f" and {len(names) - NAMED} more" if names[NAMED:] else ""
    return source.refuse(
        f"the body is that of {body.causal(source)}, and its head is unknown:"
        f" {', '.join(names[:NAMED])}{more}"
    )


def _with_manifest(plan: Plan, options: Options) -> Plan:
    """The plan with the attributes, reward and prompt of ``--manifest``, and its own head."""
    if options.manifest is None:
        return plan
    given = manifests.read(options.manifest)
    manifests.check_outputs(given, plan.manifest.outputs)
    head = plan.manifest.head
    if "head" in given.model_fields_set and given.head != head:
        raise ConfigurationError(
            f"manifest {options.manifest}: its head is not that of the source, which is"
            f" {head.model_dump_json(exclude_defaults=True)}: leave head out"
        )
    return replace(plan, manifest=meaning.with_head(given, plan.manifest.head))
