"""Checkpoints that Megatron itself makes, runs and saves: what the NeMo importer is compared with.

Runs in an environment of its own, which has megatron-core and nothing of fivescore; see
``make nemo``. Each folder that it makes holds a checkpoint as NeMo-Aligner saves a reward model,
packed or not, and ``expected.json``: token ids, Megatron's hidden states and outputs for
them, and texts with the ids that NeMo's tokenizer gives.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import shutil
import socket
import tarfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml

HIDDEN, HEADS, GROUPS, HEAD_SIZE, FFN, LAYERS = 32, 4, 2, 32, 48, 2
ROWS, LENGTH = 448, 256
"""Rows of the embedding, which NeMo pads, and the encoder's length."""
TOKENIZER = "0123456789abcdef0123456789abcdef_tokenizer.model"
MARKERS = [f"<extra_id_{i}>" for i in range(4)]
SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. The assistant gives"
    " helpful, detailed, and polite answers to the user's questions."
)
SEQUENCES = [[5, 17, 300, 41, 8, 8, 260, 3], [400, 2, 91], [77], list(range(20, 60, 3))]
TEXTS = [
    f"<extra_id_0>System\n{SYSTEM}\n<extra_id_1>User\nHi, a dog?\n"
    "<extra_id_1>Assistant\nA fox.\n<extra_id_2>",
    "a  b\n\n c ", " leading", "trailing ", "", "\n", "人工智能 été naïve 🚀",
    "<extra_id_1><extra_id_2>", "x<extra_id_3> y",
    "def add(a, b):\n    return a + b\n", "<s> is text </s>", "<0x0A>",
]  # fmt: skip
CORPUS = [
    "A reward model reads a prompt and a response and says how good the response is.",
    "the quick brown fox jumps over a lazy dog; a dog, a fox, and a bird. What is a dog?",
    "def add(a, b):\n    return a + b\n\nfor i in range(10):\n    print(add(i, 1))\n",
    "System\nUser\nAssistant\nsystem\nuser\nassistant A chat between a user and an assistant.",
]


@dataclass(frozen=True)
class Case:
    """One checkpoint to make."""

    name: str
    shape: str
    backend: str
    dtype: torch.dtype = torch.float32
    parallel: int = 1
    per_layer: bool = False
    outputs: int = 9
    packed: bool = False
    bias: bool = False
    standardised: bool = False
    singleton: bool = False
    interpolation: float | None = None


def cases(backend: str) -> list[Case]:
    """The combinations that are made with one of the two backends."""
    found = []
    for shape in ("llama", "nemotron"):
        for per_layer in (False, True):
            for parallel in (1, 2):
                name = f"{backend}-{shape}-{'layers' if per_layer else 'stacked'}-tp{parallel}"
                found.append(Case(name, shape, backend, parallel=parallel, per_layer=per_layer))
        start, stacked = f"{backend}-{shape}", found[-3]
        found += [
            replace(stacked, name=f"{start}-bfloat16", dtype=torch.bfloat16, packed=True),
            replace(stacked, name=f"{start}-bias", bias=True, packed=True),
            replace(stacked, name=f"{start}-interpolated", interpolation=4.0),
        ]
    first, last = found[0], found[3]
    found.append(replace(first, name=f"{backend}-scalar", outputs=1, standardised=True))
    found.append(replace(last, name=f"{backend}-singleton", singleton=True))
    return found


def configuration(case: Case) -> dict[str, Any]:
    """``model_config.yaml`` with the entries that NeMo-Aligner writes and that decide outputs."""
    llama = case.shape == "llama"
    return {
        "mcore_gpt": True,
        "megatron_amp_O2": case.dtype != torch.float32,
        "precision": "bf16" if case.dtype == torch.bfloat16 else 32,
        "encoder_seq_length": LENGTH,
        "max_position_embeddings": LENGTH,
        "num_layers": LAYERS,
        "hidden_size": HIDDEN,
        "ffn_hidden_size": FFN,
        "num_attention_heads": HEADS,
        "num_query_groups": GROUPS,
        "kv_channels": HEAD_SIZE,
        "normalization": "rmsnorm" if llama else "layernorm1p",
        "layernorm_epsilon": 1e-5,
        "activation": "fast-swiglu" if llama else "squared-relu",
        "position_embedding_type": "rope",
        "rotary_percentage": 1.0 if llama else 0.5,
        "rotary_base": 500000.0 if llama else 10000,
        "seq_len_interpolation_factor": case.interpolation,
        "bias": case.bias,
        "share_embeddings_and_output_weights": False,
        "tensor_model_parallel_size": case.parallel,
        "reward_model_type": "regression" if case.outputs > 1 else "binary_ranking",
        "regression": {"num_attributes": case.outputs, "merge_attributes": False},
        "output_sequence": False,
        "use_avg_pool": False,
        "force_head_dtype": "float32",
        "reward_standardization": {"enable": case.standardised, "mean": 0.75, "std": 2.5},
        "tokenizer": {
            "library": "sentencepiece",
            "type": None,
            "model": f"nemo:{TOKENIZER}",
            "vocab_file": None,
            "merge_file": None,
            "sentencepiece_legacy": llama,
            "additional_special_tokens": MARKERS if llama else None,
        },
        "target": "nemo_aligner.models.nlp.gpt.reward_model_classes.RewardModel",
        "nemo_version": "2.0.0rc1",
    }


