"""NeMo-Gym's servers, as it starts them for a folder with our resources server."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psutil

from fivescore.client.integrations.nemo_gym.__main__ import main as write_resources_server

AGENT = "fivescore_simple_agent"
"""As our configuration names it."""
SERVERS = (
    "resources_servers/fivescore",
    "responses_api_agents/simple_agent",
    "responses_api_models/vllm_model",
)


@contextmanager
def folder() -> Iterator[None]:
    """Work in a folder with our resources server, until the end of the block."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as name:
        os.chdir(name)  # NeMo-Gym looks here for resources servers, and writes here
        write_resources_server([SERVERS[0]])
        for server in SERVERS:
            # NeMo-Gym makes an environment for each server with uv, unless it is there.
            Path("environments", server).mkdir(parents=True)
            Path("environments", server, ".venv").symlink_to(sys.prefix)
        yield


@contextmanager
def ended() -> Iterator[None]:
    """End its servers at the end of the block; it ends only the shells that it started them with.

    If they are an actor's children, the block ends before the actor does.
    """
    try:
        yield
    finally:
        for process in psutil.Process().children(recursive=True):
            with suppress(psutil.NoSuchProcess):
                if process.cmdline()[-1:] == ["app.py"]:
                    process.send_signal(signal.SIGINT)


def settings(url: str, model: str) -> dict[str, Any]:
    """The configuration for rewards of the service at an address.

    Args:
        model: the name of the policy's configuration, of NeMo-Gym's ``vllm_model``.
    """
    return {
        "config_paths": [
            str(Path("resources_servers/fivescore/configs/fivescore.yaml").absolute()),
            f"responses_api_models/vllm_model/configs/{model}.yaml",
        ],
        "fivescore": {"resources_servers": {"fivescore": {"url": url}}},
        "default_host": "127.0.0.1",
        "observability_enabled": True,  # its paths begin with /ng-rollout/<id>
        "model_call_capture_dir": str(Path("calls").absolute()),
        "uv_venv_dir": str(Path("environments").absolute()),
        "skip_venv_if_present": True,
        "allow_openai_version_skew": True,
    }
