"""NeMo's reward models, of NeMo 1 and NeMo 2, as Llama's and Nemotron's of transformers.

A ``.nemo`` file is an uncompressed archive of a folder: ``model_config.yaml``, the tokenizer's
files and ``model_weights/``, which Megatron's ``dist_checkpointing`` wrote. NeMo 2 has
``weights/`` and ``context/``. The head is NeMo-Aligner's ``rm_head``, read at the last token
(``gpt_reward_model.py``).
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fivescore.model import manifest as manifests
from fivescore.model import tokenizer_file
from fivescore.model.architecture import refusal
from fivescore.model.importers import nemo_config, nemo_tokenizer
from fivescore.model.importers.archive import Files, open_files
from fivescore.model.importers.megatron import MegatronModel
from fivescore.model.importers.nemo_config import NemoConfig
from fivescore.model.importers.plan import Plan
from fivescore.model.importers.sharded import Store
from fivescore.model.importers.torch_dist import TorchDist
from fivescore.model.importers.zarr_store import ZarrStore
from fivescore.model.manifest import NEMO_OUTPUTS, PRESETS, Affine, Manifest, PromptFormat, Source

KIND = "nemo"
LAYOUTS = (("model_weights", "model_config.yaml"), ("weights", "context/model.yaml"))
"""The folder of the weights and the configuration, of NeMo 1 and NeMo 2."""
STORES: Mapping[str, Callable[[Files], Store]] = {"torch_dist": TorchDist, "zarr": ZarrStore}
OF_RANKS = re.compile(
    r"(^|/)(tp_rank_\d+_pp_rank_\d+|mp_rank_\d+)(_\d+)?/|(^|/)model_weights\.ckpt$"
)
"""Weights of a file for each rank, which NeMo wrote before distributed checkpoints."""
NAMES = ("quality", "toxicity", "humor", "creativity", *manifests.ATTRIBUTES)
"""What NeMo-Aligner's nine outputs are trained on (``examples/nlp/data/steerlm/common.py``)."""
METADATA = "metadata.json"
MOST_METADATA_BYTES = 2**20
FAMILIES = {
    "llama": ("Llama", "llama3-70b-steerlm-rm"),
    "nemotron": ("Nemotron", "nemotron-4-340b-reward"),
}
"""Each family's name and the published model of it, whose weights of the attributes are taken."""


class _Files(dict[str, Path]):
    """Files of a temporary folder, which goes when they do."""


def plan(
    source: Path,
    tokenizer: str | Path | None = None,
    manifest: Manifest | None = None,
    **_: Any,
) -> Plan:
    """The import of a NeMo checkpoint: an archive, or the folder of one.

    Args:
        tokenizer: a folder or hub id whose tokenizer is used in place of the checkpoint's.
        manifest: what the outputs mean, where they are not 1, 5 or 9.

    Raises:
        ConfigurationError: the checkpoint is damaged or incomplete, or is of a model or a layout
            that is not read.
    """
    files = open_files(source)
    weights, config_name = _layout(files)
    config = nemo_config.read(files, config_name)
    backend, store = _store(files.below(weights))
    model = MegatronModel(files.shown, store, config)
    folder = Path(tempfile.mkdtemp(prefix="fivescore-import-"))
    made = _Files()
    weakref.finalize(made, shutil.rmtree, folder, ignore_errors=True)
    made.update(nemo_tokenizer.write(files, config.tokenizer, config.length, tokenizer, folder))
    return Plan(
        kind=KIND,
        sentence=_sentence(backend, config, model.outputs, manifest is None),
        config=_config(config, model, _ids(files.shown, folder, model.rows)),
        manifest=_manifest(files.shown, config, model.outputs, source.name, manifest),
        tensors=model.tensors,
        files=made,
    )


def _sentence(backend: str, config: NemoConfig, outputs: int, by_family: bool) -> str:
    family, preset = FAMILIES[config.family]
    weighted = f", weighted as {preset}" if outputs == NEMO_OUTPUTS and by_family else ""
    return (
        f"a NeMo checkpoint ({backend}) of a {family} body with {outputs}"
        f" output{'s' if outputs > 1 else ''} of rm_head at the last token{weighted}"
    )


