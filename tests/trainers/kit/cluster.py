"""A real Ray on this machine, for trainers whose rewards come from Ray's actors."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"
# At this share Ray kills a worker, whoever has filled the machine's memory.
os.environ["RAY_memory_usage_threshold"] = "0.98"  # noqa: SIM112  # that is its name

import ray

STORE_BYTES = 256 * 2**20
"""For the objects that actors exchange: a batch of samples and their rewards."""


@contextmanager
def running(setup: str | None = None) -> Iterator[None]:
    """Ray, until the end of the block.

    Args:
        setup: a function without arguments, as ``module.name``, which each worker calls first.
    """
    # Ray keeps what its sessions write in its usual folder for ever.
    with tempfile.TemporaryDirectory(prefix="ray", ignore_cleanup_errors=True) as folder:
        ray.init(
            num_cpus=4,
            include_dashboard=False,
            object_store_memory=STORE_BYTES,
            runtime_env={"worker_process_setup_hook": setup} if setup else None,
            _node_ip_address="127.0.0.1",
            _temp_dir=folder,
        )
        try:
            yield
        finally:
            ray.shutdown()
