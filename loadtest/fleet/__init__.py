"""Simulates fleets of engines: routing, lost engines and HTTP processes, without a GPU.

``python -m loadtest.fleet`` writes ``loadtest/results/fleet``;
``python -m loadtest.fleet --against-reality`` compares a prediction with two real engines.
"""