def _layout(files: Files) -> tuple[str, str]:
    """The folder of the weights and the path of the configuration."""
    for weights, config in LAYOUTS:
        for start in sorted({"", *(f"{path.partition('/')[0]}/" for path in files if "/" in path)}):
            if f"{start}{config}" not in files:
                continue
            inside = files.below(f"{start}{weights}")
            if METADATA in inside:
                return f"{start}{weights}", f"{start}{config}"
            _refuse_old(files)
            raise refusal(
                files.shown, f"{config} is there, and {weights}/{METADATA} is not: fetch it again"
            )
    _refuse_old(files)
    names = " or ".join(config for _, config in LAYOUTS)
    raise refusal(files.shown, f"no NeMo checkpoint: it has no {names}")


def _refuse_old(files: Files) -> None:
    for path in files:
        if found := OF_RANKS.search(path):
            raise refusal(
                files.shown,
                f"its weights have the old layout of one file per rank ({found[0].strip('/')}):"
                " convert it to a distributed checkpoint with NeMo first",
            )


def _store(files: Files) -> tuple[str, Store]:
    try:
        backend = str(json.loads(files.read(METADATA, MOST_METADATA_BYTES))["sharded_backend"])
    except (ValueError, LookupError, TypeError) as error:
        raise refusal(
            files.shown, f"{METADATA} names no sharded_backend: fetch it again"
        ) from error
    if backend not in STORES:
        raise refusal(
            files.shown,
            f"the weights' format is {backend!r:.30}; {' and '.join(STORES)} are read",
        )
    return backend, STORES[backend](files)


def _ids(shown: str, folder: Path, rows: int) -> dict[str, int | None]:
    """The ids that config.json names, from the tokenizer that was written."""
    tokenizer = tokenizer_file.read(str(folder))
    if len(tokenizer) > rows:
        raise refusal(
            shown, f"its tokenizer has {len(tokenizer)} tokens, and its embedding {rows} rows"
        )
    return {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")
    }


def _config(
    config: NemoConfig, model: MegatronModel, ids: Mapping[str, int | None]
) -> dict[str, Any]:
    """config.json, by transformers' own classes."""
    from transformers import LlamaConfig, NemotronConfig

    own: dict[str, Any]
    if config.family == "llama":
        own = {"hidden_act": "silu", "rms_norm_eps": config.epsilon}
    else:
        own = {"hidden_act": "relu2", "norm_eps": config.epsilon}
    rope = {"rope_type": "default", "rope_theta": config.rotary_base, **config.rope_scaling}
    if config.family == "nemotron":  # whose default is a half
        rope["partial_rotary_factor"] = config.rotary_share
    names = NAMES if model.outputs == NEMO_OUTPUTS else ()
    labels = dict(enumerate(names or (f"LABEL_{n}" for n in range(model.outputs))))
    made = {"llama": LlamaConfig, "nemotron": NemotronConfig}[config.family](
        vocab_size=model.rows,
        hidden_size=config.hidden,
        intermediate_size=config.ffn,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.groups,
        head_dim=config.head_size,
        max_position_embeddings=config.length,
        attention_bias=config.linear_bias or config.qkv_bias,
        mlp_bias=config.linear_bias,
        tie_word_embeddings=False,
        rope_parameters=rope,
        id2label=labels,
        label2id={label: number for number, label in labels.items()},
        architectures=[f"{FAMILIES[config.family][0]}ForSequenceClassification"],
        dtype=model.dtype,
        **own,
        **ids,
    )
    found: dict[str, Any] = json.loads(made.to_json_string(use_diff=False))
    return found


def _manifest(
    shown: str, config: NemoConfig, outputs: int, name: str, given: Manifest | None
) -> Manifest:
    """What the outputs mean.

    Nine outputs are those of NeMo-Aligner's regression models, and the weights those that the
    published model of the family has on its card: Llama3-70B-SteerLM-RM, Nemotron-4-340B-Reward.
    """
    if given is not None:
        manifests.check_outputs(given, outputs)
        chosen = given
    elif outputs == NEMO_OUTPUTS:
        chosen = PRESETS[FAMILIES[config.family][1]]
    else:
        chosen = manifests.for_outputs(outputs)
    changes: dict[str, Any] = {
        "prompt": PromptFormat(format="steerlm"),
        "max_tokens": config.length,
        "source": Source.model_validate({"from": name}),
    }
    if given is not None:
        changes = {"source": changes["source"]}
    elif (config.mean, config.std) != (0.0, 1.0):
        if outputs != 1:
            raise refusal(
                shown, f"reward_standardization is for one output, and rm_head has {outputs}"
            )
        changes["reward"] = Affine(output=0, scale=1 / config.std, offset=-config.mean / config.std)
    return chosen.model_copy(update=changes)
