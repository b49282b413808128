"""Scores whole files: reads rows, asks running servers, and writes the rows with their scores."""
