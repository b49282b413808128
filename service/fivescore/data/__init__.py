"""Rows of every format, in and out; imports nothing of the other rooms but errors."""
