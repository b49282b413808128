"""One server of the demo checkpoint for all trainers, and the record of how each fared."""

from __future__ import annotations

import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import pytest
from transformers import AutoTokenizer

from fivescore.settings import DEMO
from tests.e2e.server import Server
from tests.e2e.server import running as serving
from tests.trainers.samples import Sample
from tests.trainers.table import RESULT, results
from tests.trainers.trainer import Process, Trainer, running
from tests.unit.model import policy_tokenizers

RECORDS = pytest.StashKey[Any]()


class Record(Protocol):
    """Keeps facts of the trainer that is tested."""

    def __call__(self, **facts: Any) -> None: ...


class Reference:
    """The server, and what ``POST /score`` on it says of samples."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._tokenizer = AutoTokenizer.from_pretrained(DEMO)
        self._known: dict[str, float] = {}

    def rewards(self, samples: list[Sample], rendered: bool = False) -> list[float]:
        """The rewards of samples, in order; the server must be ready unless they are known.

        Args:
            rendered: whether the trainer sends what the reward model's template wrote.
        """
        pairs = [self._pair(one, rendered) for one in samples]
        new = [one for one in pairs if json.dumps(one) not in self._known]
        if new:
            self.server.until_ready()
            scores = self.server.score(new, truncate="prompt_start")
            for one, score in zip(new, scores, strict=True):
                self._known[json.dumps(one)] = score["reward"]
        return [self._known[json.dumps(one)] for one in pairs]

    def _pair(self, sample: Sample, rendered: bool) -> dict[str, Any]:
        """Prompt and response; of a rendered sample its text, where that is not the same."""
        messages, response = sample["messages"], sample["response"]
        special = any(token in str(sample) for token in self._tokenizer.all_special_tokens)
        if rendered and (special or messages[-1]["role"] == "assistant"):
            turns = [*messages, {"role": "assistant", "content": response}]
            return {"text": self._tokenizer.apply_chat_template(turns, tokenize=False)}
        return {"prompt": messages, "response": response}

    def restart(self) -> None:
        """Stop the server and start it; it listens and is not ready yet."""
        self.server.restart()
        self.server.until("it listens", lambda: self.server.status("/health/live") == 200)

    def restart_until_ready(self) -> None:
        """Stop the server, start it, and wait until it is ready."""
        self.server.restart()
        self.server.until_ready()


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a policy's tokenizer, whose template is not the reward model's."""
    folder = tmp_path_factory.mktemp("policy")
    policy_tokenizers.chatml().save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def reference(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Reference]:
    log = tmp_path_factory.mktemp("logs") / "server.log"
    with serving(log, "--policy-tokenizer", str(policy)) as server:
        yield Reference(server)


@pytest.fixture(scope="class")
def process(
    request: pytest.FixtureRequest, policy: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Process]:
    trainer: Trainer = request.cls.trainer
    facts = request.config.stash[RECORDS].setdefault(trainer.key, {})
    facts.update(title=trainer.name, row=trainer.row or trainer.name)
    if (reason := trainer.missing) is not None:
        facts["not_run"] = reason
        pytest.skip(f"NOT RUN: {trainer.name}: {reason}")
    with running(trainer, policy, tmp_path_factory.mktemp(trainer.key) / "log") as process:
        facts["version"] = process.version()
        facts["date"] = datetime.datetime.now(datetime.UTC).date().isoformat()
        facts["called"] = trainer.called
        facts["emulated"] = trainer.emulated
        yield process


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    facts = request.config.stash[RECORDS][request.cls.trainer.key]
    return lambda **new: facts.update(new)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--record", action="store_true", help=f"write what was found to {RESULT.name}")


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RECORDS] = {}


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """pytest-xdist: take over what one of its workers found."""
    node.config.stash[RECORDS].update(getattr(node, "workeroutput", {}).get("trainers", {}))


def pytest_sessionfinish(session: pytest.Session) -> None:
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["trainers"] = config.stash[RECORDS]
    elif config.getoption("--record", default=False):
        known = results() if RESULT.exists() else {}
        known.update(config.stash[RECORDS])
        RESULT.write_text(json.dumps(known, indent=1, sort_keys=True, ensure_ascii=False) + "\n")
