"""Before any test imports the service: no network, no settings from the developer's shell."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("FIVESCORE_")]:
    del os.environ[_name]
