"""Trains reward models: ``fivescore train``. The server never imports it."""
