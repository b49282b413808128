"""From the service into this room: what vLLM's processes find, and the import of vLLM itself."""

from __future__ import annotations

import logging
import os

from fivescore.engine.base import Engine
from fivescore.engine.vllm import internals, processes
from fivescore.engine.vllm.forkserver import METHOD, start_fork_server
from fivescore.errors import ConfigurationError, first_line
from fivescore.model.head import OwnHead
from fivescore.settings import Settings

log = logging.getLogger(__name__)

END_SECONDS = 5.0
"""How long processes that were killed may take to end, before this one does."""
PACKAGES = "pip install 'fivescore[cpu]' or 'fivescore[gpu]'"


def prepare(settings: Settings) -> None:
    """Set the variables of the engine's processes that the operator has not set, and begin to
    import vLLM in a process that engines can be forked from."""
    _set_variables(settings)
    start_fork_server(settings.engine)


def end_processes(seconds: float = END_SECONDS) -> None:
    """Kill what still runs of engines, and the process that they are forked from.

    Args:
        seconds: how long to wait until they have ended, and given back memory and devices; 0 does
            not look.
    """
    processes.kill_all()
    internals.kill_fork_server(wait=seconds > 0)
    if seconds > 0 and (left := processes.left(seconds)):
        log.warning("killed, and not ended within %g s: process %s", seconds, left)


def make(settings: Settings, max_tokens: int | None, head: OwnHead | None = None) -> Engine:
    """An engine for the settings' model, which is not loaded yet. Importing vLLM takes seconds.

    Args:
        head: the manifest's head; None where it is one linear layer.

    Raises:
        ConfigurationError: vLLM is not installed, cannot be used, or refuses an option.
    """
    _set_variables(settings)
    # As ``vllm serve`` does: a fork of this process would keep its clients' connections open.
    os.environ.setdefault(METHOD, "spawn")
    try:
        from fivescore.engine.vllm.engine import VllmEngine
    except ImportError as error:
        missing = error.name or ""
        if missing == "vllm" and isinstance(error, ModuleNotFoundError):
            raise ConfigurationError(f"vLLM is not installed: {PACKAGES}") from error
        if not missing.startswith("vllm."):
            raise
        raise ConfigurationError(
            f"this version of vLLM cannot be used: {first_line(error)};"
            f" {PACKAGES} brings the right one"
        ) from error
    return VllmEngine(
        settings.model,
        settings.engine,
        head=head,
        revision=settings.revision,
        max_tokens=max_tokens,
        trust_remote_code=settings.trust_remote_code,
        otlp_traces_endpoint=settings.otlp_traces_endpoint,
    )


def _set_variables(settings: Settings) -> None:
    quiet = "INFO" if settings.log_level == "debug" else "WARNING"
    os.environ.setdefault("VLLM_LOGGING_LEVEL", quiet)
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")  # vLLM reports usage to its authors
    os.environ.setdefault("PYTHONWARNINGS", "ignore::FutureWarning")  # from libraries
