"""fivescore on a cluster, by Ray Serve: ``serve run fivescore.ray:app engines=2``.

HTTP replicas answer all routes, and engine replicas hold a whole copy of the model each. A prompt
goes to the same engine replica from whatever HTTP replica, for its prefix cache.
"""

from fivescore.ray.deployments import app

__all__ = ["app"]
