"""NeMo-Gym's resources server, on stand-ins for the classes of NeMo-Gym that it derives from."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import aclosing
from enum import Enum
from importlib import import_module, resources
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import pytest
import yaml
from pydantic import BaseModel, ConfigDict

from fivescore.client import BadAnswer, Unreachable
from fivescore.client.exchange import connect
from fivescore.client.integrations.nemo_gym.__main__ import main
from fivescore.errors import InvalidRequest
from tests.integration.protocols.protocols import BY_NAME
from tests.unit.client.fakes import Fleet, problem

PACKAGE = "fivescore.client.integrations.nemo_gym"
ROLLOUT = {**BY_NAME["nemo-gym"].one(), "row": 7}


class _Config(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Rollout(BaseModel):
    responses_create_params: dict[str, Any]
    response: dict[str, Any]


class _Verified(_Rollout):
    reward: float
    reward_components: dict[str, float]


class _Server(BaseModel):
    config: Any


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """The module of the resources server."""
    bases = ModuleType("nemo_gym.base_resources_server")
    ReverifyMode = Enum("ReverifyMode", {"STATELESS": "stateless"})  # noqa: N806  # a class
    for name, value in {
        "BaseMultiRewardVerifyResponse": _Verified,
        "BaseResourcesServerConfig": _Config,
        "BaseVerifyRequest": _Rollout,
        "ReverifyMode": ReverifyMode,
        "SimpleResourcesServer": _Server,
    }.items():
        setattr(bases, name, value)
    monkeypatch.setitem(sys.modules, "nemo_gym", ModuleType("nemo_gym"))
    monkeypatch.setitem(sys.modules, "nemo_gym.base_resources_server", bases)
    module = import_module(f"{PACKAGE}.app")
    yield module
    del sys.modules[f"{PACKAGE}.app"]


async def verified(app: Any, url: str, answers: Any = None, **settings: Any) -> Any:
    """What a server makes of the rollout; of ``answers`` instead of those at ``url``."""
    server = app.FivescoreResourcesServer(config=app.FivescoreConfig(url=url, **settings))
    if answers is not None:
        server._connections = connect(1, transport=answers)
    async with aclosing(server._connections):
        return await server.verify(app.VerifyRequest.model_validate(ROLLOUT))


async def test_a_rollout_comes_back_with_its_reward_and_attributes(app: Any, url: str) -> None:
    async with httpx.AsyncClient(base_url=url) as http:
        expected = (await http.post("/verify", json=ROLLOUT)).json()
    answer = (await verified(app, url)).model_dump()
    assert answer == expected
    assert answer["row"] == 7
    assert answer["helpfulness"]


async def test_a_server_that_is_not_there_is_asked_again_and_then_another(
    app: Any, url: str
) -> None:
    both = f"http://127.0.0.1:9,{url}"
    app.PAUSE_SECONDS = (0.01, 0.02)
    assert (await verified(app, both)).reward
    with pytest.raises(Unreachable):
        await verified(app, "http://127.0.0.1:9", retry_seconds=0.1)


async def test_a_busy_server_is_asked_again_and_a_refusal_names_its_field(app: Any) -> None:
    app.PAUSE_SECONDS = (0.01, 0.02)
    fleet = Fleet(problem(503, "overloaded"), problem(422, "invalid_request"))
    with pytest.raises(InvalidRequest, match="told invalid_request"):
        await verified(app, "http://rm", fleet)
    assert len(fleet.requests) == 2


@pytest.mark.parametrize("text", ["<html>", "[]", "[" * 100_000])
async def test_an_answer_without_a_reward_is_an_error(app: Any, text: str) -> None:
    with pytest.raises(BadAnswer, match="no rollout"):
        await verified(app, "http://rm", Fleet(httpx.Response(200, text=text)))


def test_the_folder_that_is_written_is_what_nemo_gym_starts(app: Any, tmp_path: Path) -> None:
    folder = tmp_path / "resources_servers" / "fivescore"
    assert main([str(folder)]) == 0
    written = resources.files(PACKAGE)
    assert (folder / "app.py").read_text() == (written / "app.py").read_text()
    assert "fivescore" in (folder / "requirements.txt").read_text().split()
    config = yaml.safe_load((folder / "configs" / "fivescore.yaml").read_text())
    settings = config["fivescore"]["resources_servers"]["fivescore"]
    of_gym = {"entrypoint", "domain", "description"}
    app.FivescoreConfig(**{k: v for k, v in settings.items() if k not in of_gym})
    assert (folder / settings["entrypoint"]).is_file()
    with pytest.raises(SystemExit):
        main([str(folder)])
