"""TRL's GRPOTrainer trains on the rewards of a running server, also when it restarts meanwhile."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast, TrainerCallback

from fivescore.client.integrations.trl import (
    AsyncRewardFunction,
    RewardFunction,
    attribute_functions,
)
from fivescore.model.manifest import ATTRIBUTES
from tests.e2e.server import Server

pytest.importorskip("trl", reason="needs the extra 'trl'")
read_table = pytest.importorskip("pyarrow.parquet").read_table

STEPS = 4
STEPS_BEFORE_RESTART = 2
BATCH = 8
WEIGHTS = {"helpfulness": 1.0, "correctness": 0.5, "verbosity": -0.25}
QUESTIONS = ("Name a prime.", "What is a dog?", "Say hello.", "Why is the sky blue?")
SETTINGS = {
    "max_steps": STEPS,
    "learning_rate": 1e-3,
    "per_device_train_batch_size": BATCH,
    "num_generations": 4,
    "max_completion_length": 8,
    "logging_steps": 1,
    "log_completions": True,
    "save_strategy": "no",
    "report_to": [],
    "use_cpu": True,
    "bf16": False,
    "dataloader_pin_memory": False,
}
TEMPLATE = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"


@pytest.fixture(scope="module")
def server(demo_server: Server) -> Server:
    # TRL imports vLLM where it is installed; the imports of both warn of much.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import trl.trainer.grpo_trainer  # noqa: F401
    demo_server.until_ready()
    return demo_server


class RestartOnce(TrainerCallback):  # type: ignore[misc]
    """Restarts the server between two steps; it loads while the trainer asks it again."""

    def __init__(self, server: Server) -> None:
        self.server = server

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == STEPS_BEFORE_RESTART:
            self.server.restart()
            assert self.server.status("/health/ready") != 200


@dataclass(frozen=True)
class Run:
    """What a finished training shows of itself."""

    logs: list[dict[str, float]]
    """One per step."""
    tables: list[list[dict[str, Any]]]
    """TRL's own record of each step: a row per completion, with what was asked and answered."""
    moved: float
    """The largest change of a parameter."""


def byte_tokenizer() -> Any:
    """A token per byte: a random policy writes any bytes, so completions are any text."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {
        token: index for index, token in enumerate(["<pad>", "<bos>", "<eos>", *alphabet])
    }
    tokenizer = Tokenizer(models.BPE(vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        padding_side="left",
        chat_template=TEMPLATE,
    )


def random_policy(tokenizer: Any) -> Any:
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=256,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def train(
    output: Path,
    functions: Sequence[Any],
    prompts: Sequence[Any] = QUESTIONS,
    callbacks: Sequence[TrainerCallback] = (),
    **settings: Any,
) -> Run:
    """Train a random policy for a few steps."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = byte_tokenizer()
    policy = random_policy(tokenizer)
    untrained = {name: value.clone() for name, value in policy.state_dict().items()}
    trainer = GRPOTrainer(
        model=policy,
        reward_funcs=list(functions),
        args=GRPOConfig(**SETTINGS, **settings, output_dir=str(output)),
        train_dataset=Dataset.from_dict({"prompt": list(prompts)}),
        processing_class=tokenizer,
        callbacks=list(callbacks),
    )
    trainer.train()
    return Run(
        [entry for entry in trainer.state.log_history if "reward" in entry],
        [read_table(file).to_pylist() for file in sorted(output.glob("completions/*.parquet"))],
        max(
            float((value - untrained[name]).abs().max())
            for name, value in policy.state_dict().items()
        ),
    )


def check(
    run: Run,
    server: Server,
    expected: Callable[[dict[str, Any]], dict[str, float]],
    mean_of: Callable[[str], str],
) -> None:
    """What TRL recorded and logged of every step is what the server serves for the same pairs.

    Args:
        run: the finished training.
        server: is asked again.
        expected: columns of TRL's table, of an answer.
        mean_of: the name under which TRL logs the mean of a column.
    """
    assert len(run.logs) == len(run.tables) == STEPS
    assert run.moved > 1e-5
    for logged, rows in zip(run.logs, run.tables, strict=True):
        answers = [
            expected(answer) for answer in server.score(list(map(pair, rows)), weights=WEIGHTS)
        ]
        assert len({tuple(answer.values()) for answer in answers}) == BATCH  # order shows
        for row, answer in zip(rows, answers, strict=True):
            assert {name: row[name] for name in answer} == pytest.approx(answer, abs=1e-4)
        for name in answers[0]:
            mean = sum(answer[name] for answer in answers) / BATCH
            assert logged[mean_of(name)] == pytest.approx(mean, abs=1e-4)


def pair(row: dict[str, Any]) -> dict[str, Any]:
    """A pair of ``POST /score``, of a row of TRL's table."""
    said = row["completion"]
    return {
        "prompt": row["prompt"],
        "response": said if isinstance(said, str) else said[0]["content"],
    }


def check_combined(run: Run, server: Server) -> None:
    check(
        run,
        server,
        lambda answer: {"fivescore": answer["reward"], **attributes(answer)},
        lambda name: "rewards/fivescore/mean" if name == "fivescore" else f"rm/{name}",
    )


def attributes(answer: dict[str, Any]) -> dict[str, float]:
    return {name: answer[name] for name in ATTRIBUTES}


def requests(server: Server) -> float:
    return server.metric("fivescore_request_pairs_count")


def test_plain_prompts(server: Server, tmp_path: Path) -> None:
    before = requests(server)
    run = train(tmp_path, [RewardFunction(server.url, weights=WEIGHTS)])
    assert requests(server) - before == STEPS
    check_combined(run, server)


def test_conversations_and_an_async_function(server: Server, tmp_path: Path) -> None:
    before = requests(server)
    system = {"role": "system", "content": "Be brief."}
    prompts = [[system, {"role": "user", "content": question}] for question in QUESTIONS]
    run = train(tmp_path, [AsyncRewardFunction(server.url, weights=WEIGHTS)], prompts)
    assert requests(server) - before == STEPS
    assert all(row["prompt"][0] == system for rows in run.tables for row in rows)
    check_combined(run, server)


def test_an_objective_per_attribute(server: Server, tmp_path: Path) -> None:
    """GDPO: five reward functions, one request per batch."""
    before = requests(server)
    run = train(
        tmp_path,
        attribute_functions(server.url),
        multi_objective_aggregation="normalize_then_sum",
        reward_weights=[0.3, 0.74, 0.46, 0.47, -0.33],
    )
    assert requests(server) - before == STEPS
    check(run, server, attributes, lambda name: f"rewards/{name}/mean")


def test_a_server_that_restarts_during_the_training(server: Server, tmp_path: Path) -> None:
    first = server.process.pid
    run = train(
        tmp_path,
        [RewardFunction(server.url, weights=WEIGHTS)],
        callbacks=[RestartOnce(server)],
    )
    assert server.process.pid != first
    assert requests(server) == STEPS - STEPS_BEFORE_RESTART
    check_combined(run, server)
