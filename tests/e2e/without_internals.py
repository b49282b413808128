"""``fivescore``, beside a vLLM that lacks every internal name that can be done without."""

from __future__ import annotations

import sys

from fivescore import cli
from fivescore.engine.vllm import internals
from fivescore.engine.vllm.internals import Internal


def _present(one: Internal) -> bool:
    if "vllm.v1.engine.async_llm" in sys.modules:  # vLLM's own modules have imported it by now
        vars(sys.modules["vllm.v1.engine"]).pop("EngineCoreRequest", None)
    return one.without == internals.STOP


if __name__ == "__main__":  # an engine that is spawned imports this module too
    internals._present = _present
    sys.exit(cli.main())
