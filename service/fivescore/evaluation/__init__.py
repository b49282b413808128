"""Measures running servers: ``fivescore evaluate``. The server never imports it."""
