"""A NeMo-Gym resources server that asks a fivescore server for its rewards.

NeMo-Gym starts resources servers itself, from folders of its own. This writes one::

    python -m fivescore.client.integrations.nemo_gym resources_servers/fivescore

``configs/fivescore.yaml`` there holds the address of the service and what may be changed.
"""
