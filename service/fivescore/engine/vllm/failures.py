"""The one line that says why an engine did not start, and what to do about it."""

from __future__ import annotations

import re

from fivescore.errors import without_kind
from fivescore.exhaustion import full_places

MOST_CHARACTERS = 300
MOST_OF_A_NAME = 80
"""Characters of the model's name in the line; a longer one keeps its end."""
NO_ROOM = "No space left on device"
NEXT_STEPS = (
    (r"KV cache|cache blocks",
     "too little memory for the KV cache: raise --engine.kv-cache-memory-bytes or lower"
     " --max-tokens"),
    (r"out of memory|can't allocate memory|MemoryError|'?: -9\b",
     "too little memory: lower --max-tokens or --engine.gpu-memory-utilization, or use a larger"
     " machine"),
    (NO_ROOM, "free some; a container's /dev/shm has 64 MB, more with --shm-size"),
    (r"[Aa]rchitectures? .*not supported|not support\S* .*architecture|model type",
     "compare architectures in config.json with the models that this vLLM supports"),
    (r"[Hh]ead[ _](size|dim)",
     "this device's attention cannot run the model: try --engine.attention-backend or a GPU"),
    (r"[Ss]afetensor|header|deserializ", "fetch the weights again: a file is damaged"),
    (r"trust_remote_code|trust-remote-code", "--trust-remote-code runs the checkpoint's code"),
)  # fmt: skip
"""A pattern of a cause, and the advice for it."""
ADVICE = "--log-level debug shows the engine's own output"


def startup_failure(model: str, cause: str) -> str:
    """``model NAME: the cause (the next step)``, in at most 300 characters."""
    cause = " ".join(without_kind(cause).split())
    if NO_ROOM in cause and (full := full_places()):
        cause = f"{cause} ({' and '.join(full)}: full)"
    advice = next((step for like, step in NEXT_STEPS if re.search(like, cause)), ADVICE)
    if len(model) > MOST_OF_A_NAME:
        model = "..." + model[3 - MOST_OF_A_NAME :]
    room = MOST_CHARACTERS - len(f"model {model}: ; {advice}")
    return f"model {model}: {_shortened(cause, room)}; {advice}"


def _shortened(text: str, most: int) -> str:
    """The sentences that fit, else as many words as do."""
    if len(text) <= most:
        return text.rstrip(".")
    cut = text[: most - 3]
    end = cut.rfind(". ")
    return cut[:end] if end > 0 else cut[: max(cut.rfind(" "), most // 2)] + "..."
