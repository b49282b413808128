"""Reads and writes rows of every file format. Imports only ``errors`` of the other rooms."""
