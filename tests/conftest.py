"""Before any test imports the service: no network, no settings from the developer's shell, and no
test that fails because the machine was busy.
"""

from __future__ import annotations

import os

from hypothesis import settings

os.environ["HF_HUB_OFFLINE"] = "1"
for _name in [name for name in os.environ if name.startswith("FIVESCORE_")]:
    del os.environ[_name]

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
