"""How much is asked at a time unless somebody says otherwise: of the clients, the commands and the
integrations."""

from __future__ import annotations

BATCH_SIZE = 64
"""Pairs per request: the server's default window takes several, and one that fails costs little."""
CONCURRENCY = 8
"""Requests at a time of a client, which all callers of a trainer's process share."""
FEW_REQUESTS = 4
"""Requests at a time of a command or of a gatherer: the server tokenises the next while it computes
one, and other clients find room."""
RETRY_SECONDS = 600.0
"""How long one request may take with all its tries: longer than a server takes to load."""
