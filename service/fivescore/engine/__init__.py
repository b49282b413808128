"""Engines behind one Protocol: vLLM, and a deterministic fake."""
