"""Default sizes, concurrency and deadlines of the clients, the commands and the integrations."""

from __future__ import annotations

BATCH_SIZE = 64
"""Pairs per request: several fit the server's default window, and a retry repeats little work."""
CONCURRENCY = 8
"""Concurrent requests of a client, shared by all callers in a trainer's process."""
FEW_REQUESTS = 4
"""Concurrent requests of a command or a gatherer: the server tokenises one while it computes
another, and other clients are still admitted."""
RETRY_SECONDS = 600.0
"""Time limit of one request with all its tries: longer than a server takes to load."""
MOST_PRIORITY = 1000
"""The highest priority of a request, and its lowest with a minus, as the server takes them."""
LOW_PRIORITY = 100
"""Priority of ``fivescore score``: behind trainers, whose requests have 0."""
