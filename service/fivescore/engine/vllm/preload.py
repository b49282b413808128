"""Imported by the fork server alone, before it forks engines: see ``engine/vllm/forkserver.py``."""

import contextlib
import gc

gc.disable()  # a million objects come that stay, and it would look at them again and again

with contextlib.suppress(Exception):  # an engine will fail at the same, and say why
    from fivescore.engine.vllm.engine import preload

    preload()
gc.freeze()  # so that engines share these pages: a collection writes to each object that it sees
gc.enable()