def quiet() -> None:
    """Megatron warns of each library for GPUs that is not there."""
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)


def on_cpu() -> None:
    """Let Megatron, which asks for a GPU at every turn, run without one."""
    from megatron.core.tensor_parallel import random as megatron_random

    class Tracker(megatron_random.CudaRNGStatesTracker):  # type: ignore[misc]
        """Random numbers that dropout, which is off, would use."""

        @contextlib.contextmanager
        def fork(self, *_: Any, **__: Any) -> Iterator[None]:
            yield

        def is_initialized(self) -> bool:
            return True

    torch.cuda.current_device = lambda: torch.device("cpu")
    torch.cuda.synchronize = lambda *_: None
    megatron_random._CUDA_RNG_STATE_TRACKER = Tracker()
    megatron_random._CUDA_RNG_STATE_TRACKER_INITIALIZED = True


class LayerNorm1P(torch.nn.Module):  # type: ignore[misc]
    """LayerNorm whose weight is stored without its 1, as TransformerEngine's with zero-centred
    gamma, which needs a GPU."""

    def __init__(self, config: Any, hidden_size: int, eps: float = 1e-5, **_: Any) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(hidden_size))
        self.bias = torch.nn.Parameter(torch.zeros(hidden_size))
        self.eps = eps

    def forward(self, states: torch.Tensor) -> torch.Tensor:
        weight, bias = self.weight.float() + 1, self.bias.float()
        normed = torch.nn.functional.layer_norm(
            states.float(), weight.shape, weight, bias, self.eps
        )
        return normed.to(states.dtype)


def squared_relu(states: torch.Tensor) -> torch.Tensor:
    return torch.square(torch.nn.functional.relu(states))


def make_model(case: Case) -> tuple[Any, Any]:
    """Megatron's GPT model of the case's shape, and NeMo-Aligner's head, a RowParallelLinear."""
    from megatron.core.models.gpt import GPTModel
    from megatron.core.models.gpt.gpt_layer_specs import get_gpt_layer_local_spec
    from megatron.core.tensor_parallel.layers import RowParallelLinear
    from megatron.core.transformer.transformer_block import TransformerBlockSubmodules
    from megatron.core.transformer.transformer_config import TransformerConfig

    llama = case.shape == "llama"
    config = TransformerConfig(
        num_layers=LAYERS,
        hidden_size=HIDDEN,
        ffn_hidden_size=FFN,
        num_attention_heads=HEADS,
        num_query_groups=GROUPS,
        kv_channels=HEAD_SIZE,
        normalization="RMSNorm" if llama else "LayerNorm",
        layernorm_zero_centered_gamma=False,
        activation_func=torch.nn.functional.silu if llama else squared_relu,
        gated_linear_unit=llama,
        add_bias_linear=case.bias,
        hidden_dropout=0.0,
        attention_dropout=0.0,
        tensor_model_parallel_size=case.parallel,
        use_cpu_initialization=True,
        perform_initialization=True,
        bias_activation_fusion=False,
        bias_dropout_fusion=False,
        masked_softmax_fusion=False,
        persist_layer_norm=False,
    )
    layer = get_gpt_layer_local_spec(normalization="RMSNorm" if llama else None)
    norm: Any = layer.submodules.input_layernorm
    if not llama:
        norm = LayerNorm1P
        layer.submodules.input_layernorm = layer.submodules.pre_mlp_layernorm = norm
    spec = TransformerBlockSubmodules(layer_specs=[layer] * LAYERS, layer_norm=norm)
    model = GPTModel(
        config=config,
        transformer_layer_spec=spec,
        vocab_size=ROWS,
        max_sequence_length=LENGTH,
        position_embedding_type="rope",
        rotary_percent=1.0 if llama else 0.5,
        rotary_base=500000 if llama else 10000,
        seq_len_interpolation_factor=case.interpolation,
        share_embeddings_and_output_weights=False,
    )
    head = RowParallelLinear(
        HIDDEN,
        case.outputs,
        config=config,
        init_method=torch.nn.init.normal_,
        bias=True,
        input_is_parallel=False,
        skip_bias_add=False,
    )
    return model.to(case.dtype).eval(), head.eval()


def fill(module: torch.nn.Module, rank: int, seed: int) -> None:
    """Seeded weights, wide enough that a wrong one shows; what is replicated is the same on all."""
    for number, (_, parameter) in enumerate(sorted(module.named_parameters())):
        sharded = getattr(parameter, "tensor_model_parallel", False)
        generator = torch.Generator().manual_seed(1000 * seed + number + 100_000 * rank * sharded)
        parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.25)


