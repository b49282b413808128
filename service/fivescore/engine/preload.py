"""Imported by the fork server alone, before it forks engines: see ``engine/processes.py``."""

import gc

gc.disable()  # a million objects come that stay, and it would look at them again and again

from fivescore.engine.vllm import preload  # noqa: E402

preload()
gc.freeze()  # so that engines share these pages: a collection writes to each object that it sees
gc.enable()