def rounded(values: torch.Tensor) -> list[float]:
    """To a tenth of what the tests tolerate at most, so that the files stay small."""
    return [round(float(value), 6) for value in values]


def run(model: Any, head: Any) -> list[dict[str, Any]]:
    """Hidden states after the final norm of all tokens, and outputs at the last one."""
    answers = []
    for ids in SEQUENCES:
        tokens = torch.tensor([ids])
        places = torch.arange(len(ids))[None]
        mask = torch.ones(len(ids), len(ids), dtype=torch.bool).triu(1)[None, None]
        model.post_process = False  # as NeMo-Aligner does: hidden states in place of logits
        with torch.no_grad():
            states = model(tokens, places, mask).float()  # [tokens, 1, hidden]
            outputs = head(states[-1:])[0]
        model.post_process = True
        hidden = [rounded(state) for state in states[:, 0]]
        answers.append({"ids": ids, "hidden": hidden, "outputs": rounded(outputs[0, 0])})
    return answers


def save(model: Any, head: Any, case: Case, weights: Path) -> None:
    """Save as NeMo does: ``model.`` before each name, the head beside the body."""
    from megatron.core import dist_checkpointing, parallel_state

    group = parallel_state.get_data_parallel_group(with_context_parallel=True)
    metadata = {"non_homogeneous_layers": case.per_layer, "dp_cp_group": group}
    if case.singleton:
        metadata["singleton_local_shards"] = True
    state = model.sharded_state_dict(prefix="model.", metadata=metadata)
    state.update(head.sharded_state_dict("model.rm_head.", (), metadata))
    state = {name: part for name, part in state.items() if "rm_head._extra_state" not in name}
    dist_checkpointing.save(state, str(weights), (case.backend, 1))


def work(rank: int, case: Case, folder: Path, port: int) -> None:
    """What one rank does."""
    quiet()
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=case.parallel
    )
    from megatron.core import parallel_state

    parallel_state.initialize_model_parallel(case.parallel, 1)
    on_cpu()
    model, head = make_model(case)
    fill(model, rank, seed=1)
    fill(head, rank, seed=2)
    save(model, head, case, folder / "model_weights")
    answers = run(model.float(), head)  # bfloat16 weights too: rounding would hide what is wrong
    if rank == 0:
        (folder / "answers.json").write_text(json.dumps(answers))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def tokenizer_model(llama: bool) -> bytes:
    """A SentencePiece model: as Llama 2's, or with NeMo's markers in it as Nemotron's."""
    import sentencepiece

    written = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(CORPUS * 4),
        model_writer=written,
        vocab_size=400,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        user_defined_symbols=[] if llama else MARKERS,
        minloglevel=2,
    )
    return written.getvalue()


def nemo_ids(model: bytes, added: list[str], text: str) -> list[int]:
    """What NeMo's SentencePieceTokenizer gives: the texts between added tokens one by one."""
    import sentencepiece

    pieces = sentencepiece.SentencePieceProcessor(model_proto=model)
    ids: list[int] = []
    while added:
        places = {text.find(token): token for token in added if token in text}
        if not places:
            break
        place = min(places)
        token = places[place]
        ids += pieces.encode(text[:place])
        ids.append(pieces.get_piece_size() + added.index(token))
        text = text[place + len(token) :]
    return ids + list(pieces.encode(text))


def pack(folder: Path) -> None:
    """Put all but the expectations into one uncompressed archive, as NeMo does."""
    with tarfile.open(folder / "model.nemo", "w:") as archive:
        for member in ("model_config.yaml", TOKENIZER, "model_weights"):
            archive.add(folder / member, arcname=f"./{member}")
    for file in (folder / "model_config.yaml", folder / TOKENIZER):
        file.unlink()
    shutil.rmtree(folder / "model_weights")


def build(case: Case, output: Path) -> None:
    """Make the folder of one case."""
    folder = output / case.name
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "model_weights").mkdir(parents=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (case, folder, port), nprocs=case.parallel)
    answers = json.loads((folder / "answers.json").read_text())
    (folder / "answers.json").unlink()
    llama = case.shape == "llama"
    model, added = tokenizer_model(llama), MARKERS if llama else []
    (folder / TOKENIZER).write_bytes(model)
    (folder / "model_config.yaml").write_text(yaml.safe_dump(configuration(case)))
    expected = {
        "shape": case.shape,
        "outputs": case.outputs,
        "sequences": answers,
        "texts": [{"text": text, "ids": nemo_ids(model, added, text)} for text in TEXTS],
    }
    (folder / "expected.json").write_text(json.dumps(expected))
    if case.packed:
        pack(folder)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", choices=("torch_dist", "zarr"), required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--only", default="", help="part of the names of the cases to make")
    parser.add_argument("--suffix", default="", help="what is put behind the folders' names")
    arguments = parser.parse_args()
    for case in cases(arguments.backend):
        if arguments.only in case.name:
            build(replace(case, name=case.name + arguments.suffix), arguments.output)


if __name__ == "__main__":
    main()
